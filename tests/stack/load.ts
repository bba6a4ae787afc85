import { spawn } from 'node:child_process';

/** What the tests of stacks put upon them: the load of `make load`, and other work on their host. */
export * from '../../infra/load/figures';
export * from '../../infra/load/load';

/** Ends by itself when this process is gone. */
const BUSY = 'while kill -0 $PPID; do n=0; while [ $n -lt 100000 ]; do n=$((n + 1)); done; done 2> /dev/null';

/** Processes beside the stack that take all of the processor that they get. @returns what ends them */
export function startHog(processes: number): () => void {
  const hogs = Array.from({ length: processes }, () => spawn('sh', ['-c', BUSY], { stdio: 'ignore' }));
  return () => hogs.forEach((hog) => hog.kill('SIGKILL'));
}
