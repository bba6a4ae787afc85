import { pack } from 'tar-stream';
import { docker, indent, sleep, StepError, tryDocker } from './engine';
import { type Helper, withVolumes } from './volume';

/**
 * Puts a set of files into a Docker volume in one atomic step. The volume holds `<version>/…` and a link `current`,
 * as Kubernetes does for its configuration maps: a reader sees the old set or the new one, never a mixture.
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
mv -T /files/current.new /files/current`;

const PRUNE = `for old in /files/*; do
  case "$old" in "/files/$1" | /files/current) ;; *) rm -rf "$old" ;; esac
done`;

const LOOK = `readlink /files/current && cat "/files/current/$1"`;

/** Beside the versions: which one was current when a switch began, until it is over. */
const BEGUN = '.before';
const LOOK_BEFORE = `version=$(cat /files/${BEGUN}) && cat "/files/$version/$1" >/dev/null && echo "$version" && cat "/files/$version/$1"`;
const BEGIN = `printf '%s\\n' "$1" > /files/${BEGUN}.new && mv /files/${BEGUN}.new /files/${BEGUN}`;

const CONFIRM_MS = 15_000;

export async function publish(input: PublishInput): Promise<void> {
  await withFiles(input, {}, async (files) => {
    await files.add(input.version, input.files);
    await files.switchTo(input.version);
    await files.end(input.version);
  });
}

/** The files of a volume, while a step works on them. */
export interface FileVolume {
  /** The version that is current and one of its files; undefined when there is none yet. */
  look(file: string): Promise<Look | undefined>;
  /**
   * Where to go back to until `end`, and one of its files: what is current now, or was when a change began that was
   * cut off since. Undefined when there is none yet.
   */
  begin(file: string): Promise<Look | undefined>;
  /** Keeps this version alone, and forgets where the change began. */
  end(version: string): Promise<void>;
  /** Adds a version and has it checked. */
  add(version: string, files: PublishInput['files']): Promise<void>;
  /** Makes a version current that is there. */
  switchTo(version: string): Promise<void>;
  has(version: string): Promise<boolean>;
}

interface Look {
  readonly version: string;
  readonly text: string;
}

/** @param mounts further volumes that the step needs, and where */
export async function withFiles<T>(
  { volume, helperImage, owner, check, reload }: Omit<PublishInput, 'version' | 'files'>,
  mounts: Readonly<Record<string, string>>,
  work: (files: FileVolume, helper: Helper) => Promise<T>,
): Promise<T> {
  const running = reload !== undefined && (await isRunning(reload.container));
  const helperOptions = {
    purpose: `Writing files into the volume ${volume}`,
    image: helperImage,
    mounts: { [volume]: '/files', ...mounts },
  };
  return withVolumes(helperOptions, (helper) => {
    const look = async (script: string, file: string): Promise<Look | undefined> => {
      const text = await helper.run(`{ ${script}; } 2>/dev/null || true`, [file]);
      const end = text.indexOf('\n');
      return end < 0 ? undefined : { version: text.slice(0, end), text: text.slice(end + 1) };
    };
    return work(
      {
        async switchTo(version) {
          await helper.run(SWITCH, [version]);
          if (reload !== undefined && running) await takeOver(reload, version);
        },
        look: (file) => look(LOOK, file),
        async begin(file) {
          const before = (await look(LOOK_BEFORE, file)) ?? (await look(LOOK, file));
          if (before !== undefined) await helper.run(BEGIN, [before.version]);
          return before;
        },
        async end(version) {
          await helper.run(`rm -f /files/${BEGUN}; ${PRUNE}`, [version]);
        },
        has: async (version) => (await helper.run('test -d "/files/$1" && echo yes || true', [version])) !== '',
        async add(version, files) {
          const confirm = reload?.confirm;
          const marked = confirm ? { ...files, [confirm.file]: confirm.text.replace('{version}', version) } : files;
          await helper.run(UNPACK, [version], await toTar(marked, owner));
          if (check !== undefined) await test(check, volume, version);
        },
      },
      helper,
    );
  });
}

async function test({ image, user, mountedAt, command }: Check, volume: string, version: string): Promise<void> {
  const script = `cp -RL "/candidate/$0" "${mountedAt}/current" && exec "$@"`;
  await docker(
    `The check of the new configuration (${command.join(' ')})`,
    ['run', '--rm', '--network', 'none', '--read-only', '--user', user, '--cap-drop', 'ALL']
      .concat(['--security-opt', 'no-new-privileges:true', '--tmpfs', '/tmp:mode=1777'])
      .concat(['--tmpfs', `${mountedAt}:mode=1777`, '--volume', `${volume}:/candidate:ro`])
      .concat(['--entrypoint', 'sh', image, '-c', script, version, ...command]),
  );
}

export async function isRunning(container: string): Promise<boolean> {
  const filter = ['--filter', `name=^/?${container}$`, '--filter', 'status=running'];
  return (await docker(`Looking for ${container}`, ['ps', '--quiet', ...filter])).trim() !== '';
}

/** A signal is heard by nobody when the reader cannot use the files: only its own word counts. */
async function takeOver({ container, signal, confirm }: Reload, version: string): Promise<void> {
  // Not by `docker kill`: the engine takes any signal of its own for a wish to end the container, and would not restart
  // it after a crash any more.
  await docker(`Reloading ${container}`, ['exec', container, 'sh', '-c', 'kill -s "$0" 1', signal]);
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
