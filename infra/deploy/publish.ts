import { pack } from 'tar-stream';
import { renderUpstream, serversOf } from '../ops/nginx';
import { docker, indent, sleep, StepError, tryDocker } from './engine';

/**
 * Puts a set of files into a Docker volume in one atomic step, without any path of the host, so that it works
 * with a remote engine too. The volume holds `<version>/…` and a link `current`, as Kubernetes does for its
 * configuration maps: a reader sees the old set or the new one, never a mixture.
 */
export interface PublishInput {
  readonly volume: string;
  /** Name of the directory; the hash of the files. */
  readonly version: string;
  readonly files: Readonly<Record<string, string>>;
  /** Numeric owner of the files, the only one who may read them. */
  readonly owner: { readonly uid: number; readonly gid: number };
  /** An image with `sh` and `tar`. */
  readonly helperImage: string;
  /** Run on the candidate before it becomes current. */
  readonly check?: Check;
  /** Told by a signal to read its files again, if it runs. */
  readonly reload?: Reload;
  /**
   * Name of a file with an nginx upstream. When the reader runs, it first gets the servers of the old and the new
   * file together for a moment: nginx knows a new server's address only a little after the reload that names it.
   */
  readonly handover?: string;
}

export interface Reload {
  readonly container: string;
  readonly signal: string;
  /**
   * How the reader shows that it took the files over: `file` with `text`, in which `{version}` is replaced, is added
   * to them, and `command` in the container prints the version.
   */
  readonly confirm?: { readonly file: string; readonly text: string; readonly command: readonly string[] };
}

export interface Check {
  readonly image: string;
  readonly user: string;
  /** Where the consumer mounts the volume: `<mountedAt>/current/…` holds the candidate during the check. */
  readonly mountedAt: string;
  readonly command: readonly string[];
}

const HELPER = [
  'run',
  '--rm',
  '--interactive',
  '--network',
  'none',
  '--read-only',
  '--user',
  '0:0',
  '--cap-drop',
  'ALL',
]
  .concat(['--cap-add', 'CHOWN', '--cap-add', 'FOWNER', '--cap-add', 'DAC_OVERRIDE'])
  .concat(['--security-opt', 'no-new-privileges:true', '--entrypoint', 'sh']);

const UNPACK = `set -e
rm -rf "/files/$1.new"
mkdir "/files/$1.new"
tar -x -f - -C "/files/$1.new"
# A version that is there may be current: it gets each file in one step, and loses what somebody else put there.
if [ -d "/files/$1" ]; then
  cd "/files/$1.new"
  find . -type d -exec mkdir -p "/files/$1/{}" \\;
  (cd "/files/$1" && find . ! -type d) | while read -r file; do [ -e "$file" ] || rm -f "/files/$1/$file"; done
  find . -type f -exec mv -f {} "/files/$1/{}" \\;
  rm -rf "/files/$1.new"
else
  mv "/files/$1.new" "/files/$1"
fi`;

const SWITCH = `set -e
ln -sfn "$1" /files/current.new
mv -T /files/current.new /files/current
for old in /files/*; do
  case "$old" in "/files/$1" | /files/current) ;; *) rm -rf "$old" ;; esac
done`;

/** How long nginx may take to look up the addresses of servers that it did not know. */
const HANDOVER_MS = 1_500;
const CONFIRM_MS = 15_000;

export async function publish(input: PublishInput): Promise<void> {
  const running = input.reload !== undefined && (await isRunning(input.reload.container));
  if (running && input.handover !== undefined) await handOver(input, input.handover);
  await place(input, input.version, input.files, running);
}

async function handOver(input: PublishInput, file: string): Promise<void> {
  const read = ['-c', 'cat "/files/current/$1"', 'sh', file];
  const { code, stdout } = await tryDocker([
    ...HELPER,
    '--volume',
    `${input.volume}:/files:ro`,
    input.helperImage,
    ...read,
  ]);
  const before = code === 0 ? serversOf(stdout) : [];
  const after = serversOf(input.files[file] ?? '');
  if (before.length === 0 || after.every((server) => before.includes(server))) return;
  const both = { ...input.files, [file]: renderUpstream([...new Set([...before, ...after])]) };
  await place(input, `${input.version}-handover`, both, true);
  await sleep(HANDOVER_MS);
}

async function place(
  { volume, helperImage, owner, check: test, reload }: PublishInput,
  version: string,
  files: PublishInput['files'],
  running: boolean,
): Promise<void> {
  const helper = (script: string, stdin?: Buffer) =>
    docker(
      `Writing files into the volume ${volume}`,
      [...HELPER, '--volume', `${volume}:/files`, helperImage, '-c', script, 'sh', version],
      stdin,
    );
  const confirm = reload?.confirm;
  const marked = confirm ? { ...files, [confirm.file]: confirm.text.replace('{version}', version) } : files;
  const archive = await toTar(marked, owner);
  if (test === undefined) {
    await helper(`${UNPACK}\n${SWITCH}`, archive);
  } else {
    await helper(UNPACK, archive);
    await check(test, volume, version);
    await helper(SWITCH);
  }
  if (reload !== undefined && running) await takeOver(reload, version);
}

async function check({ image, user, mountedAt, command }: Check, volume: string, version: string): Promise<void> {
  const script = `cp -RL "/candidate/$0" "${mountedAt}/current" && exec "$@"`;
  await docker(
    `The check of the new configuration (${command.join(' ')})`,
    ['run', '--rm', '--network', 'none', '--read-only', '--user', user, '--cap-drop', 'ALL']
      .concat(['--security-opt', 'no-new-privileges:true', '--tmpfs', '/tmp:mode=1777'])
      .concat(['--tmpfs', `${mountedAt}:mode=1777`, '--volume', `${volume}:/candidate:ro`])
      .concat(['--entrypoint', 'sh', image, '-c', script, version, ...command]),
  );
}

async function isRunning(container: string): Promise<boolean> {
  const filter = ['--filter', `name=^/?${container}$`, '--filter', 'status=running'];
  return (await docker(`Looking for ${container}`, ['ps', '--quiet', ...filter])).trim() !== '';
}

/** A signal is heard by nobody when the reader cannot use the files: only its own word counts. */
async function takeOver({ container, signal, confirm }: Reload, version: string): Promise<void> {
  await docker(`Reloading ${container}`, ['kill', '--signal', signal, container]);
  if (confirm === undefined) return;
  const deadline = Date.now() + CONFIRM_MS;
  for (;;) {
    const { stdout, stderr } = await tryDocker(['exec', container, ...confirm.command]);
    if (stdout.trim() === version) return;
    if (Date.now() > deadline) {
      throw new StepError(
        `${container} did not take the new files over within ${CONFIRM_MS / 1000} s, it goes on with the old ones. ` +
          `It says:\n${indent(stdout + stderr || '(nothing)')}`,
      );
    }
    await sleep(200);
  }
}

/** Directories belong to root and can be listed; files belong to the reader alone. Same files, same bytes. */
async function toTar(files: PublishInput['files'], { uid, gid }: PublishInput['owner']): Promise<Buffer> {
  const archive = pack();
  const directories = new Set<string>();
  for (const [path, content] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (path.startsWith('/') || path.split('/').includes('..')) throw new StepError(`${path}: not a relative path`);
    for (const directory of parents(path)) {
      if (directories.has(directory)) continue;
      directories.add(directory);
      archive.entry({ name: directory, type: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: new Date(0) });
    }
    archive.entry({ name: path, mode: 0o400, uid, gid, mtime: new Date(0) }, content);
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function parents(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}
