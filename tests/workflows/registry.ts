import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A real registry on this machine's loopback, gone with the test. */
export interface Registry {
  /** `127.0.0.1:port` */
  readonly host: string;
  stop(): void;
}

/** Why there is none; undefined when one can be started. */
export function noRegistry(): string | undefined {
  const missing = ['docker-registry', 'skopeo', 'docker'].filter(
    (tool) => spawnSync(tool, ['--version']).error !== undefined,
  );
  if (missing.length > 0) return `${missing.join(' and ')} not installed: apt-get install docker-registry skopeo`;
  return spawnSync('docker', ['info']).status === 0 ? undefined : 'no Docker engine';
}

/** Who may use one that is not open: the user and the token. */
export const LOGIN = { user: 'me', token: 'hunter2' };
const HTPASSWD = 'me:$2b$05$1jZtVkZiEHHI/nhaRNxdQ.Q1KItX1BJRaApSsiPHVFk2DYl.p9cJ6\n';

/** @param open whether anybody may pull and push, as against LOGIN alone */
export async function startRegistry(open = true): Promise<Registry> {
  const directory = mkdtempSync(join(tmpdir(), 'registry-'));
  const host = `127.0.0.1:${await freePort()}`;
  const file = join(directory, 'config.yml');
  const auth = open ? '' : `auth: { htpasswd: { realm: test, path: ${directory}/htpasswd } }\n`;
  writeFileSync(join(directory, 'htpasswd'), HTPASSWD);
  const storage = `{ filesystem: { rootdirectory: ${directory}/data } }`;
  writeFileSync(file, `version: 0.1\nlog: { level: error }\nstorage: ${storage}\nhttp: { addr: ${host} }\n${auth}`);
  const child: ChildProcess = spawn('docker-registry', ['serve', file], { stdio: 'ignore' });
  for (let tried = 0; ; tried++) {
    const answer = await fetch(`http://${host}/v2/`).catch(() => undefined);
    if (answer?.ok === true || answer?.status === 401) break;
    if (tried === 100) throw new Error('The registry does not answer');
    await new Promise((done) => setTimeout(done, 100));
  }
  return {
    host,
    stop() {
      child.kill();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function freePort(): Promise<number> {
  return new Promise((done) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}
