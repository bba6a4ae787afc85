import { docker } from './engine';

/** Asks which group may speak to the engine through its socket: it is another one on every host. */
export interface SocketInput {
  /** Path on the Docker host. */
  readonly path: string;
  /** An image with `stat`. */
  readonly helperImage: string;
}

/** @returns the number of the group */
export async function socket({ path, helperImage }: SocketInput): Promise<string> {
  const group = await docker(
    `Looking at the engine's socket ${path} (exporters.socket; exporters.containers: false does without it)`,
    ['run', '--rm', '--network', 'none', '--read-only', '--user', '65534:65534', '--cap-drop', 'ALL']
      .concat([
        '--security-opt',
        'no-new-privileges:true',
        '--mount',
        `type=bind,source=${path},target=/socket,readonly`,
      ])
      .concat(['--entrypoint', 'stat', helperImage, '--format', '%g', '/socket']),
  );
  return group.trim();
}
