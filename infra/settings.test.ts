import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { placeOf } from './lock';
import { changeSettings, inTurnOf, withSettings } from './settings';

const root = mkdtempSync(join(tmpdir(), 'branchloans-settings-'));
jest.mock('./operator', () => ({
  get ROOT() {
    return root;
  },
  waitSeconds: () => 30,
}));
afterAll(() => rmSync(root, { recursive: true }));

describe('changeSettings', () => {
  const file = join(root, 'Pulumi.staging.yaml');
  const text = `config:
  # why it is so
  branchloans:domain: branchloans.com
  branchloans:api:
    replicas: 2 # two
    healthcheck: { interval: 20s, timeout: 4s, retries: 4 }
`;
  beforeEach(() => writeFileSync(file, text));
  const read = () => readFileSync(file, 'utf8');

  it('changes one value and keeps comments, order and form', () => {
    changeSettings(root, 'staging', [[['api', 'replicas'], 3]]);
    expect(read()).toBe(text.replace('replicas: 2 # two', 'replicas: 3 # two'));
  });

  it('adds, and removes what it added', () => {
    changeSettings(root, 'staging', [[['canary'], { image: 'a/b:1.2.3', percent: 10 }]]);
    expect(read()).toBe(`${text}  branchloans:canary:\n    image: a/b:1.2.3\n    percent: 10\n`);
    changeSettings(root, 'staging', [[['canary'], undefined]]);
    expect(read()).toBe(text);
  });

  it('gives back what undoes it', () => {
    const undo = changeSettings(root, 'staging', [[['image'], 'a:1.0.0']]);
    expect(read()).toContain('branchloans:image: a:1.0.0');
    undo();
    expect(read()).toBe(text);
  });
});

describe('withSettings', () => {
  const file = join(root, 'Pulumi.production.yaml');
  const text = 'config:\n  branchloans:image: a:1.0.0\n';
  const read = () => readFileSync(file, 'utf8');
  const image = (value: string) => [[['image'], value]] as const;
  let said: jest.SpyInstance;

  beforeEach(() => {
    writeFileSync(join(root, 'Pulumi.yaml'), 'name: branchloans\nbackend: { url: "file://." }\n');
    writeFileSync(file, text);
    said = jest.spyOn(console, 'error').mockReturnValue();
  });
  afterEach(() => said.mockRestore());

  /** Of a living process: this one's parent. @returns what removes it */
  function occupy(path: string): () => void {
    mkdirSync(dirname(path), { recursive: true });
    const owner = { pid: process.ppid, username: 'ann', hostname: hostname(), timestamp: new Date().toISOString() };
    writeFileSync(path, JSON.stringify(owner));
    return () => rmSync(path);
  }

  it.each<[string, () => string]>([
    ['of our verbs', () => join(placeOf(root, 'production').queue, '0-1.json')],
    ['by plain pulumi', () => join(placeOf(root, 'production').locks[0]!, 'a.json')],
  ])('touches no setting while another deploy %s is at work, and loses none of its changes', async (_name, path) => {
    const leave = occupy(path());
    setTimeout(() => {
      expect(read()).toBe(text);
      writeFileSync(file, `${text}  branchloans:domain: x\n`);
      leave();
    }, 700);
    const failing = withSettings('production', image('a:2.0.0'), () => {
      expect(read()).toContain('a:2.0.0');
      return Promise.reject(new Error('exit code 255'));
    });
    await expect(failing).rejects.toThrow('exit code 255');
    expect(read()).toBe(`${text}  branchloans:domain: x\n`);
  });

  it('needs no second turn within one', async () => {
    await inTurnOf('production', () => withSettings('production', image('a:2.0.0'), () => Promise.resolve()));
    expect(read()).toContain('a:2.0.0');
  });

  it('keeps the new settings of a failure where they are what runs, and says why', async () => {
    const failing = withSettings(
      'production',
      image('a:2.0.0'),
      () => Promise.reject(new Error('late')),
      () => Promise.resolve('it runs.'),
    );
    await expect(failing).rejects.toThrow('late');
    expect(read()).toContain('a:2.0.0');
    expect(said).toHaveBeenLastCalledWith('Pulumi.production.yaml stays as it was changed: it runs.');
  });

  it.each(['SIGINT', 'SIGTERM'] as const)(
    '%s puts them back, unless pulumi runs and ends by itself',
    async (signal) => {
      const kill = jest.spyOn(process, 'kill').mockReturnValue(true);
      const pulumi = () => undefined;
      await withSettings('production', image('a:2.0.0'), () => {
        process.on(signal, pulumi).emit(signal, signal);
        process.off(signal, pulumi);
        expect(read()).toContain('a:2.0.0');
        expect(kill).not.toHaveBeenCalled();
        process.emit(signal, signal);
        expect(read()).toBe(text);
        expect(kill).toHaveBeenCalledWith(process.pid, signal);
        return Promise.resolve();
      });
      kill.mockRestore();
      expect(process.listenerCount(signal)).toBe(0);
    },
  );
});
