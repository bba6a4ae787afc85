import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { withAccess } from '../../pipeline/deploy';
import { run } from '../../pipeline/run';
import { describeUnless } from '../skip';
import { noSshd, type Remote, startSshd } from '../stack/sshd';

// Programs are started; the machine may have other work.
jest.setTimeout(60_000);

const noEngine = () => (spawnSync('docker', ['info']).status === 0 ? undefined : 'no Docker engine');

describeUnless(noSshd() ?? noEngine(), 'an engine at the other end of SSH', () => {
  let remote: Remote;
  const before = { ...process.env };
  beforeEach(async () => {
    remote = await startSshd();
    process.env['DOCKER_HOST'] = remote.env.DOCKER_HOST;
  });
  afterEach(() => {
    remote.stop();
    for (const name of ['DOCKER_HOST', 'SSH_AUTH_SOCK', 'DOCKER_CONFIG']) Reflect.deleteProperty(process.env, name);
    Object.assign(process.env, before);
  });
  const ask = () => run('docker', ['version', '--format', '{{.Server.Version}}']);

  it('is asked many things through one connection, with a key that is gone afterwards', async () => {
    const counts: number[] = [];
    const answers = await withAccess({ ...remote.env }, undefined, run, async () => {
      const one = await ask();
      counts.push(remote.logins());
      const more = [await ask(), await ask(), ...(await Promise.all(Array.from({ length: 6 }, ask)))];
      counts.push(remote.logins());
      return [one, ...more];
    });
    expect(answers.filter(({ code, stdout }) => code !== 0 || stdout.trim() === '')).toEqual([]);
    expect(counts[0]).toBeGreaterThan(0);
    expect(counts[1]).toBe(counts[0]);
    expect(existsSync(process.env['PATH']!.split(':')[0]!)).toBe(false);
    const socket = process.env['SSH_AUTH_SOCK'];
    expect(socket !== undefined && existsSync(socket)).toBe(false);
  });

  it('is not spoken to when it is not the machine that was named', async () => {
    const other = await startSshd();
    const lie = other.env.DOCKER_HOST_KNOWN_HOSTS.split(' ').slice(1).join(' ');
    const [name = ''] = remote.env.DOCKER_HOST_KNOWN_HOSTS.split(' ');
    other.stop();
    const env = { ...remote.env, DOCKER_HOST_KNOWN_HOSTS: `${name} ${lie}` };
    const { code, stderr } = await withAccess(env, undefined, run, ask);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/host key/i);
    expect(remote.logins()).toBe(0);
  });
});
