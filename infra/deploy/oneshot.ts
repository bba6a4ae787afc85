import type { OneShot } from '../container';
import { docker } from './engine';

/** Runs a container to its end, with the stack's hardening; its failure is the step's failure. */
export async function runOnce(purpose: string, job: OneShot): Promise<string> {
  return docker(purpose, [
    ...['run', '--rm', '--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges:true'],
    ...['--user', job.user, '--network', job.network, '--tmpfs', '/tmp:mode=1777,noexec,nosuid,nodev,size=16m'],
    ...['--memory', `${job.memoryMib}m`, '--memory-swap', `${job.memoryMib}m`],
    ...Object.entries(job.labels).flatMap(([key, value]) => ['--label', `${key}=${value}`]),
    ...Object.entries(job.environment)
      .filter(([, value]) => value !== '')
      .flatMap(([key, value]) => ['--env', `${key}=${value}`]),
    ...job.mounts.flatMap(({ source, target }) => ['--volume', `${source}:${target}:ro`]),
    ...['--entrypoint', job.entrypoint, job.image, ...job.command],
  ]);
}
