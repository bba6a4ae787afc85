import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { changeSettings } from './settings';

describe('changeSettings', () => {
  const root = mkdtempSync(join(tmpdir(), 'branchloans-settings-'));
  const file = join(root, 'Pulumi.staging.yaml');
  const text = `config:
  # why it is so
  branchloans:domain: branchloans.com
  branchloans:api:
    replicas: 2 # two
    healthcheck: { interval: 20s, timeout: 4s, retries: 4 }
`;
  beforeEach(() => writeFileSync(file, text));
  afterAll(() => rmSync(root, { recursive: true }));
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
