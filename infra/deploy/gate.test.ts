import { type Result, StepError, UNHEALTHY } from './engine';
import { gate, type GateInput, PROVEN } from './gate';
import type { Entry, Release } from './ledger';

/** The gate with an engine, a clock and a ledger that are played. */

let ms: number;
/** What the probe of a container says to a path: undefined for a good answer. */
let probe: (container: string, path: string, seconds: number) => string | undefined;
/** Why the engine says that a container is not going to run. */
let reason: (container: string) => string | undefined;
let log: string;
let entries: readonly Entry[];
let probes: string[];

const well: Result = { code: 0, stdout: '', stderr: '' };

jest.mock('./engine', () => ({
  ...jest.requireActual<object>('./engine'),
  sleep: (milliseconds: number) => Promise.resolve(void (ms += milliseconds)),
  lastLog: () => Promise.resolve(log),
  // eslint-disable-next-line @typescript-eslint/require-await -- what it throws is a rejection
  reasonOfFailure: async (container: string) => reason(container),
  tryDocker: (args: string[]): Promise<Result> => {
    if (args[0] === 'logs') return Promise.resolve({ ...well, stdout: log });
    const [container = '', path = ''] = [args.at(-3), args.at(-1)];
    probes.push(`${container} ${path}`);
    const fault = probe(container, path, ms / 1_000);
    return Promise.resolve(fault === undefined ? well : { code: 1, stdout: `probe ${path}: ${fault}`, stderr: '' });
  },
}));
jest.mock('./ledger', () => ({ withLedger: () => Promise.resolve(entries) }));

const release: Release = {
  ...{ id: 'r2', image: 'loans@sha256:2', imageId: 'sha256:2', localImage: 'bl-api:r2', commit: '' },
  configuration: 'c',
};
const input: GateInput = {
  containers: [1, 2].map((number) => ({ id: `id-${number}`, name: `api-${number}` })),
  probe: '/app/probe',
  readyPath: '/health/ready',
  smoke: { reads: ['/health-db'], dryRun: { path: '/dry-run', body: '{}' }, keyCommand: ['keys'] },
  readyWithinSeconds: 60,
  attempt: { ledger: { volume: 'releases', helperImage: 'nginx' }, release },
};
const active = { ...release, at: '', outcome: 'active' } as const;
/** The answers of the API, as the probe puts them. */
const SLOW = 'HTTP/1.1 500 Internal Server Error {"type":"urn:problem:db-check-failed"}';
const BUG = 'HTTP/1.1 500 Internal Server Error {"type":"urn:problem:internal"}';

/** What the gate says against it, and when; undefined when it lets all through. */
async function refusal(): Promise<{ readonly message: string; readonly seconds: number } | undefined> {
  try {
    const passed = await gate(input);
    expect(passed.containers).toEqual(['api-1', 'api-2']);
    return undefined;
  } catch (error) {
    return { message: (error as Error).message, seconds: ms / 1_000 };
  }
}

beforeEach(() => {
  ms = 0;
  jest.spyOn(performance, 'now').mockImplementation(() => ms);
  probe = () => undefined;
  reason = () => undefined;
  log = '';
  entries = [];
  probes = [];
});
afterEach(() => jest.restoreAllMocks());

it('lets through what answers, after one question for each thing', async () => {
  expect(await refusal()).toBeUndefined();
  const paths = ['/health/ready', '/health-db', '/dry-run'];
  expect(probes).toEqual(['id-1', 'id-2'].flatMap((id) => paths.map((path) => `${id} ${path}`)));
});

it.each([
  ['a connection to the database that takes more than a second', SLOW],
  ['a service that has too much to do', 'HTTP/1.1 503 Service Unavailable {"type":"urn:problem:overloaded"}'],
  ['no answer in time', 'no answer within 4 s'],
  ['a port that does not listen yet', 'connection refused on port 8000'],
])('does not refuse a release for %s', async (_name, words) => {
  probe = (id, path, seconds) => (id === 'id-2' && path === '/health-db' && seconds < 45 ? words : undefined);
  expect(await refusal()).toBeUndefined();
});

it('does not refuse a release that Docker calls unhealthy, or of which a busy engine says nothing', async () => {
  probe = (_id, _path, seconds) => (seconds < 45 ? 'no answer within 4 s' : undefined);
  reason = () => UNHEALTHY;
  expect(await refusal()).toBeUndefined();
  ms = 0;
  reason = () => {
    throw new StepError('context deadline exceeded');
  };
  expect(await refusal()).toBeUndefined();
});

it('refuses what is not ready when time is up', async () => {
  probe = (id, path) => (id === 'id-2' && path === '/health/ready' ? 'HTTP/1.1 503 the cache is cold' : undefined);
  const refused = await refusal();
  expect(refused?.message).toMatch(/^api-2 was not ready after 60 s\. .*old containers go on[^]*the cache is cold/);
});

it('gives a release that served before more time, for a host in trouble is when it is needed', async () => {
  const wanted = PROVEN.times * input.readyWithinSeconds;
  probe = (_id, _path, seconds) => (seconds < wanted - 5 ? SLOW : undefined);
  expect((await refusal())?.seconds).toBe(60);
  ms = 0;
  entries = [{ ...active, outcome: 'refused' }];
  expect((await refusal())?.seconds).toBe(60);
  ms = 0;
  // Under other settings, too: they are part of its id.
  entries = [{ ...active, id: 'r1' }];
  expect(await refusal()).toBeUndefined();
  ms = 0;
  probe = () => SLOW;
  expect((await refusal())?.message).toMatch(/^api-1 was not ready after 240 s/);
});

it('refuses wrong answers within seconds', async () => {
  probe = (_id, path) => (path === '/health-db' ? BUG : undefined);
  const refused = await refusal();
  expect(refused?.message).toMatch(/^api-1 is ready but \/health-db fails\.[^]*urn:problem:internal/);
  expect(refused?.seconds).toBeLessThan(3);
});

it('refuses at once what ended, or what the database refuses', async () => {
  probe = () => 'connection refused on port 8000';
  reason = (id) => (id === 'id-1' ? 'ended with exit code 1' : undefined);
  expect(await refusal()).toMatchObject({
    seconds: 0,
    message: expect.stringMatching(/^api-1 ended with exit code 1\./),
  });
  reason = () => undefined;
  log = '{"level":"warn","message":"request failed","problem":"db-unavailable","code":"28P01"}';
  expect(await refusal()).toMatchObject({
    seconds: 0,
    message: expect.stringMatching(/^api-1 is refused by the database\./),
  });
});
