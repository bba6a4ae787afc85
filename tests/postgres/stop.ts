import { rmSync } from 'node:fs';

/** Jest's global teardown. */
export default async function stop(): Promise<void> {
  const running = globalThis.testPostgres;
  if (running === undefined) return;
  await running.server.stop();
  rmSync(running.directory, { recursive: true, force: true });
}
