import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { insistOnTakingBack, takeBack } from './injection';

/** An engine that answers each kind of command with the next line of a file, and notes what it was asked. */
let directory: string;
const path = process.env['PATH'];
const DOCKER = `#!/bin/sh
echo "$*" >> "$ENGINE/asked"
file="$ENGINE/$1"
[ -s "$file" ] || exit 0
line=$(head -n 1 "$file")
[ "$(wc -l < "$file")" -le 1 ] || { tail -n +2 "$file" > "$file.new"; mv "$file.new" "$file"; }
case $line in !*) echo "\${line#!}" >&2; exit 1 ;; *) echo "$line" ;; esac
`;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'engine-'));
  writeFileSync(join(directory, 'docker'), DOCKER, { mode: 0o700 });
  process.env['PATH'] = `${directory}${delimiter}${path ?? ''}`;
  process.env['ENGINE'] = directory;
});
afterEach(() => {
  process.env['PATH'] = path;
  delete process.env['ENGINE'];
  rmSync(directory, { recursive: true });
});
/** The last answer stays. */
const answers = (verb: string, ...lines: readonly string[]) =>
  writeFileSync(join(directory, verb), `${lines.join('\n')}\n`);
const asked = (verb: string) =>
  readFileSync(join(directory, 'asked'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith(`${verb} `));

const ROLE = [['exec', 'bl-database', 'psql', '--command', 'ALTER ROLE "x" CONNECTION LIMIT -1']];
const FILLER = [['run', '--rm', '--volumes-from', 'bl-database', 'image', '--force', '/x.filler']];
const AWAY = '!Error response from daemon: container 1 is not running';

it('what is gone needs no taking back, and no volume of the marker stays', async () => {
  answers('exec', AWAY);
  await takeBack('bl', [['exec', 'bl-database', 'kill', '-CONT']]);
  expect(asked('rm')).toEqual(['rm --force --volumes bl-chaos']);
});

it.each([
  ['role', ROLE, 'exec', AWAY],
  ['file', FILLER, 'run', '!No such container: bl-database'],
])("what the database's files keep is not gone with its container: %s", async (_, undo, verb, answer) => {
  answers(verb, answer);
  await expect(takeBack('bl', undo)).rejects.toThrow('could not be taken back');
  expect(asked('rm')).toEqual([]);
});

describe('the guard', () => {
  const order = { prefix: 'bl', undo: ROLE, marker: '{"name":"ours"}' };
  const pauses: number[] = [];
  const wait = (milliseconds: number) => Promise.resolve(void pauses.push(milliseconds));
  beforeEach(() => void pauses.splice(0));

  it('tries again, ever more rarely, until the fault is taken back', async () => {
    answers('exec', ...Array<string>(7).fill(AWAY), 'ALTER ROLE');
    answers('inspect', order.marker, '!Cannot connect to the Docker daemon', order.marker);
    await insistOnTakingBack(order, wait);
    expect(pauses).toEqual([2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    expect(asked('rm')).toEqual(['rm --force --volumes bl-chaos']);
  });

  it.each(['!Error: No such container: bl-chaos', '{"name":"of a later one"}'])(
    'ends when the fault is no longer its own: %s',
    async (marker) => {
      answers('exec', AWAY);
      answers('inspect', marker);
      await insistOnTakingBack(order, wait);
      expect(pauses).toEqual([2_000]);
      expect(asked('rm')).toEqual([]);
    },
  );
});
