import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A real program that a rendered file is tested with: from the stack's image, else from this machine. */
export interface Program {
  /** What runs, for the name of the test: `nginx 1.30.6 of nginx:1.30.5`. */
  readonly label: string;
  /** Runs it without any network; `directory` appears under the same path, read-only. */
  run(directory: string, args: readonly string[]): { status: number | null; output: string };
}

type ImageName = 'node' | 'nginx' | 'prometheus' | 'alertmanager';

const images = JSON.parse(readFileSync(join(__dirname, '../../infra/images.json'), 'utf8')) as Record<
  ImageName,
  string
>;

export const image = (name: ImageName): string => images[name];

export function run(command: string, args: readonly string[]): { status: number | null; output: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 60_000,
    maxBuffer: 2 ** 26,
  });
  return { status: error ? null : status, output: error ? error.message : `${stdout}${stderr}` };
}

/** @returns what is missing to run containers of these images with ports on this machine, or undefined. */
export function missingForContainers(names: readonly ImageName[]): string | undefined {
  if (/^(ssh|tcp):/.test(process.env.DOCKER_HOST ?? '')) return 'the Docker engine is on another machine';
  if (run('docker', ['info']).status !== 0) return 'no Docker engine answers';
  const absent = names.filter((name) => run('docker', ['image', 'inspect', image(name)]).status !== 0);
  return absent.length > 0 ? `no image ${absent.map(image).join(', ')} on the engine: make images-offline` : undefined;
}

/**
 * @param minimum lowest version of a program on this machine whose verdict counts for the version in the image.
 * @returns undefined when neither the image nor such a program is here.
 */
export function findProgram(
  name: ImageName,
  command: string,
  versionFlag: string,
  minimum: string,
): Program | undefined {
  const version = (text: string) => /\d+\.\d+\.\d+/.exec(text)?.[0];
  if (missingForContainers([name]) === undefined) {
    const inImage: Program['run'] = (directory, args) =>
      run('docker', [
        ...['run', '--rm', '--network', 'none', '--read-only', '--tmpfs', '/tmp', '--cap-drop', 'ALL'],
        ...['--user', '101:101', '--volume', `${directory}:${directory}:ro`, '--entrypoint', command, image(name)],
        ...args,
      ]);
    return {
      label: `${command} ${version(inImage('/srv', [versionFlag]).output) ?? '?'} of ${image(name)}`,
      run: inImage,
    };
  }
  const found = version(run(command, [versionFlag]).output);
  if (found === undefined || found.localeCompare(minimum, 'en', { numeric: true }) < 0) return undefined;
  // Through a pipe, as in a container: Node gives a child sockets, and nobody can open /dev/stdout when it is one.
  const piped = 'text=$("$0" "$@" 2>&1); status=$?; echo "$text"; exit $status';
  const here: Program['run'] = (_directory, args) => run('sh', ['-c', piped, command, ...args]);
  return { label: `${command} ${found} of this machine`, run: here };
}
