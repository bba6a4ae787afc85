import { pack } from 'tar-stream';
import { docker, StepError } from './engine';

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
  readonly reload?: { readonly container: string; readonly signal: string };
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
rm -rf "/files/$1"
mv "/files/$1.new" "/files/$1"`;

const SWITCH = `set -e
ln -sfn "$1" /files/current.new
mv -T /files/current.new /files/current
for old in /files/*; do
  case "$old" in "/files/$1" | /files/current) ;; *) rm -rf "$old" ;; esac
done`;

export async function publish(input: PublishInput): Promise<void> {
  const { volume, version, helperImage } = input;
  const helper = (script: string, stdin?: Buffer) =>
    docker(
      `Writing files into the volume ${volume}`,
      [...HELPER, '--volume', `${volume}:/files`, helperImage, '-c', script, 'sh', version],
      stdin,
    );
  const archive = await toTar(input.files, input.owner);
  if (input.check === undefined) {
    await helper(`${UNPACK}\n${SWITCH}`, archive);
  } else {
    await helper(UNPACK, archive);
    await check(input.check, volume, version);
    await helper(SWITCH);
  }
  if (input.reload !== undefined) await reload(input.reload);
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

async function reload({ container, signal }: { container: string; signal: string }): Promise<void> {
  const running = await docker('Looking for the container to reload', [
    ...['ps', '--quiet', '--no-trunc', '--filter', `name=^/?${container}$`],
  ]);
  if (running.trim() === '') return;
  await docker(`Reloading ${container}`, ['kill', '--signal', signal, container]);
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
