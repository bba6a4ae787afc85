import { inWords, type PlannedStep } from './plan';
import recorded from './plan.recorded.json';

/** One changed setting each, as Pulumi planned it, and what an operator reads. */

const plans = recorded as unknown as Record<string, PlannedStep[]>;
const words = (name: string) => inWords(plans[name]!);
const API = /No outage\.$/;

it('says nothing where nothing changes', () => {
  expect(words('nothing')).toMatchObject({ warnings: [], changes: [], interrupted: [] });
});

it.each<[string, RegExp, string?]>([
  ['image', /API: release changes to image \S+:1\.0\.1 \(from \S+\): 1 new container beside the old/],
  ['commit', /API: release .*built anew; commit unknown -> abc1234/],
  ['buildNetwork', /Images: the API is built anew \(network of the build\)/],
  ['domain', /API: names that it answers to .*loans\.example/],
  ['sampleLoans', /API: sample loans are no longer loaded; those in the database stay/],
  ['images.postgres', /Database: .*in place \(image postgres:18\.4 -> postgres:18\.9\).*data stays in/, 'Database'],
  ['images.nginx', /Gateway: .*in place \(image nginx:.*at most 35 s/, 'Gateway'],
  ['images.prometheus', /Prometheus: .*in place \(image .*What it collected stays/, 'Prometheus'],
  ['images.grafana', /Grafana: .*in place \(image .*made by hand in it are gone/, 'Grafana'],
  ['images.node', /Images: the API is built anew \(image of Node\)/],
  ['api.cpus', /API: cpus 1 -> 2: 1 new container beside the old/],
  ['api.memory', /API: memory 512 -> 600 MiB, applied to the running container\.$/],
  ['api.healthcheck', /API: .*health check 30s\/5s\/3 -> 20s\/4s\/4: 1 new container/],
  ['api.replicas', /API: replicas 1 -> 3: 2 containers more, behind the gate/],
  ['api.readyWithin', /the gate tests the running containers again \(readyWithin 60 -> 90 s\); none is replaced/],
  ['api.drain', /API: drain 2 s -> 9 s, the old containers still go by 2 s/],
  ['api.shutdown', /API: shutdown 30 s -> 20 s/],
  ['api.poolSize', /API: poolSize 10 -> 12/],
  ['api.maxAmount', /API: maxAmount 50000 -> 60000, for new loans; stored ones stay/],
  ['api.rateLimit', /API: rateLimit none -> 10\/1/],
  ['api.retentionYears longer', /API: retentionYears 7 -> 0, whoever is a pseudonym already stays one/],
  ['api.logLevel', /API: logLevel info -> debug/],
  ['api.corsOrigins', /API: corsOrigins none -> https:\/\/desk\.example/],
  ['database.cpus', /Database: .*in place \(cpus 1 -> 2\).*503 meanwhile.*data stays/, 'Database'],
  ['database.memory', /Database: .*in place \(memory 512 -> 1024 MiB\)/, 'Database'],
  ['database.healthcheck', /Database: .*in place \(health check /, 'Database'],
  ['database.maxConnections', /Database: .*in place \(maxConnections 200 -> 300\)/, 'Database'],
  ['gateway.cpus', /Gateway: .*in place \(cpus 1 -> 2\).*without an entrance/, 'Gateway'],
  ['gateway.memory', /Gateway: memory 128 -> 200 MiB, applied to the running container/],
  ['gateway.healthcheck', /Gateway: .*in place \(health check /, 'Gateway'],
  ['gateway.host', /API: names that it answers to/, 'Prometheus,Grafana'],
  ['gateway.address', /Gateway: .*in place \(ports 127\.0\.0\.1:.* -> 127\.0\.0\.2:/, 'Gateway'],
  ['gateway.ports', /Gateway: .*in place \(ports .*39443/, 'Prometheus,Grafana,Gateway'],
  ['gateway.ports api', /Gateway: .*in place \(ports /, 'Gateway'],
  ['prometheus.cpus', /Prometheus: .*in place \(cpus 0\.5 -> 1\).*What it collected stays/, 'Prometheus'],
  ['prometheus.memory', /Prometheus: memory 512 -> 600 MiB, applied to the running/],
  ['prometheus.healthcheck', /Prometheus: .*in place \(health check /, 'Prometheus'],
  ['grafana.cpus', /Grafana: .*in place \(cpus 0\.5 -> 1\)/, 'Grafana'],
  ['grafana.memory', /Grafana: memory 512 -> 600 MiB, applied to the running/],
  ['grafana.healthcheck', /Grafana: .*in place \(health check /, 'Grafana'],
])('%s', (name, sentence, interrupted = '') => {
  const { warnings, changes, interrupted: parts } = words(name);
  expect(warnings).toEqual([]);
  expect(changes).toContainEqual(expect.stringMatching(sentence));
  expect(parts.join()).toBe(interrupted);
});

it.each([
  ['api.retentionYears', /closed more than 5 years ago become pseudonyms .* This cannot be undone/],
  ['prometheus.retentionDays', /metrics older than 7 days go\. This cannot be undone/],
  ['prometheus.retentionSize', /oldest metrics go until 1024 MiB are left/],
  ['api.keys', /without an API key are refused \(401\)/],
  ['database.name', /from the database branchloans_dev to another, which starts EMPTY/],
  ['database.user', /logs in as somebody instead of branchloans_dev, .* is refused before the API/],
  ['database.volume', /from \S+-postgres to \S+-other: the service starts with an EMPTY database.*stays where it is/],
  ['database.volume directory', /from \S+-postgres to \/srv\/postgres: the service starts with an EMPTY/],
])('%s warns of what it does to running data', (name, warning) => {
  expect(words(name).warnings).toEqual([expect.stringMatching(warning)]);
});

it('a database that moves is replaced, not updated, and its schema made', () => {
  const { changes, interrupted } = words('database.volume');
  expect(interrupted).toEqual(['Database']);
  expect(changes).toContainEqual(expect.stringMatching(/migrations run/));
});

it('says that a roll of the API interrupts nothing, and that the gateway reloads', () => {
  expect(words('api.poolSize').changes).toEqual([
    expect.stringMatching(/migrations run before the switch/),
    expect.stringMatching(API),
    expect.stringMatching(/sample loans are loaded where they are missing/),
    expect.stringMatching(/^Gateway: new files, with the servers .* by reload; no connection is dropped\.$/),
  ]);
});

it('never calls what happens to a part by Pulumi’s words, and shows no placeholder', () => {
  for (const name of Object.keys(plans).filter((each) => each !== '//')) {
    const { warnings, changes } = words(name);
    for (const sentence of [...warnings, ...changes])
      expect(sentence).not.toMatch(/undefined|NaN|\[secret\]|04da6b54|urn:|what it depends on changes/);
  }
});

/** Not recorded: the two steps of a plan that tell of a canary. */
const canary = (op: string): PlannedStep => ({
  op,
  urn: 'urn:pulumi:staging::branchloans::branchloans:infra:Api$docker:index/container:Container::bl-api-canary-1',
  ...(op === 'create' ? { newState: { inputs: {} } } : { oldState: { inputs: {} } }),
});
const stable: PlannedStep = {
  op: 'same',
  urn: 'urn:pulumi:staging::branchloans::branchloans:infra:Api$docker:index/container:Container::bl-api-1',
  oldState: { inputs: {} },
  newState: { inputs: {} },
};

it.each([
  ['create', /^Canary: 1 container of another release, behind a gate of its own, gets a share of the requests/],
  ['delete', /^Canary: it ends\. The gateway reloads without it/],
])('a canary is no replica of the API: %s', (op, sentence) => {
  expect(inWords([stable, canary(op)])).toMatchObject({
    changes: [expect.stringMatching(sentence)],
    warnings: [],
    interrupted: [],
  });
});

/** Not recorded either: what switching an exporter or its image gives. */
const exporter = (op: string, name: string, image?: [before: string, after: string]): PlannedStep => ({
  op,
  urn: `urn:pulumi:staging::branchloans::branchloans:infra:Exporters$docker:index/container:Container::bl-${name}`,
  ...(op === 'create' ? {} : { oldState: { inputs: image ? { image: image[0] } : {} } }),
  ...(op === 'delete' ? {} : { newState: { inputs: image ? { image: image[1] } : {} } }),
});

it('names the image of Alertmanager by its tag', () => {
  const urn = 'urn:pulumi:staging::branchloans::branchloans:infra';
  const pulled = `${urn}:Images$docker:index/remoteImage:RemoteImage::bl-images-alertmanager`;
  const container = `${urn}:Alerting$docker:index/container:Container::bl-alertmanager`;
  const step = (op: string, at: string, from: Record<string, string>, to: Record<string, string>): PlannedStep => ({
    op,
    urn: at,
    oldState: { inputs: from },
    newState: { inputs: to },
  });
  const { changes } = inWords([
    stable,
    step('replace', pulled, { name: 'prom/alertmanager:v1' }, { name: 'prom/alertmanager:v2' }),
    step('replace', container, { image: 'sha256:a' }, { image: 'sha256:b' }),
  ]);
  expect(changes.join('\n')).toMatch(/Alerting: .*in place \(image prom\/alertmanager:v1 -> prom\/alertmanager:v2\)/);
});

it.each<[string, Record<string, unknown>, RegExp]>([
  ['of an image is overridden', { timeout: '5s' }, /^API: time limit of the probe its image's own -> 5s: 1 new/],
  ['follows the health check', { timeout: '9s' }, /^API: health check 30s\/5s\/3 -> 30s\/9s\/3: 1 new/],
])('the time limit of the probe %s', (_, to, sentence) => {
  const healthcheck = { interval: '30s', timeout: '5s', retries: 3 };
  const step: PlannedStep = {
    ...stable,
    op: 'replace',
    oldState: { inputs: { healthcheck, envs: ['PORT=8000'] } },
    newState: {
      inputs: {
        healthcheck: { ...healthcheck, ...to },
        envs: ['PORT=8000', `HEALTHCHECK_TIMEOUT=${String(to['timeout'])}`],
      },
    },
  };
  expect(inWords([step]).changes).toEqual([expect.stringMatching(sentence)]);
});

const DATABASE = 'urn:pulumi:staging::branchloans::branchloans:infra:Database$docker:index/container:Container::bl-db';
it.each<[string, string, object, object, RegExp]>([
  [
    'is made',
    'update',
    { memoryReservation: 0 },
    { memoryReservation: 1024, cpuShares: 2048 },
    /^Database: memoryReservation none -> 1024 MiB; cpuShares none -> 2048, applied to the running container\.$/,
  ],
  [
    'is taken away',
    'replace',
    { memoryReservation: 1024 },
    { memoryReservation: 0 },
    /^Database: its container is replaced in place \(memoryReservation 1024 MiB -> none\): some seconds without/,
  ],
])('a reservation that %s', (_, op, before, after, sentence) => {
  const step = { op, urn: DATABASE, oldState: { inputs: { ...before } }, newState: { inputs: { ...after } } };
  expect(inWords([stable, step]).changes).toEqual([expect.stringMatching(sentence)]);
});

it.each<[string, PlannedStep, RegExp, string[]]>([
  ['made', exporter('create', 'node-exporter'), /^Node exporter: its container is made\.$/, []],
  ['removed', exporter('delete', 'container-exporter'), /^Container exporter: its container is removed\.$/, []],
  [
    'replaced',
    exporter('replace', 'postgres-exporter', ['sha256:a', 'sha256:b']),
    /^Postgres exporter: .*in place \(image sha256:a -> sha256:b\): some seconds without its metrics\.$/,
    ['Postgres exporter'],
  ],
])('an exporter that is %s', (_, step, sentence, interrupted) => {
  expect(inWords([stable, step])).toEqual(
    expect.objectContaining({ changes: [expect.stringMatching(sentence)], warnings: [], interrupted }),
  );
});
