import { docker, tryDocker } from './engine';

/** Runs scripts in a helper container that has volumes; see withVolumes. */
export interface Helper {
  /** Runs `script` under sh as root with the rights to own and write files; returns its output. */
  run(script: string, args?: readonly string[], stdin?: string | Buffer): Promise<string>;
  /** Runs a command as another user, without any right. */
  runAs(user: string, command: readonly string[]): Promise<string>;
}

export interface Volumes {
  readonly purpose: string;
  /** An image with `sh` and `tar`. */
  readonly image: string;
  /** Name of a volume -> path in the helper. */
  readonly mounts: Readonly<Record<string, string>>;
  /** Paths in memory that everybody may write to. */
  readonly tmpfs?: readonly string[];
}

/** A helper whose step was killed is gone by itself after this; no step takes as long. */
const LIFETIME_SECONDS = 300;

/**
 * The way to the files of a volume that needs no path of the host, so that it works with a remote engine too. One
 * helper for all that a step does: starting a container takes several times as long as running something in it.
 */
export async function withVolumes<T>(volumes: Volumes, work: (helper: Helper) => Promise<T>): Promise<T> {
  const { purpose, image, mounts, tmpfs = [] } = volumes;
  const helper = await docker(purpose, [
    ...['run', '--detach', '--rm', '--network', 'none', '--read-only', '--user', '0:0', '--cap-drop', 'ALL'],
    ...['CHOWN', 'FOWNER', 'DAC_OVERRIDE'].flatMap((capability) => ['--cap-add', capability]),
    ...['--security-opt', 'no-new-privileges:true', '--log-driver', 'none', '--stop-signal', 'SIGKILL'],
    ...['/tmp', ...tmpfs].flatMap((path) => ['--tmpfs', `${path}:mode=1777`]),
    ...Object.entries(mounts).flatMap(([volume, path]) => ['--volume', `${volume}:${path}`]),
    ...['--entrypoint', 'sleep', image, String(LIFETIME_SECONDS)],
  ]);
  const id = helper.trim();
  try {
    return await work({
      run: (script, args = [], stdin) =>
        docker(purpose, ['exec', '--interactive', id, 'sh', '-c', script, 'sh', ...args], stdin),
      runAs: (user, command) => docker(purpose, ['exec', '--user', user, id, ...command]),
    });
  } finally {
    // Whether that helps or not: what went wrong before is what counts.
    await tryDocker(['kill', id]);
  }
}
