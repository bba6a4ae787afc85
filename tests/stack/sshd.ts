import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { freePort } from './environment';

/** A way to this machine's engine as if it were another machine: an SSH server of the test's own, on loopback. */
export interface Remote {
  /** What a job is given: the address of the engine, a key, and the server's own key. */
  readonly env: Readonly<Record<'DOCKER_HOST' | 'DOCKER_HOST_KEY' | 'DOCKER_HOST_KNOWN_HOSTS', string>>;
  /** A directory for the PATH with an `ssh` that gets there, for what the test does itself. */
  readonly bin: string;
  /** How many have logged in. */
  logins(): number;
  stop(): void;
}

const SSHD = '/usr/sbin/sshd';

/** Why there is none; undefined when one can be started. */
export function noSshd(): string | undefined {
  if (!existsSync(SSHD)) return 'no SSH server: apt-get install openssh-server';
  if (spawnSync('ssh-agent', ['-h']).error !== undefined) return 'no ssh-agent: apt-get install openssh-client';
  return userInfo().uid === 0 ? undefined : 'only root can start an SSH server';
}

export async function startSshd(): Promise<Remote> {
  const directory = mkdtempSync(join(tmpdir(), 'sshd-'));
  const at = (name: string) => join(directory, name);
  for (const key of ['host', 'user']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', at(key)]);
  }
  // Where it gives its privileges up; made by the package's service otherwise.
  mkdirSync('/run/sshd', { recursive: true });
  const port = await freePort();
  const settings = {
    ListenAddress: '127.0.0.1',
    Port: String(port),
    HostKey: at('host'),
    AuthorizedKeysFile: at('user.pub'),
    PidFile: 'none',
    PermitRootLogin: 'prohibit-password',
    PasswordAuthentication: 'no',
    KbdInteractiveAuthentication: 'no',
    StrictModes: 'no',
    UsePAM: 'no',
    LogLevel: 'VERBOSE',
  };
  const lines = Object.entries(settings).map((pair) => pair.join(' '));
  writeFileSync(at('config'), `${lines.join('\n')}\n`);
  const child: ChildProcess = spawn(SSHD, ['-D', '-f', at('config'), '-E', at('log')], { stdio: 'ignore' });
  for (let tried = 0; !(await answers(port)); tried++) {
    if (tried === 100) throw new Error(`The SSH server does not answer:\n${readFileSync(at('log'), 'utf8')}`);
    await new Promise((done) => setTimeout(done, 100));
  }
  const [type = '', hostKey = ''] = readFileSync(at('host.pub'), 'utf8').split(' ');
  const known = `[127.0.0.1]:${port} ${type} ${hostKey}`;
  writeFileSync(at('known_hosts'), `${known}\n`);
  mkdirSync(at('bin'));
  const options = `-i ${at('user')} -o IdentitiesOnly=yes -o UserKnownHostsFile=${at('known_hosts')}`;
  const path = process.env['PATH'] ?? '';
  writeFileSync(at('bin/ssh'), `#!/bin/sh\nPATH='${path}' exec ssh -o BatchMode=yes ${options} "$@"\n`);
  chmodSync(at('bin/ssh'), 0o755);
  return {
    env: {
      DOCKER_HOST: `ssh://${userInfo().username}@127.0.0.1:${port}`,
      DOCKER_HOST_KEY: readFileSync(at('user'), 'utf8'),
      DOCKER_HOST_KNOWN_HOSTS: known,
    },
    bin: at('bin'),
    logins: () => [...readFileSync(at('log'), 'utf8').matchAll(/Accepted publickey/g)].length,
    stop() {
      child.kill();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const answers = (port: number) =>
  new Promise<boolean>((done) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    socket.on('connect', () => {
      socket.destroy();
      done(true);
    });
    socket.on('error', () => done(false));
  });
