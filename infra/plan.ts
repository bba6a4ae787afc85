/**
 * What `pulumi preview --json` plans, in the words of the environment: what changes, how it takes over, and what it
 * does to running data. The answers come from the plan itself, not from the settings: it knows what is deployed.
 */

type Inputs = Readonly<Record<string, unknown>>;

/** One resource of the plan, as far as it is read here. What is secret reads "[secret]". */
export interface PlannedStep {
  readonly op: string;
  readonly urn: string;
  readonly oldState?: { readonly inputs?: Inputs; readonly outputs?: Inputs };
  readonly newState?: { readonly inputs?: Inputs; readonly outputs?: Inputs };
  /** Inputs that differ, secret ones too. */
  readonly diffReasons?: readonly string[] | null;
}

export interface Words {
  /** What an operator must know before anything is done: data that goes, stays behind or becomes unreachable. */
  readonly warnings: readonly string[];
  /** Empty when nothing changes. */
  readonly changes: readonly string[];
  /** Parts that are away for some seconds. */
  readonly interrupted: readonly string[];
}

/** Where Pulumi does not know a value before the update. */
const UNKNOWN = '04da6b54-80e4-46f7-96ec-b56ff0331ba9';
const SECRET = '[secret]';
/** Part -> what the names of its resources hold, and the image that it runs. */
const EXPORTERS: Readonly<Record<string, { readonly name: string; readonly image: string }>> = {
  'Postgres exporter': { name: 'postgres-exporter', image: 'postgres-exporter' },
  'Blackbox exporter': { name: 'blackbox-exporter', image: 'blackbox-exporter' },
  'Node exporter': { name: 'node-exporter', image: 'node-exporter' },
  'Container exporter': { name: 'container-exporter', image: 'node' },
};
const PARTS = [
  ...['Images', 'Network', 'Database', 'Releases', 'API', 'Canary', 'Prometheus', 'Alerting', 'Grafana'],
  ...Object.keys(EXPORTERS),
  'Gateway',
];

interface Resource {
  readonly op: string;
  readonly part: string;
  readonly kind: 'container' | 'volume' | 'network' | 'image' | 'step' | 'other';
  readonly name: string;
  readonly before: Inputs | undefined;
  readonly after: Inputs | undefined;
  readonly reasons: readonly string[];
}

/** @param steps every step of the plan, also those that change nothing: they tell how many containers there are */
export function inWords(steps: readonly PlannedStep[]): Words {
  const resources = steps.flatMap(readStep);
  const changed = resources.filter(({ op }) => op !== 'same');
  const images = changed.filter(({ kind }) => kind === 'image');
  const told = new Telling();
  if (changed.length > 0 && !resources.some(({ kind, before }) => kind === 'container' && before !== undefined)) {
    tellFirst(changed, told);
    return told;
  }
  tellOtherPrefix(changed, told);
  const parts = [...new Set([...PARTS, ...changed.map(({ part }) => part)])];
  for (const part of parts) {
    const of = (all: readonly Resource[]) => all.filter((resource) => resource.part === part);
    if (part === 'Images') continue;
    if (part === 'API') tellApi(of(resources), images, told);
    else if (part === 'Canary') tellCanary(of(changed), told);
    else tellPart(part, of(changed), images, told);
    tellSteps(part, of(changed), changed, told);
  }
  tellImages(images, told);
  return told;
}

class Telling implements Words {
  readonly warnings: string[] = [];
  readonly changes: string[] = [];
  readonly interrupted: string[] = [];
}

/** The parts of a resource's URN: `urn:pulumi:<stack>::<project>::<type of each parent>$<type>::<name>`. */
export function readUrn(urn: string): { readonly part: string; readonly type: string; readonly name: string } {
  const [, , types = '', ...rest] = urn.split('::');
  const name = rest.join('::');
  const type = types.split('$').at(-1) ?? '';
  const component = /branchloans:infra:(\w+)/.exec(types)?.[1] ?? '';
  return { part: partOf(component, name), type, name };
}

function partOf(component: string, name: string): string {
  if (component === 'Api') return name.includes('-api-canary') ? 'Canary' : 'API';
  if (component === 'Exporters') {
    const own = Object.entries(EXPORTERS).find(([, exporter]) => name.includes(`-${exporter.name}`));
    return own?.[0] ?? component;
  }
  if (component !== 'Monitoring') return component;
  return name.includes('-grafana') ? 'Grafana' : 'Prometheus';
}

const KINDS: Readonly<Record<string, Resource['kind']>> = {
  'docker:index/container:Container': 'container',
  'docker:index/volume:Volume': 'volume',
  'docker:index/network:Network': 'network',
  'docker:index/remoteImage:RemoteImage': 'image',
  'docker:index/image:Image': 'image',
  'command:local:Command': 'step',
};

function readStep({ op, urn, oldState, newState, diffReasons }: PlannedStep): Resource[] {
  const { part, type, name } = readUrn(urn);
  const kind = KINDS[type];
  if (kind === undefined || ['refresh', 'read'].includes(op)) return [];
  const before = op.startsWith('create') ? undefined : oldState?.inputs;
  const after = op.startsWith('delete') ? undefined : newState?.inputs;
  return [{ op, part, kind, name, before, after, reasons: diffReasons ?? [] }];
}

function tellFirst(changed: readonly Resource[], told: Telling): void {
  const containers = changed.filter(({ kind }) => kind === 'container');
  const parts = PARTS.flatMap((part) => {
    const own = containers.filter((container) => container.part === part);
    const more = [
      ...(own.length > 1 ? [`${own.length} containers`] : []),
      ...own.flatMap(({ after }) => portsOf(after)),
      ...(part === 'Database' ? own.map(({ after }) => `files in ${dataOf(after)}`) : []),
    ];
    return own.length === 0 ? [] : [`${part}${more.length === 0 ? '' : ` (${more.join(', ')})`}`];
  });
  told.changes.push(
    `The environment is made for the first time: ${parts.join(', ')}.`,
    'Database: files that are there already are taken over with their loans; otherwise it starts empty.',
  );
}

function tellOtherPrefix(changed: readonly Resource[], told: Telling): void {
  const database = changed.filter(({ kind, part }) => kind === 'container' && part === 'Database');
  const old = database.find(({ op }) => op === 'delete');
  const next = database.find(({ op }) => op === 'create');
  if (old === undefined || next === undefined) return;
  const [from, to] = [dataOf(old.before), dataOf(next.after)];
  told.warnings.push(
    `The prefix changes: ${old.name} becomes ${next.name}; all containers are made anew and the old ones go last. ` +
      (from === to
        ? `Two database servers would run on the same files (${from}) and destroy them: take the environment down with its old prefix first (make down).`
        : `The database starts anew in ${to}; the data in ${from} stays where it is.`),
  );
}

/** API containers come and go beside each other; a gate and a reload stand between. */
function tellApi(resources: readonly Resource[], images: readonly Resource[], told: Telling): void {
  const containers = resources.filter(({ kind }) => kind === 'container');
  const changed = containers.filter(({ op }) => op !== 'same');
  const replaced = changed.filter(({ before, after, op }) => before && after && op !== 'update');
  const updated = changed.filter(({ op }) => op === 'update');
  const [had, have] = [
    containers.filter(({ before }) => before).length,
    containers.filter(({ after }) => after).length,
  ];
  const migrates = resources.some(({ op, name, after }) => after && op !== 'same' && name.endsWith('-migrate'));
  if (migrates) told.changes.push('API: migrations run before the switch, while the old containers serve.');
  const because = describeDifferences(replaced, images, told);
  if (replaced.length > 0) {
    told.changes.push(
      `API: ${because}: ${count(replaced.length, 'new container')} beside the old, gate, switch by reload; the old ` +
        'finish their requests and go. No outage.',
    );
  }
  if (had !== have) {
    const difference = Math.abs(have - had);
    told.changes.push(
      have > had
        ? `API: replicas ${had} -> ${have}: ${count(difference, 'container')} more, behind the gate and a reload.`
        : `API: replicas ${had} -> ${have}: the gateway reloads without ${count(difference, 'container')}, which ` +
            `then ${difference === 1 ? 'finishes its requests and goes' : 'finish their requests and go'}.`,
    );
  }
  if (updated.length > 0) told.changes.push(inPlaceUpdate('API', updated, images, told));
  const gate = resources.find(({ kind, op, name }) => kind === 'step' && op !== 'same' && name.endsWith('-gate'));
  if (gate !== undefined && changed.length === updated.length) {
    const [from, to] = [gate.before, gate.after].map((inputs) => readyWithin(inputs));
    const why = from !== undefined && to !== undefined && from !== to ? ` (readyWithin ${from} -> ${to} s)` : '';
    told.changes.push(`API: the gate tests the running containers again${why}; none is replaced.`);
  }
}

/** Another release beside the stable one, for a share of the requests. */
function tellCanary(changed: readonly Resource[], told: Telling): void {
  const containers = changed.filter(({ kind, op }) => kind === 'container' && op !== 'update');
  const [had, have] = [containers.filter(({ before }) => before), containers.filter(({ after }) => after)];
  if (have.length > 0) {
    told.changes.push(
      `Canary: ${count(have.length, 'container')} of another release, behind a gate of its own, ${verb(have, 'gets', 'get')} ` +
        'a share of the requests; its migrations run before.',
    );
  } else if (had.length > 0) {
    told.changes.push('Canary: it ends. The gateway reloads without it, it finishes its requests and goes.');
  }
}

function readyWithin(inputs: Inputs | undefined): number | undefined {
  return stdinOf(inputs)['readyWithinSeconds'] as number | undefined;
}

/** What a step reads, where it is neither secret nor unknown yet. */
function stdinOf(inputs: Inputs | undefined): Inputs {
  try {
    const read: unknown = JSON.parse(String(inputs?.['stdin']));
    return typeof read === 'object' && read !== null ? (read as Inputs) : {};
  } catch {
    return {};
  }
}

/** Database, gateway, Prometheus, Grafana, exporters: one container each, which stops before the next one starts. */
function tellPart(part: string, changed: readonly Resource[], images: readonly Resource[], told: Telling): void {
  for (const container of changed.filter(({ kind }) => kind === 'container')) {
    if (container.op === 'update') {
      told.changes.push(inPlaceUpdate(part, [container], images, told));
    } else if (container.before && container.after) {
      const why = describeDifferences([container], images, told);
      told.changes.push(`${part}: its container is replaced in place (${why}): ${whileReplaced(part, container)}`);
      told.interrupted.push(part);
    } else {
      told.changes.push(`${part}: its container ${container.after ? 'is made' : 'is removed'}.`);
    }
  }
  for (const { kind, name, op, after } of changed.filter(({ kind }) => kind === 'volume' || kind === 'network')) {
    if (part === 'Database' && kind === 'volume') continue;
    told.changes.push(
      `${part}: the ${kind} ${name} ${op === 'replace' ? 'is replaced' : after ? 'is made' : 'is removed'}.`,
    );
    if (kind === 'volume' && op !== 'create' && name.endsWith('-data'))
      told.warnings.push(`${part}: what it collected in the volume ${name} is lost.`);
  }
}

function whileReplaced(part: string, { before, after }: Resource): string {
  switch (part) {
    case 'Database':
      return (
        'some seconds without a database; requests that need it get 503 meanwhile. ' +
        `Its data stays in ${dataOf(before)}.`
      );
    case 'Gateway':
      return (
        'some seconds without an entrance. New connections are refused from the stop of the old container on; it ' +
        `finishes what is in flight first, for at most ${String(before?.['destroyGraceSeconds'])} s.`
      );
    case 'Prometheus':
      return `some seconds without metrics. What it collected stays in ${mountOf(after, '/prometheus')}.`;
    case 'Grafana':
      return 'some seconds without Grafana. Sessions and what was made by hand in it are gone; dashboards come back.';
    case 'Alerting':
      return `some seconds in which nobody is told of anything. Silences stay in ${mountOf(after, '/alertmanager')}.`;
    default:
      return part in EXPORTERS ? 'some seconds without its metrics.' : 'some seconds without it.';
  }
}

function inPlaceUpdate(
  part: string,
  containers: readonly Resource[],
  images: readonly Resource[],
  told: Telling,
): string {
  const what = describeDifferences(containers, images, told);
  const [{ before, after } = { before: undefined, after: undefined }] = containers;
  const shrinks = Number(after?.['memory']) < Number(before?.['memory']);
  const risk = shrinks ? ' One that uses more than that may be ended by the kernel, and is started again.' : '';
  return `${part}: ${what}, applied to the running ${containers.length === 1 ? 'container' : 'containers'}.${risk}`;
}

function tellSteps(part: string, own: readonly Resource[], all: readonly Resource[], told: Telling): void {
  const steps = own.filter(({ kind }) => kind === 'step');
  const helperChanges = all.some(({ kind, name }) => kind === 'image' && name.endsWith('-images-nginx'));
  for (const { name, op, after } of steps) {
    if (/-(publish|switch)$/.test(name)) {
      if (after) told.changes.push(publishing(part, own, all, helperChanges));
    } else if (name.endsWith('-seed')) {
      told.changes.push(
        after
          ? 'API: the sample loans are loaded where they are missing.'
          : 'API: sample loans are no longer loaded; those in the database stay.',
      );
    } else if (name.endsWith('-roles')) {
      // After a new container it only confirms what is there.
      if (op === 'update')
        told.changes.push('Database: its roles and passwords are set, and the database is made where it is missing.');
    } else if (name.endsWith('-role')) {
      if (op === 'update' || op === 'create') told.changes.push('Database: the role that reads its statistics is set.');
    } else if (/-(password|key|token)$/.test(name)) {
      told.changes.push(
        after
          ? `${part}: a new secret is made (${name}).`
          : `${part}: the generated secret ${name} is dropped: the stack sets its own.`,
      );
    } else if (!/-(gate|migrate|directory|rehearsal|open|socket)$/.test(name)) {
      told.changes.push(`${part}: the step ${name} ${after ? 'runs' : 'is no longer part of a deploy'}.`);
    }
  }
}

/** What the files are is secret in the plan; where they come from is not. */
function publishing(part: string, own: readonly Resource[], all: readonly Resource[], helperChanges: boolean): string {
  const again = `${part}: its files are written again by the new nginx image`;
  if (part === 'Gateway') {
    const roll = all.some(({ part: of, kind, op }) => of === 'API' && kind === 'container' && op !== 'update');
    const servers = all.some(({ part: of, kind, name }) => of === 'API' && kind === 'step' && name.endsWith('-gate'));
    if (servers && !roll && !helperChanges)
      return 'Gateway: the servers stay; files that stay the same change nothing.';
    const what = servers
      ? 'new files, with the servers that the gate lets through'
      : helperChanges
        ? 'its files are tested by the new nginx image'
        : 'new files (names, certificate, password or rules; they are secret)';
    return own.some(({ kind }) => kind === 'container')
      ? `Gateway: ${what}, tested before its container is touched.`
      : `Gateway: ${what}, taken over by reload; no connection is dropped.`;
  }
  if (helperChanges) return `${again}; the same content changes nothing.`;
  if (part === 'API') return 'API: its database password is written anew, for the new containers.';
  if (part === 'Prometheus' || part === 'Alerting')
    return `${part}: new configuration, tested by its image, taken over by reload.`;
  return `${part}: new files.`;
}

/** What is pulled or built first. A build may come out as it was, and one that is only fetched changes nothing. */
function tellImages(images: readonly Resource[], told: Telling): void {
  const fetched = images.filter(({ after, op }) => after?.['name'] !== undefined && op !== 'same');
  if (fetched.length > 0) {
    const names = fetched.map(({ after }) => String(after?.['name']));
    told.changes.unshift(`Images: ${names.join(', ')} ${verb(names, 'is', 'are')} pulled before anything is touched.`);
  }
  const built = images.find(({ after }) => after?.['build'] !== undefined);
  if (built !== undefined) {
    const why = buildReasons(built);
    told.changes.unshift(
      `Images: the API is built anew${why === '' ? '' : ` (${why})`} before anything is touched. ` +
        'If the image comes out the same, its containers stay.',
    );
  }
}

function buildReasons({ before, after }: Resource): string {
  const build = (inputs: Inputs | undefined) => (inputs?.['build'] ?? {}) as Inputs;
  const [old, next] = [build(before), build(after)];
  const argumentsOf = (of: Inputs) => (of['args'] ?? {}) as Inputs;
  const args = Object.keys({ ...argumentsOf(old), ...argumentsOf(next) })
    .filter((name) => argumentsOf(old)[name] !== argumentsOf(next)[name])
    .map((name) => BUILD_ARGUMENTS[name] ?? name);
  const source = old['contextDigest'] !== next['contextDigest'] ? ['its source'] : [];
  const network = old['network'] !== next['network'] ? ['network of the build'] : [];
  return [...new Set([...source, ...network, ...args])].join(', ');
}

const BUILD_ARGUMENTS: Readonly<Record<string, string>> = {
  NODE_IMAGE: 'image of Node',
  COMMIT: 'commit',
  VERSION: 'version',
  ENVIRONMENT: 'name of the environment',
  HEALTHCHECK_INTERVAL: 'health check',
  HEALTHCHECK_TIMEOUT: 'health check',
  HEALTHCHECK_RETRIES: 'health check',
};

/** Why the containers change, in the names of the settings; what follows for data is told on the way. */
function describeDifferences(containers: readonly Resource[], images: readonly Resource[], told: Telling): string {
  const [container] = containers;
  if (container === undefined) return '';
  const { before = {}, after = {}, reasons } = container;
  const differs = (key: string) => reasons.includes(key) || !same(before[key], after[key]);
  const what: string[] = [];
  if (differs('image')) what.push(imageWords(container, images));
  if (differs('memory')) what.push(`memory ${String(before['memory'])} -> ${String(after['memory'])} MiB`);
  for (const key of ['memoryReservation', 'cpuShares'])
    if (differs(key)) what.push(...reservationWords(key, before, after));
  if (differs('cpuQuota')) what.push(`cpus ${cores(before)} -> ${cores(after)}`);
  if (differs('healthcheck')) what.push(`health check ${health(before)} -> ${health(after)}`);
  if (differs('ports')) what.push(`ports ${portsOf(before).join(', ')} -> ${portsOf(after).join(', ')}`);
  const own: Part = { ...container, told };
  if (differs('envs')) what.push(...environmentWords(own));
  if (differs('command')) what.push(...commandWords(own));
  if (differs('mounts')) what.push(...mountWords(own));
  if (differs('labels')) what.push('its files');
  const derived = [
    ...['image', 'memory', 'memoryReservation', 'cpuShares', 'cpuQuota', 'healthcheck', 'ports', 'envs', 'command'],
    ...['mounts', 'labels', 'name'],
    // They follow from the others, or their change does nothing by itself.
    ...['memorySwap', 'shmSize', 'cpuPeriod', 'stopTimeout', 'destroyGraceSeconds', '__defaults'],
  ];
  const rest = [...new Set([...Object.keys(before), ...Object.keys(after), ...reasons])];
  what.push(...rest.filter((key) => !derived.includes(key) && differs(key)));
  if (what.length === 0) what.push(reasons.join(', ') || 'what it depends on changes');
  return what.join('; ');
}

/** The provider writes 0 where there is none. */
function reservationWords(key: string, before: Inputs, after: Inputs): string[] {
  const unit = key === 'cpuShares' ? '' : ' MiB';
  const [from, to] = [before, after]
    .map((inputs) => Number(inputs[key] ?? 0))
    .map((n) => (n === 0 ? 'none' : `${n}${unit}`));
  return from === to ? [] : [`${key} ${from} -> ${to}`];
}

type Part = Resource & { readonly told: Telling };

function imageWords({ part, before, after }: Resource, images: readonly Resource[]): string {
  const role = `-images-${IMAGES[part] ?? part.toLowerCase()}`;
  const own = images.filter(({ name }) => name.endsWith(role));
  const named = (inputs: Inputs | undefined) => {
    const name = inputs?.['name'] ?? inputs?.['imageName'];
    return typeof name === 'string' ? name : undefined;
  };
  const from = own.map((image) => named(image.before)).find(Boolean) ?? shortId(before?.['image']);
  const to = own.map((image) => named(image.after)).find(Boolean) ?? shortId(after?.['image']);
  const release = part === 'API' ? 'release changes to image' : 'image';
  if (own.some((image) => image.before && image.after && image.after['build'])) return `${release} ${to}, built anew`;
  return part === 'API' ? `${release} ${to} (from ${from})` : `${release} ${from} -> ${to}`;
}

const IMAGES: Readonly<Record<string, string>> = {
  Database: 'postgres',
  Gateway: 'nginx',
  Alerting: 'alertmanager',
  ...Object.fromEntries(Object.entries(EXPORTERS).map(([part, { image }]) => [part, image])),
};

function shortId(image: unknown): string {
  if (typeof image !== 'string' || image === SECRET || image === UNKNOWN) return 'another one';
  return image.replace(/^(sha256:[0-9a-f]{12})[0-9a-f]+$/, '$1');
}

interface Variable {
  readonly setting: string;
  readonly show?: (value: string) => string;
  /** What follows from the change. */
  readonly means?: (from: string, to: string) => { readonly warning?: string; readonly note?: string };
}

const inSeconds = (milliseconds: string) => `${Number(milliseconds) / 1000} s`;
const orNone = (value: string) => value || 'none';
const drain = {
  show: inSeconds,
  means: (from: string) => ({ note: `the old containers still go by ${inSeconds(from)}` }),
};

/** Variables of the API's containers in the names of the settings. */
const VARIABLES: Readonly<Record<string, Variable>> = {
  COMMIT: { setting: 'commit', show: (value) => value || "its image's own" },
  VERSION: { setting: 'version' },
  HEALTHCHECK_TIMEOUT: { setting: 'time limit of the probe', show: (value) => value || "its image's own" },
  GF_SERVER_ROOT_URL: { setting: 'address' },
  DATABASE_POOL_SIZE: { setting: 'poolSize' },
  LOG_LEVEL: { setting: 'logLevel' },
  SLOW_QUERY_MS: { setting: 'slowQuery', show: (value) => `${value} ms` },
  CORS_ORIGINS: { setting: 'corsOrigins', show: orNone },
  ALLOWED_HOSTS: { setting: 'names that it answers to', show: orNone },
  RATE_LIMIT: { setting: 'rateLimit', show: orNone },
  CAPACITY_RPS: { setting: 'capacity', show: orNone },
  SLO: { setting: 'slo', show: (value) => value || 'the usual' },
  DRAIN_MS: { setting: 'drain', ...drain },
  SHUTDOWN_TIMEOUT_MS: { setting: 'shutdown', ...drain },
  MAX_AMOUNT: { setting: 'maxAmount', means: () => ({ note: 'for new loans; stored ones stay' }) },
  API_KEYS: {
    setting: 'keys',
    means: (_, to) => ({
      warning:
        to === 'required'
          ? 'API: requests without an API key are refused (401) from the switch on.'
          : 'API: whoever reaches the gateway may read and write loans without an API key.',
    }),
  },
  RETENTION_YEARS: { setting: 'retentionYears', means: retention },
  DATABASE_NAME: {
    setting: 'database.name',
    means: (from, to) => ({
      warning:
        `Database: the service goes over from the database ${from} to ${to}, which starts EMPTY unless it is there ` +
        `already. The loans in ${from} stay where they are, with what is written until the switch.`,
    }),
  },
  DATABASE_USER: {
    setting: 'database.user',
    means: (from, to) => ({
      warning:
        `Database: the service logs in as ${to} instead of ${from}, which keeps its access until you drop it. A database ` +
        `that still belongs to ${from} is refused before the API is touched.`,
    }),
  },
};

function retention(from: string, to: string): { warning?: string; note?: string } {
  const years = (value: string) => (value === '0' ? Infinity : Number(value));
  if (years(to) > years(from)) return { note: 'whoever is a pseudonym already stays one' };
  return {
    warning:
      `API: retentionYears ${from} -> ${to}: borrowers of loans closed more than ${to} years ago become pseudonyms in ` +
      'the daily run. This cannot be undone.',
  };
}

function environmentWords({ before, after, told, reasons }: Part): string[] {
  const [old, next] = [variables(before), variables(after)];
  const names = Object.keys({ ...old, ...next }).filter((name) => old[name] !== next[name]);
  if (names.length === 0) return reasons.includes('envs') ? ['its environment'] : [];
  const healthcheck = !same(before?.['healthcheck'], after?.['healthcheck']);
  return names.flatMap((name) => {
    const [from, to] = [old[name] ?? '', next[name] ?? ''];
    // They follow from others.
    if (['PROCESSES', 'RELEASE'].includes(name) || (name === 'HEALTHCHECK_TIMEOUT' && healthcheck)) return [];
    const { setting, show, means } = VARIABLES[name] ?? { setting: name };
    const { warning, note } = means?.(from, to) ?? {};
    if (warning !== undefined) told.warnings.push(warning);
    const shown = [from, to].map((value) => show?.(value) ?? value);
    return [`${setting} ${shown.join(' -> ')}${note === undefined ? '' : `, ${note}`}`];
  });
}

function variables(inputs: Inputs | undefined): Record<string, string> {
  const list = Array.isArray(inputs?.['envs']) ? (inputs['envs'] as string[]) : [];
  return Object.fromEntries(
    // One whose value is not known yet is not known at all.
    list
      .filter((entry) => entry !== UNKNOWN)
      .map((entry): [string, string] => {
        const [, name = entry, value = ''] = /^([^=]*)=(.*)$/s.exec(entry) ?? [];
        return [name, value];
      }),
  );
}

/** Servers are told their settings by `-c name=value` or `--name=value`. */
function commandWords({ part, before, after, told, reasons }: Part): string[] {
  const [old, next] = [flags(before), flags(after)];
  const names = Object.keys({ ...old, ...next }).filter((name) => old[name] !== next[name]);
  if (names.length === 0) return reasons.includes('command') ? ['its command'] : [];
  const memory = !same(before?.['memory'], after?.['memory']);
  return names.flatMap((name) => {
    const [from, to] = [old[name] ?? 'none', next[name] ?? 'none'];
    // Follow from the memory.
    if (memory && ['shared_buffers', 'effective_cache_size'].includes(name)) return [];
    if (name === 'storage.tsdb.retention.time' && Number.parseInt(to) < Number.parseInt(from))
      told.warnings.push(`${part}: metrics older than ${Number.parseInt(to)} days go. This cannot be undone.`);
    if (name === 'storage.tsdb.retention.size' && Number.parseInt(to) < Number.parseInt(from))
      told.warnings.push(
        `${part}: the oldest metrics go until ${Number.parseInt(to)} MiB are left. This cannot be undone.`,
      );
    return [`${FLAGS[name] ?? name} ${from} -> ${to}`];
  });
}

const FLAGS: Readonly<Record<string, string>> = {
  max_connections: 'maxConnections',
  'storage.tsdb.retention.time': 'retentionDays',
  'storage.tsdb.retention.size': 'retentionSize',
  'web.external-url': 'address',
};

function flags(inputs: Inputs | undefined): Record<string, string> {
  const list = Array.isArray(inputs?.['command']) ? (inputs['command'] as string[]) : [];
  return Object.fromEntries(
    list.flatMap((entry) => {
      const [, name, value] = /^(?:--)?([\w.-]+)=(.*)$/s.exec(entry) ?? [];
      return name === undefined ? [] : [[name, value ?? '']];
    }),
  );
}

const DATA = '/var/lib/postgresql';

function mountWords({ part, before, after, told }: Part): string[] {
  const [old, next] = [mounts(before), mounts(after)];
  const targets = Object.keys({ ...old, ...next }).filter((target) => old[target] !== next[target]);
  return targets.map((target) => {
    const [from, to] = [old[target] ?? 'nothing', next[target] ?? 'nothing'];
    if (part === 'Database' && target === DATA) {
      told.warnings.push(
        `Database: its files change from ${from} to ${to}: the service starts with an EMPTY database, unless ${to} ` +
          `holds one already. The data in ${from} stays where it is.`,
      );
      return `volume ${from} -> ${to}`;
    }
    return `${target} ${from} -> ${to}`;
  });
}

function mounts(inputs: Inputs | undefined): Record<string, string> {
  const list = Array.isArray(inputs?.['mounts']) ? (inputs['mounts'] as { source: string; target: string }[]) : [];
  return Object.fromEntries(list.map(({ source, target }) => [target, source === UNKNOWN ? 'a new volume' : source]));
}

const mountOf = (inputs: Inputs | undefined, target: string) => mounts(inputs)[target] ?? 'its volume';
const dataOf = (inputs: Inputs | undefined) => mountOf(inputs, DATA);

function portsOf(inputs: Inputs | undefined): string[] {
  const list = Array.isArray(inputs?.['ports']) ? (inputs['ports'] as { external: number; ip: string }[]) : [];
  return list.map(({ external, ip }) => `${ip}:${external}`);
}

function cores(inputs: Inputs): number {
  return Number(inputs['cpuQuota']) / Number(inputs['cpuPeriod']);
}

function health(inputs: Inputs): string {
  const { interval, timeout, retries } = (inputs['healthcheck'] ?? {}) as Record<string, string | number>;
  return `${interval}/${timeout}/${retries}`;
}

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;
const verb = (list: readonly unknown[], one: string, many: string) => (list.length === 1 ? one : many);
