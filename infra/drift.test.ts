import { createHash } from 'node:crypto';
import { findDrift, type Inspected, publishSteps, readDeployment, type Reality, unfinished } from './drift';

const urn = (types: string, name: string) => `urn:pulumi:development::branchloans::${types}::${name}`;
const CONTAINER = 'docker:index/container:Container';
const database = {
  urn: urn(`branchloans:infra:Database$${CONTAINER}`, 'bl-database'),
  type: CONTAINER,
  id: 'd1',
  inputs: { name: 'bl-database', networksAdvanced: [{ name: 'bl-data', aliases: ['database'] }] },
  outputs: { name: 'bl-database' },
};
const running: Inspected = {
  Id: 'd1',
  Name: '/bl-database',
  State: { Status: 'running', Health: { Status: 'healthy' } },
  NetworkSettings: { Networks: { 'bl-data': { Aliases: ['database', 'd1'] } } },
};
const files = {
  urn: urn('branchloans:infra:Gateway$branchloans:infra:Files$command:local:Command', 'bl-gateway-files-publish'),
  input: {
    volume: 'bl-gateway-files',
    version: 'v1',
    files: { 'a.conf': 'one', 'upstream.conf': 'server old-1:8000 resolve;\n' },
    owner: { uid: 1, gid: 1 },
    helperImage: 'nginx',
    upstream: 'upstream.conf',
    reload: { container: 'bl-gateway', signal: 'HUP', confirm: { file: 'version', text: 'is {version}', command: [] } },
  },
};
const hash = (text: string) => createHash('sha256').update(text).digest('hex');
const hashes = {
  'a.conf': hash('one'),
  'upstream.conf': hash(files.input.files['upstream.conf']),
  version: hash('is v1'),
};

const find = (more: Partial<Reality> = {}) =>
  findDrift({
    deployment: { resources: [database] },
    refresh: [],
    containers: [running],
    published: [{ ...files, hashes }],
    ...more,
  });
const told = (more: Partial<Reality>) => find(more).map(({ what, remedy }) => [what, remedy]);

it('finds nothing where all is as deployed', () => {
  expect(find()).toEqual([]);
});

it.each<[string, Partial<Inspected>, string, string]>([
  ['renamed', { Name: '/other' }, 'is called other now', 'docker rename other bl-database'],
  ['stopped', { State: { Status: 'exited' } }, 'does not run (exited)', 'docker start bl-database'],
  ['paused', { State: { Status: 'paused' } }, 'does not run (paused)', 'docker unpause bl-database'],
  ['crashing', { State: { Status: 'restarting' } }, 'crashes and is started again', 'docker logs bl-database'],
  [
    'unhealthy',
    { State: { Status: 'running', Health: { Status: 'unhealthy' } } },
    'is unhealthy',
    'docker restart bl-database',
  ],
  [
    'cut off',
    { NetworkSettings: { Networks: {} } },
    'is not connected to bl-data',
    'docker network connect --alias database bl-data bl-database',
  ],
  [
    'connected without its alias',
    { NetworkSettings: { Networks: { 'bl-data': { Aliases: null } } } },
    'is not known as database in bl-data',
    'docker network disconnect bl-data bl-database && docker network connect --alias database bl-data bl-database',
  ],
  [
    'connected to more',
    { NetworkSettings: { Networks: { ...running.NetworkSettings.Networks, bridge: {} } } },
    'is connected to bridge too',
    'docker network disconnect bridge bl-database',
  ],
])('a container that is %s', (_, change, what, remedy) => {
  expect(told({ containers: [{ ...running, ...change }] })).toEqual([[expect.stringContaining(what), remedy]]);
});

it('a container that no deploy knows', () => {
  const stray = { ...running, Id: 's1', Name: '/bl-stray' };
  expect(told({ containers: [running, stray] })).toEqual([
    [expect.stringContaining('Stray: the container bl-stray'), 'docker rm --force bl-stray'],
  ]);
});

it('a container that no deploy knows and the gateway sends requests to is never to be removed', () => {
  const stray = { ...running, Id: 's1', Name: '/new-1' };
  const upstream = 'server new-1:8000 resolve;\n';
  const published = [{ ...files, hashes: { ...hashes, 'upstream.conf': hash(upstream) }, upstream }];
  const [first, ...more] = told({ containers: [running, stray], published });
  expect(first).toEqual([
    expect.stringMatching(/^Stray: the container new-1 .* Do not remove it: it serves/),
    'make up',
  ]);
  expect(more).toEqual([[expect.stringContaining('names the servers new-1'), expect.stringContaining('up --target')]]);
});

it('what the provider reads back: memory once, running not again', () => {
  const refresh = [
    {
      op: 'update',
      urn: database.urn,
      diffReasons: ['memory', 'memorySwap', 'mustRun'],
      oldState: { inputs: { memory: 512 } },
      newState: { outputs: { memory: 300 } },
    },
  ];
  expect(told({ refresh })).toEqual([['Database: memory of bl-database is 300, deployed was 512.', 'up --refresh']]);
});

it.each([
  [{ memoryReservation: 1024 }, 512, 'is 512, deployed was 1024', 'sets it back in the running container'],
  [{ memoryReservation: 0 }, 512, 'is 512, deployed was 0', 'replaces the container'],
])('a reservation that was changed by hand: %j', (inputs, memoryReservation, words, up) => {
  const refresh = [
    {
      op: 'update',
      urn: database.urn,
      diffReasons: ['memoryReservation'],
      oldState: { inputs },
      newState: { outputs: { memoryReservation } },
    },
  ];
  expect(find({ refresh })).toEqual([
    {
      what: `Database: memoryReservation of bl-database ${words}.`,
      up: `\`up\` does not see it; \`up --refresh\` ${up}`,
      remedy: 'up --refresh',
    },
  ]);
});

it('what is gone; a database volume with what that means', () => {
  const gone = (types: string, name: string) => ({ op: 'delete', urn: urn(types, name) });
  const refresh = [
    gone('branchloans:infra:Database$docker:index/volume:Volume', 'data'),
    gone('branchloans:infra:Network$docker:index/network:Network', 'bl-data'),
  ];
  const containers = [{ ...running, NetworkSettings: { Networks: {} } }];
  expect(told({ refresh, containers })).toEqual([
    [expect.stringMatching(/the volume data is gone\. The data in it is lost/), 'up --refresh'],
    ['Network: the network bl-data is gone.', 'up --refresh'],
  ]);
});

it('files that are not those that were published, by name and never by content', () => {
  const remedy = `up --target-replace '${files.urn}'`;
  const changed = { ...hashes, 'a.conf': hash('two'), extra: hash('') };
  expect(told({ published: [{ ...files, hashes: changed }] })).toEqual([
    ['Gateway: files in the volume bl-gateway-files differ from what was deployed: a.conf, extra.', remedy],
  ]);
  const upstream = 'server new-1:8000 resolve;\n';
  const switched = { ...hashes, 'upstream.conf': hash(upstream) };
  expect(told({ published: [{ ...files, hashes: switched, upstream }] })).toEqual([
    [expect.stringContaining('upstream.conf names the servers new-1, deployed were old-1.'), remedy],
  ]);
  expect(told({ published: [{ ...files, hashes: undefined }] })).toEqual([
    ['Gateway: the volume bl-gateway-files holds no files.', remedy],
  ]);
});

it('a deploy that is not over', () => {
  expect(unfinished({ resources: [database] })).toEqual([]);
  expect(unfinished({ resources: [{ ...database, delete: true }] })).toEqual([
    'bl-database: the old one is still to be removed',
  ]);
  expect(unfinished({ resources: [{ ...database, initErrors: ['no'] }] })).toHaveLength(1);
  expect(unfinished({ pending_operations: [{ resource: database, type: 'creating' }] })).toEqual([
    'bl-database: "creating" was begun and not ended',
  ]);
});

it('opens secrets of an exported state, at any depth', () => {
  const stdin = { '4dabf18193072939515e22adb298388d': 'x', plaintext: JSON.stringify(JSON.stringify(files.input)) };
  const exported = { deployment: { resources: [{ ...files, type: 'command:local:Command', inputs: { stdin } }] } };
  expect(publishSteps(readDeployment(JSON.stringify(exported)))).toEqual([{ urn: files.urn, input: files.input }]);
  expect(readDeployment('{}')).toEqual({});
});
