import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';
import { StepError } from '../deploy/engine';
import type { Sample } from '../deploy/prometheus';
import { canary } from './canary';

/** The verb with everything around it played: the clock, Pulumi, the engine's containers and Prometheus. */

const directory = mkdtempSync(join(tmpdir(), 'canary-verb-'));
const file = join(directory, 'Pulumi.staging.yaml');
const settings = () => (parse(readFileSync(file, 'utf8')) as { config: Record<string, unknown> }).config;

let clock: number;
let ups: unknown[];
let failUp: (attempt: number) => boolean;
let running: string[];
let crashed: string | undefined;
/** Requests and errors of a track, after so many seconds. */
let counted: (track: string, seconds: number) => [requests: number, errors: number];
let meanwhile: () => void;
let lines: string[];

jest.mock('../operator', () => ({
  get ROOT() {
    return directory;
  },
  waitSeconds: () => 0,
  list: (all: string[]) => all.join(),
  missingFor: () => Promise.resolve([]),
  requirePassphrase: () => undefined,
  prefixOf: () => 'bl',
  settingsOf: () => settings(),
  ourContainers: () => Promise.resolve(running.join('\n')),
  pulumi: (_stack: string, args: string[]) => {
    ups.push([args[0], settings()['branchloans:canary'], settings()['branchloans:image']]);
    running = settings()['branchloans:canary'] === undefined ? [] : ['bl-api-canary-1'];
    return failUp(ups.length) ? Promise.reject(new Error('exit code 255')) : Promise.resolve();
  },
}));
jest.mock('../deploy/engine', () => ({
  ...jest.requireActual<object>('../deploy/engine'),
  sleep: (ms: number) => {
    clock += ms;
    meanwhile();
    return Promise.resolve();
  },
  reasonOfFailure: (name: string) => Promise.resolve(running.includes(name) ? crashed : 'is gone'),
}));
let silent: boolean;
jest.mock('../deploy/prometheus', () => ({
  queryPrometheus: (container: string): Promise<Sample[]> => {
    if (silent) return Promise.reject(new Error(`${container} does not answer`));
    const of = (track: string) => {
      const [requests, errors] = counted(track, clock / 1000);
      return ['0.01', '+Inf'].flatMap((le) => [
        { labels: { track, instance: track, status_code: '200', le }, value: requests - errors },
        { labels: { track, instance: track, status_code: '500', le }, value: errors },
      ]);
    };
    return Promise.resolve(['stable', 'canary'].flatMap(of));
  },
}));

const STABLE = 'me/loans:1.3.0';
const IMAGE = 'me/loans:1.4.0';

writeFileSync(join(directory, 'Pulumi.yaml'), 'name: branchloans\nbackend: { url: "file://." }\n');

beforeEach(() => {
  clock = 0;
  ups = [];
  failUp = () => false;
  running = [];
  crashed = undefined;
  silent = false;
  counted = dealtOut(10);
  meanwhile = () => undefined;
  lines = [];
  writeFileSync(file, `config:\n  branchloans:image: ${STABLE} # the one that serves\n  branchloans:commit: abcdef0\n`);
  jest.spyOn(Date, 'now').mockImplementation(() => clock);
  for (const stream of ['log', 'error'] as const) {
    jest.spyOn(console, stream).mockImplementation((...given: unknown[]) => void lines.push(given.join(' ')));
  }
});
afterAll(() => rmSync(directory, { recursive: true }));

const dealtOut =
  (percent: number): typeof counted =>
  (track, seconds) => [seconds * (track === 'canary' ? percent : 100 - percent), 0];
const beside = (percent: number) => {
  running = ['bl-api-canary-1'];
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, `${text}  branchloans:canary: { image: ${IMAGE}, percent: ${percent} }\n`);
};
const failed = async (args: string[]): Promise<string> => {
  const error: unknown = await canary('staging', args).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(StepError);
  return (error as Error).message;
};

it('starts one, watches it for its window, and makes a good one the release of the stack', async () => {
  await canary('staging', ['--image', IMAGE, '--window', '5m']);
  expect(ups).toEqual([
    ['up', { image: IMAGE, percent: 10 }, STABLE],
    ['up', undefined, IMAGE],
  ]);
  // The commit was that of the other image.
  expect(settings()).toEqual({ 'branchloans:image': IMAGE });
  expect(clock).toBe(300_000);
  expect(lines.join('\n')).toMatch(/canary 3000 requests, 0\.0 % failed.*\n.*promoted/);
});

it('ends a bad one before its window is over, and says why', async () => {
  counted = (track, seconds) => (track === 'canary' ? [seconds * 10, seconds * 3] : [seconds * 90, 0]);
  expect(await failed(['--image', IMAGE])).toMatch(
    /^The canary me\/loans:1\.4\.0 was aborted.*30\.0 % of its requests/,
  );
  expect(ups.at(-1)).toEqual(['up', undefined, STABLE]);
  expect(settings()).toMatchObject({ 'branchloans:image': STABLE, 'branchloans:commit': 'abcdef0' });
  expect(clock).toBeLessThan(60_000);
});

it('promotes nothing that nobody used', async () => {
  counted = (track, seconds) => [track === 'canary' ? 0 : seconds / 10, 0];
  expect(await failed(['--image', IMAGE])).toMatch(/too few to tell/);
  expect(settings()).not.toHaveProperty('branchloans:canary');
});

it.each<[string, () => void, RegExp]>([
  ['a container that crashes', () => (crashed = 'crashed and was restarted'), /bl-api-canary-1 crashed and was/],
  ['a Prometheus that stays silent', () => (silent = true), /cannot be judged: bl-prometheus does not answer/],
])('%s ends it', async (_name, happens, reason) => {
  meanwhile = () => {
    if (clock > 20_000) happens();
  };
  expect(await failed(['--image', IMAGE])).toMatch(reason);
  expect(ups.at(-1)).toEqual(['up', undefined, STABLE]);
});

it('begins its window anew when another deploy replaced its containers', async () => {
  counted = (track, seconds) => (track === 'canary' && seconds < 100 ? [10, 0] : dealtOut(10)(track, seconds));
  meanwhile = () => {
    if (clock === 100_000) running = ['bl-api-canary-2'];
    silent = clock === 100_000;
  };
  await canary('staging', ['--image', IMAGE, '--window', '5m']);
  expect(ups.at(-1)).toEqual(['up', undefined, IMAGE]);
  // From the first answer of Prometheus on.
  expect(clock).toBe(405_000);
  expect(lines.join('\n')).toMatch(/replaced meanwhile \(bl-api-canary-1 is gone\): the 300 s begin anew/);
});

it('is ended when one of its containers goes and none takes its place', async () => {
  meanwhile = () => {
    if (clock > 20_000) running = [];
  };
  expect(await failed(['--image', IMAGE])).toMatch(/its container bl-api-canary-1 is gone/);
});

it('gets over a Prometheus that is silent for a while', async () => {
  meanwhile = () => (silent = clock > 20_000 && clock < 60_000);
  await canary('staging', ['--image', IMAGE]);
  expect(settings()).toMatchObject({ 'branchloans:image': IMAGE });
});

it('goes on with the one that is there, without touching it first', async () => {
  beside(25);
  counted = dealtOut(25);
  await canary('staging', []);
  expect(ups).toEqual([['up', undefined, IMAGE]]);
});

it('changes the percentage of the one that is there', async () => {
  beside(25);
  counted = dealtOut(40);
  await canary('staging', ['--percent', '40']);
  expect(ups[0]).toEqual(['up', { image: IMAGE, percent: 40 }, STABLE]);
});

it.each<[string, string[], unknown]>([
  ['promotes', ['--promote'], IMAGE],
  ['aborts', ['--abort'], STABLE],
])('%s the one that is there at once, by hand', async (_what, args, image) => {
  beside(10);
  await canary('staging', args);
  expect(ups).toEqual([['up', undefined, image]]);
  expect(clock).toBe(0);
});

it('leaves everything as it was when it does not get through its gate', async () => {
  const before = readFileSync(file, 'utf8');
  failUp = (attempt) => attempt === 1;
  expect(await failed(['--image', IMAGE])).toMatch(/did not start, the settings are what they were: exit code 255/);
  expect(readFileSync(file, 'utf8')).toBe(before);
  // What was started is removed.
  expect(ups.at(-1)).toEqual(['up', undefined, STABLE]);
});

it('keeps the canary when the promotion fails', async () => {
  beside(10);
  const before = readFileSync(file, 'utf8');
  failUp = () => true;
  expect(await failed(['--promote'])).toMatch(/could not be promoted, it stays beside the stable release/);
  expect(readFileSync(file, 'utf8')).toBe(before);
});

it('says that requests may still reach it when it could not be removed', async () => {
  beside(10);
  failUp = () => true;
  expect(await failed(['--abort'])).toMatch(/may still get requests .* make up STACK=staging removes it/);
});

it('decides nothing when somebody else did meanwhile', async () => {
  meanwhile = () => {
    if (clock > 20_000) writeFileSync(file, 'config:\n  branchloans:domain: x\n');
  };
  expect(await failed(['--image', IMAGE])).toMatch(/changed by someone else/);
  expect(ups).toHaveLength(1);
});

it.each<[string, string[], RegExp]>([
  ['nothing to watch', [], /has no canary to watch, nothing was changed/],
  ['nothing to abort', ['--abort'], /has no canary, nothing was changed/],
  ['two decisions', ['--abort', '--promote'], /exclude each other/],
  ['a window without a unit', ['--image', IMAGE, '--window', '90'], /WINDOW=90 is not a time of at least 30s/],
  ['a window of one scrape', ['--image', IMAGE, '--window', '20s'], /WINDOW=20s is not a time of at least 30s/],
  ['too much', ['--image', IMAGE, '--percent', '60'], /PERCENT=60 is not a number from 1 to 50/],
  ['words', ['--image', IMAGE, '--errors', 'few'], /ERRORS=few is not a number from 0 to 100/],
  ['an unknown option', ['--imgae', IMAGE], /--imgae[^]*make canary STACK=staging IMAGE=/],
])('%s: touches nothing', async (_name, args, reason) => {
  expect(await failed(args)).toMatch(reason);
  expect(ups).toEqual([]);
});

it('has no place for another one beside the one that is there', async () => {
  beside(10);
  expect(await failed(['--image', 'me/loans:1.5.0'])).toMatch(/has a canary already, me\/loans:1\.4\.0/);
  expect(ups).toEqual([]);
});

it('the Makefile hands over what is given, and nothing else', () => {
  const makefile = readFileSync(resolve(__dirname, '../../Makefile'), 'utf8');
  for (const option of ['image', 'percent', 'window', 'errors', 'latency']) {
    expect(makefile).toContain(`$(if $(${option.toUpperCase()}),--${option} '$(${option.toUpperCase()})')`);
  }
});
