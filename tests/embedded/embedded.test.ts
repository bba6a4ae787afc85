import { execFile, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { untilHealthy } from '../../infra/embedded/api';
import { down, isOutside, type Place, placeAt, runSql, type State, status, up } from '../../infra/embedded/environment';
import { DATABASE_FACTS, type DatabaseFacts, vacuumStatements } from '../../infra/ops/upkeep';
import { freePort } from '../../infra/embedded/ports';
import { findPostgres } from '../../infra/embedded/postgres';
import { commandLineOf } from '../../infra/embedded/processes';

jest.setTimeout(90_000);

let parent: string;
let place: Place;
let ports: { https: number; api: number };

beforeAll(async () => {
  parent = mkdtempSync(join(tmpdir(), 'embedded-'));
  chmodSync(parent, 0o755);
  place = placeAt(join(parent, 'local'));
  ports = { https: await freePort(), api: await freePort() };
});

afterAll(async () => {
  await down(place, { purge: true });
  rmSync(parent, { recursive: true, force: true });
});

/** The command, as the Makefile calls it. */
function command(...args: string[]): Promise<{ code: number; output: string }> {
  const all = ['--import', 'tsx', 'infra/embedded/main.ts', '--directory', place.directory, ...args];
  return new Promise((done) => {
    execFile(process.execPath, all, { cwd: resolve(__dirname, '../..') }, (error, stdout, stderr) => {
      done({ code: error === null ? 0 : Number(error.code), output: stdout + stderr });
    });
  });
}

const upArguments = () => ['up', '--https-port', String(ports.https), '--api-port', String(ports.api)];
const readState = (): State => JSON.parse(readFileSync(join(place.directory, 'state.json'), 'utf8')) as State;
const editState = (change: Partial<State>) =>
  writeFileSync(join(place.directory, 'state.json'), JSON.stringify({ ...readState(), ...change }));

/** Over TLS, trusting nothing but the authority of this environment. */
function call(path: string, body?: object): Promise<{ status: number | undefined; json: () => unknown }> {
  const ca = readFileSync(join(place.certificates, 'ca.pem'));
  const method = body === undefined ? 'GET' : 'POST';
  const headers = { 'content-type': 'application/json' };
  return new Promise((done, fail) => {
    const options = { host: 'localhost', port: ports.https, path, ca, method, headers, agent: false };
    const sent = request(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => done({ status: response.statusCode, json: () => JSON.parse(text) as unknown }));
    });
    sent.once('error', fail);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const loanCount = async () => ((await call('/api/loans')).json() as unknown[]).length;

it('goes the whole way as a command: up, up again, a loan, down, up with the same loans', async () => {
  const first = await command(...upArguments(), '--reason', 'no Docker engine: install one');
  expect(first).toMatchObject({ code: 0 });
  expect(first.output).toContain(`https://localhost:${ports.https}/health`);
  expect(first.output).toContain('  - no Docker engine: install one');

  expect((await call('/health')).json()).toMatchObject({ status: 'ok' });
  expect((await call('/health-db')).status).toBe(200);
  expect(await loanCount()).toBe(5);
  const loan = { borrower_id: 'usr_new', amount: '100.00', currency: 'KES' };
  expect((await call('/api/loans', loan)).status).toBe(201);
  expect((await fetch(`http://localhost:${ports.api}/health`)).status).toBe(200);

  const before = readState();
  const second = await command('up');
  expect(second).toMatchObject({ code: 0 });
  expect(second.output).toContain('already up and healthy');
  expect(readState()).toEqual(before);

  expect(await command('status')).toMatchObject({ code: 0, output: expect.stringContaining('API        runs since') });
  expect(await command('logs')).toMatchObject({ code: 0, output: expect.stringContaining('API      | {"timestamp"') });

  expect(await command('down')).toMatchObject({
    code: 0,
    output: expect.stringContaining('Stopped the API and Postgres'),
  });
  expect(await command('status')).toMatchObject({ code: 1, output: expect.stringContaining('API        stopped') });
  expect(await command('down')).toMatchObject({ code: 0, output: expect.stringContaining('Nothing') });

  expect(await command(...upArguments())).toMatchObject({ code: 0 });
  expect(await loanCount()).toBe(6);
});

it('runs the commands of the API that end, on its own database, and answers as its users ask', async () => {
  expect(await command('retention', '--', '--dry-run')).toMatchObject({
    code: 0,
    output: expect.stringMatching(/"message":"retention done","dry_run":true/),
  });
  expect(await command('retention')).toMatchObject({ code: 0, output: expect.stringContaining('"dry_run":false') });
  expect(await command('seed')).toMatchObject({ code: 0, output: expect.stringContaining('"message":"seed done"') });
  expect(await command('recount', '--', '--dry-run')).toMatchObject({ code: 0 });
  expect(await command('migrate')).toMatchObject({ code: 0 });
  const rows = await runSql(place, [
    "DELETE FROM idempotency_keys WHERE key = 'none'",
    'SELECT 1, count(*) FROM loans',
  ]);
  expect(rows).toBe(`1 ${await loanCount()}`);
  const facts = JSON.parse(await runSql(place, [DATABASE_FACTS])) as DatabaseFacts;
  expect(facts.tables.map(({ name }) => name)).toContain('loans');
  await runSql(place, vacuumStatements('loans'));

  const key = await command('api-key', '--', 'create', '--name', 'desk', '--scopes', 'loans:read');
  expect(key).toMatchObject({ code: 0, output: expect.stringMatching(/^bl_development_/m) });
  expect(await command('retention', '--', '--wings')).toMatchObject({
    code: 2,
    output: expect.stringContaining('usage'),
  });
  expect(await command('smoke')).toMatchObject({
    code: 0,
    output: expect.stringContaining(`answers at https://localhost:${ports.https}`),
  });
});

it('keeps its passwords to their owner, and out of every command line', () => {
  const { api } = readState();
  const postgres = findPostgres(readState().dataDirectory);
  for (const name of ['database.password', 'owner.password', 'postgres.password']) {
    const file = join(place.directory, name);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const password = readFileSync(file, 'utf8').trim();
    for (const pid of [api!.pid, postgres!.pid]) expect(commandLineOf(pid)).not.toContain(password);
  }
});

it('repairs an API that was killed, beside the Postgres that still runs', async () => {
  const { api } = readState();
  process.kill(api!.pid, 'SIGKILL');
  await sleep(200);
  expect(await status(place)).toMatchObject({ apiSince: undefined, healthy: false, postgresSince: expect.any(Date) });
  const postgres = findPostgres(readState().dataDirectory)?.pid;
  expect(await up(place, {})).toMatchObject({ alreadyUp: false });
  expect(findPostgres(readState().dataDirectory)?.pid).toBe(postgres);
  expect(await loanCount()).toBe(6);
});

it('repairs a Postgres that crashed', async () => {
  await findPostgres(readState().dataDirectory)!.kill();
  expect(await status(place)).toMatchObject({ healthy: false, postgresSince: undefined });
  await up(place, {});
  expect(await loanCount()).toBe(6);
});

it('moves to other ports when asked', async () => {
  const old = ports;
  ports = { https: await freePort(), api: await freePort() };
  expect(await up(place, ports)).toMatchObject({ alreadyUp: false, state: { ports } });
  expect((await call('/health')).status).toBe(200);
  await expect(fetch(`http://localhost:${old.api}/health`)).rejects.toThrow();
});

it('knows a number that belongs to somebody else after a crash of the machine, and leaves that process alone', async () => {
  await down(place, { purge: false });
  const stranger = spawn('sleep', ['60']);
  try {
    const api = { pid: stranger.pid!, identity: 'another boot', startedAt: new Date().toISOString() };
    editState({ api });
    const { dataDirectory } = readState();
    const lines = [stranger.pid, dataDirectory, 1, readState().ports.postgres, '', '127.0.0.1', 1, 'ready'];
    writeFileSync(join(dataDirectory, 'postmaster.pid'), `${lines.join('\n')}\n`);

    expect(await status(place)).toMatchObject({ apiSince: undefined, postgresSince: undefined });
    expect(await down(place, { purge: false })).toEqual([]);
    editState({ api });
    await up(place, {});
    expect(await loanCount()).toBe(6);
    expect(stranger.exitCode).toBeNull();
    expect(stranger.signalCode).toBeNull();
  } finally {
    stranger.kill();
  }
});

it('touches nothing when a port is taken, and names who has it', async () => {
  const port = await freePort();
  const taken = createServer();
  await new Promise<void>((done) => taken.listen(port, '127.0.0.1', done));
  try {
    const other = placeAt(join(parent, 'other'));
    const refused = up(other, { https: port, api: await freePort() });
    await expect(refused).rejects.toThrow(new RegExp(`port ${port} is in use by .*(${process.pid}|lsof)`));
    expect(existsSync(other.directory)).toBe(false);
  } finally {
    taken.close();
  }
  await expect(up(place, { https: 8001, api: 8001 })).rejects.toThrow('cannot share port 8001');
  expect((await call('/health')).status).toBe(200);
});

it('stops what it started when the API cannot start, and says what it said', async () => {
  const broken = placeAt(join(parent, 'broken'));
  process.env['NODE_OPTIONS'] = '--require /this/does/not/exist.js';
  try {
    const refused = up(broken, { https: await freePort(), api: await freePort() });
    await expect(refused).rejects.toThrow(/command "migrate" failed:[^]*MODULE_NOT_FOUND/);
  } finally {
    delete process.env['NODE_OPTIONS'];
  }
  expect(findPostgres(join(broken.directory, 'postgres'))).toBeUndefined();
  await down(broken, { purge: true });
});

it('shows the last words of an API that ended', async () => {
  const file = join(parent, 'api.log');
  writeFileSync(file, 'from an earlier run\nthe reason\n');
  const api = { pid: process.pid, identity: 'ended' };
  const ended = untilHealthy(api, ports.https, undefined, { file, from: 20 });
  await expect(ended).rejects.toThrow(`The API ended. The last lines of ${file}:\n  the reason`);
});

const asRoot = (name: string, test: () => Promise<void>) => {
  if (process.getuid?.() === 0) it(name, test);
  else it.skip(`${name} (skipped: this user is not root)`, test);
};
asRoot('puts the database elsewhere where its user cannot enter the project', async () => {
  const closed = join(parent, 'closed');
  mkdirSync(closed, { mode: 0o700 });
  const hidden = placeAt(join(closed, 'local'));
  const { state } = await up(hidden, { https: await freePort(), api: await freePort() });
  expect(isOutside(hidden, state.dataDirectory)).toBe(true);
  expect(await status(hidden)).toMatchObject({ healthy: true });
  expect(await down(hidden, { purge: true })).toEqual(['the API', 'Postgres']);
  expect(existsSync(state.dataDirectory)).toBe(false);
});

it('purges its data and keeps the certificates', async () => {
  const { dataDirectory } = readState();
  expect(await command('down', '--purge')).toMatchObject({
    code: 0,
    output: expect.stringContaining('data is removed'),
  });
  expect(existsSync(dataDirectory)).toBe(false);
  expect(existsSync(join(place.directory, 'postgres.password'))).toBe(false);
  expect(existsSync(join(place.certificates, 'ca.pem'))).toBe(true);
});

it.each([
  [['fly'], 'Development without containers'],
  [['up', '--https-port', 'x'], '"x" is not a port'],
  [['up', '--wings'], "Unknown option '--wings'"],
  [['logs'], 'There are no logs yet'],
  [['smoke'], 'Development is not up: make up'],
  [['retention'], 'Development is not up: make up'],
])('refuses %s with one clear message', async (args, message) => {
  const { code, output } = await command(...args);
  expect(code).toBe(1);
  expect(output).toContain(message);
  expect(output).not.toContain('    at ');
});
