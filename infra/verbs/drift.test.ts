import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { drift } from './drift';

const directory = mkdtempSync(join(tmpdir(), 'drift-verb-'));
const locks = join(directory, '.pulumi/locks/organization/branchloans/staging');
let asked: string[][];
let meanwhile: () => void;

jest.mock('../operator', () => ({
  get ROOT() {
    return directory;
  },
  missingTools: () => Promise.resolve([]),
  stackExists: () => true,
  requirePassphrase: () => undefined,
  ourContainers: () => Promise.resolve(''),
  pulumiOutput: (_stack: string, args: string[]) => {
    asked.push(args);
    meanwhile();
    return Promise.resolve({ code: 0, stdout: args.includes('history') ? '[]' : '{}', stderr: '' });
  },
}));

const lock = (pid: number) => {
  mkdirSync(locks, { recursive: true });
  const owner = { pid, username: 'ann', hostname: hostname(), timestamp: new Date().toISOString() };
  writeFileSync(join(locks, 'a.json'), JSON.stringify(owner));
};
let said: jest.SpyInstance;

beforeEach(() => {
  asked = [];
  meanwhile = () => undefined;
  rmSync(locks, { recursive: true, force: true });
  writeFileSync(join(directory, 'Pulumi.yaml'), 'name: branchloans\nbackend: { url: "file://." }\n');
  said = jest.spyOn(console, 'log').mockReturnValue();
});
afterEach(() => said.mockRestore());
afterAll(() => rmSync(directory, { recursive: true }));

it('compares nothing while a deploy runs', async () => {
  lock(process.ppid);
  await expect(drift('staging', [])).rejects.toThrow(/is being changed by ann@.*was not compared with anything/);
  expect(asked).toEqual([]);
});

it('tells nothing of what it saw when a deploy began meanwhile', async () => {
  meanwhile = () => lock(process.ppid);
  await expect(drift('staging', ['--json'])).rejects.toThrow(/is being changed by ann@/);
  expect(said).not.toHaveBeenCalled();
});

it('does not mind the lock of a process that is gone', async () => {
  lock(2 ** 22 + 1);
  await drift('staging', []);
  expect(said).toHaveBeenCalledWith('staging: no drift.');
});
