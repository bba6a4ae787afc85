import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import images from '../../infra/images.json';
import { own, roles } from '../../infra/deploy/database';
import { StepError } from '../../infra/deploy/engine';
import { gate } from '../../infra/deploy/gate';
import { runOnce } from '../../infra/deploy/oneshot';
import { publish, type PublishInput } from '../../infra/deploy/publish';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine } from './environment';

/** The steps of a deploy, one by one, on a real engine. */

jest.setTimeout(120_000);

describeUnless(reasonWithoutEngine(), 'a step of a deploy', () => {
  const name = `bl-step-${process.pid}`;
  const used: string[] = [];

  /** A container that runs `script` under sh; gone after the tests. */
  function start(role: string, image: string, script: string, options: string[] = []): { id: string; name: string } {
    const container = `${name}-${role}`;
    used.push(container);
    const base = ['run', '--detach', '--network', 'none', '--name', container, ...options, '--entrypoint', 'sh', image];
    return { id: docker([...base, '-c', script]).trim(), name: container };
  }

  afterAll(() => {
    for (const container of used) docker(['rm', '--force', '--volumes', container]);
    for (const volume of docker(['volume', 'ls', '--quiet', '--filter', `name=${name}`])
      .split('\n')
      .filter(Boolean)) {
      docker(['volume', 'rm', volume]);
    }
  });

  describe('publish', () => {
    const volume = `${name}-files`;
    const input = (version: string, files: Record<string, string>, more: Partial<PublishInput> = {}): PublishInput => ({
      volume,
      version,
      files,
      owner: { uid: 101, gid: 101 },
      helperImage: images.nginx,
      ...more,
    });
    const look = (script: string, user = '101:101', mode = ':ro') =>
      docker([
        ...['run', '--rm', '--network', 'none', '--user', user, '--volume', `${volume}:/files${mode}`],
        ...['--entrypoint', 'sh', images.nginx, '-c', script],
      ]).trim();

    it('shows the files to their owner alone, under current/', async () => {
      await publish(input('v1', { 'a.txt': 'one', 'deep/er/b.txt': 'ünï' }));
      expect(look('cat /files/current/a.txt /files/current/deep/er/b.txt')).toBe('oneünï');
      expect(look('stat -c "%a %u:%g" /files/current/a.txt')).toBe('400 101:101');
      expect(() => look('cat /files/current/a.txt', '102:102')).toThrow(/Permission denied/);
    });

    it('replaces the whole set: nothing stale stays', async () => {
      await publish(input('v2', { 'c.txt': 'two' }));
      expect(look('cd /files/current/ && find . -type f')).toBe('./c.txt');
      expect(look('ls /files')).toBe('current\nv2');
    });

    it('leaves alone what lies beside the versions under a name with a dot, such as the mark of maintenance', async () => {
      docker(['run', '--rm', '--volume', `${volume}:/files`, '--entrypoint', 'touch', images.nginx, '/files/.mark']);
      await publish(input('v3', { 'd.txt': 'three' }));
      await publish(input('v2', { 'c.txt': 'two' }));
      expect(look('ls -A /files')).toBe('.mark\ncurrent\nv2');
    });

    it('can be repeated', async () => {
      await publish(input('v2', { 'c.txt': 'two' }));
      expect(look('cat /files/current/c.txt')).toBe('two');
    });

    it('puts right what somebody changed by hand in the version that is current', async () => {
      look('echo by hand >> /files/v2/c.txt; mkdir /files/v2/more; touch /files/v2/more/d.txt', '0:0', '');
      await publish(input('v2', { 'c.txt': 'two' }));
      expect(look('cat /files/current/c.txt; cd /files/current/; find . -type f')).toBe('two./c.txt');
    });

    it('keeps the old files when the check of the new ones fails, and says what it said', async () => {
      const check = (content: string) => ({
        image: images.nginx,
        user: '101:101',
        mountedAt: '/etc/branchloans',
        command: ['grep', '-q', content, '/etc/branchloans/current/c.txt'],
      });
      await expect(publish(input('v3', { 'c.txt': 'three' }, { check: check('something else') }))).rejects.toThrow(
        /The check of the new configuration \(grep .*\) failed/,
      );
      expect(look('cat /files/current/c.txt')).toBe('two');
      await publish(input('v3', { 'c.txt': 'three' }, { check: check('three') }));
      expect(look('cat /files/current/c.txt')).toBe('three');
    });

    it('signals the reader, and does not mind when there is none', async () => {
      const reader = start('reader', images.nginx, 'trap "echo reloaded" HUP; while :; do sleep 0.1; done');
      await publish(input('v4', { 'c.txt': 'four' }, { reload: { container: reader.name, signal: 'HUP' } }));
      await new Promise((done) => setTimeout(done, 500));
      expect(docker(['logs', reader.name])).toContain('reloaded');
      await publish(input('v5', { 'c.txt': 'five' }, { reload: { container: `${name}-nobody`, signal: 'HUP' } }));
      expect(look('cat /files/current/c.txt')).toBe('five');
    });

    it('does not take a signal for an answer: the reader must say that it has the new files', async () => {
      const confirm = (command: string[]) => ({
        reload: {
          container: `${name}-reader`,
          signal: 'HUP',
          confirm: { file: 'version', text: 'v={version}', command },
        },
      });
      await publish(input('v6', { 'c.txt': 'six' }, confirm(['echo', 'v6'])));
      expect(look('cat /files/current/version')).toBe('v=v6');
      await expect(publish(input('v7', { 'c.txt': 'seven' }, confirm(['echo', 'v6'])))).rejects.toThrow(
        /did not take the new files over within 15 s[^]*v6/,
      );
    });

    it.each(['../outside', '/absolute', 'a/../../b'])('refuses the path %s', async (path) => {
      await expect(publish(input('v9', { [path]: 'x' }))).rejects.toThrow(StepError);
    });
  });

  describe('gate', () => {
    const input = (containers: { id: string; name: string }[], readyWithinSeconds = 3) => ({
      containers,
      probe: '/tmp/probe',
      readyPath: '/ready',
      smoke: { reads: ['/smoke'], dryRun: { path: '/dry-run', body: '{}' }, keyCommand: ['/tmp/keys'] },
      readyWithinSeconds,
      attempt: {
        ledger: { volume: `${name}-releases`, helperImage: images.nginx },
        release: { id: 'r1', image: 'i', imageId: 'sha256:i', localImage: 'i:r1', commit: 'c', configuration: 'f' },
      },
    });
    const probe = (body: string) =>
      `printf '#!/bin/sh\\n${body}\\n' > /tmp/probe; chmod +x /tmp/probe; while :; do sleep 0.2; done`;

    it('lets through what answers, and says which release it is', async () => {
      const containers = [
        start('good-1', images.nginx, probe('exit 0')),
        start('good-2', images.nginx, probe('exit 0')),
      ];
      await expect(gate(input(containers))).resolves.toEqual({
        release: expect.objectContaining({ id: 'r1' }),
        containers: [`${name}-good-1`, `${name}-good-2`],
      });
    });

    it('waits for one that is slow', async () => {
      const slow = start('slow', images.nginx, `sleep 2; ${probe('exit 0')}`);
      await expect(gate(input([slow], 20))).resolves.toMatchObject({ containers: [slow.name] });
    });

    it('gives up on one that never answers, with its last answer and its log', async () => {
      const silent = start('silent', images.nginx, `echo log line; ${probe('echo not yet; exit 1')}`);
      await expect(gate(input([silent]))).rejects.toThrow(/was not ready after \d+ s[^]*not yet[^]*log line/);
    });

    it('gives up at once on one that ended', async () => {
      const began = Date.now();
      const ended = start('ended', images.nginx, 'echo boom; exit 3');
      await expect(gate(input([ended], 60))).rejects.toThrow(/ended with exit code 3[^]*boom/);
      expect(Date.now() - began).toBeLessThan(20_000);
    });

    it('gives up at once on one that restarts again and again', async () => {
      const crashing = start('crashing', images.nginx, 'echo again; exit 4', ['--restart', 'unless-stopped']);
      await expect(gate(input([crashing], 60))).rejects.toThrow(/crashed|ended with exit code/);
    });

    it('gives up on one that is ready but fails the smoke test', async () => {
      const poor = start('poor', images.nginx, probe('test "$1" = /ready || { echo broken; exit 1; }'));
      await expect(gate(input([poor]))).rejects.toThrow(/is ready but \/smoke fails[^]*broken/);
    });

    it('makes a key for what wants one, once for all containers, and revokes it', async () => {
      const keyed = `test "$1" = /ready || test "$PROBE_KEY" = bl_test_0123_secret || { echo "HTTP/1.1 401 Unauthorized"; exit 1; }`;
      const keys = `printf '#!/bin/sh\necho "$@" >> /tmp/asked\necho bl_test_0123_secret\n' > /tmp/keys; chmod +x /tmp/keys; `;
      const containers = ['keyed-1', 'keyed-2'].map((role) => start(role, images.nginx, keys + probe(keyed)));
      await expect(gate(input(containers))).resolves.toMatchObject({ release: { id: 'r1' } });
      const asked = containers.map(({ id }) => docker(['exec', id, 'sh', '-c', 'cat /tmp/asked || true'])).join('');
      expect(asked).toBe(
        'create --name deploy-smoke --scopes loans:read,loans:write --expires-days 1\nrevoke --id 0123\n',
      );
    });

    it('gives up on one that can make no key, with what it said', async () => {
      const unable = `printf '#!/bin/sh\necho no table >&2; exit 1\n' > /tmp/keys; chmod +x /tmp/keys; `;
      const keyed = start(
        'unable',
        images.nginx,
        unable + probe('test "$1" = /ready || { echo "HTTP/1.1 401 Unauthorized"; exit 1; }'),
      );
      await expect(gate(input([keyed]))).rejects.toThrow(/No API key for the smoke test could be made:\n\s+no table/);
    });

    it('gives up on one that is gone', async () => {
      await expect(gate(input([{ id: `${name}-none`, name: `${name}-none` }]))).rejects.toThrow(/is gone/);
    });
  });

  describe('the database', () => {
    const server = `set -e
export PGDATA=/var/lib/postgresql/data
initdb --username postgres --auth-local peer --auth-host scram-sha-256 >/dev/null
printf 'local all postgres peer\\nhost all all all scram-sha-256\\n' > $PGDATA/pg_hba.conf
exec postgres -c unix_socket_directories=/tmp -c listen_addresses=127.0.0.1`;
    const environment = ['--env', 'PGHOST=/tmp', '--env', 'PGUSER=postgres', '--user', '999:999'];
    const login = (container: string, password: string) =>
      docker([
        ...['exec', '--env', `PGPASSWORD=${password}`, container, 'psql', '--host', '127.0.0.1', '--username', 'app'],
        ...['--dbname', 'app_db', '--tuples-only', '--no-align', '--command', 'SELECT current_user'],
      ]).trim();

    it('gives its directory to its user', async () => {
      const source = `${name}-owned`;
      await own({ source, target: '/data', owner: '999:999', helperImage: images.postgres });
      const seen = ['run', '--rm', '--network', 'none', '--volume', `${source}:/data`, '--entrypoint', 'stat'];
      expect(docker([...seen, images.postgres, '-c', '%u:%g', '/data']).trim()).toBe('999:999');
    });

    it('gets its role, password and database, again and again, and no password into its log', async () => {
      const { name: container } = start('database', images.postgres, server, environment);
      const common = { container, database: 'app_db', user: 'app', readyWithinSeconds: 60 };
      const input = { ...common, ownerPassword: "owner's" };
      await roles({ ...input, password: "first'pass\\word" });
      expect(login(container, "first'pass\\word")).toBe('app');
      await roles({ ...input, password: 'second-password' });
      expect(login(container, 'second-password')).toBe('app');
      expect(() => login(container, "first'pass\\word")).toThrow(/authentication failed/);
      // A release before the roles gave the database to the role of the service.
      const sql = (statement: string) =>
        docker([
          'exec',
          container,
          'psql',
          '--tuples-only',
          '--no-align',
          '--dbname',
          'app_db',
          '--command',
          statement,
        ]);
      sql('ALTER DATABASE app_db OWNER TO app; CREATE TABLE loans (id int); ALTER TABLE loans OWNER TO app');
      await expect(roles({ ...input, user: 'another', password: 'x' })).rejects.toThrow(
        /belongs to the role app, the settings name another; nothing was changed/,
      );
      await roles({ ...input, password: 'second-password' });
      const owner =
        "SELECT pg_get_userbyid(relowner), has_table_privilege('app', 'loans', 'DELETE') FROM pg_class WHERE relname = 'loans'";
      expect(sql(owner).trim()).toBe('branchloans_owner|t');
      expect(docker(['logs', container])).not.toMatch(/second-password|first'pass|owner's/);
    });

    it('is given to its owner as a whole, as soon as no session locks its tables', async () => {
      const { name: container } = start('busy-database', images.postgres, server, environment);
      const input = { container, database: 'app_db', user: 'app', password: 'x', ownerPassword: 'y' };
      await roles({ ...input, readyWithinSeconds: 60 });
      const psql = (statement: string) => [
        'exec',
        container,
        'psql',
        '--tuples-only',
        '--dbname',
        'app_db',
        '--command',
        statement,
      ];
      docker(psql('CREATE TABLE loans (id int); ALTER TABLE loans OWNER TO app'));
      const report = spawn('docker', psql('BEGIN; SELECT FROM loans; SELECT pg_sleep(3); COMMIT'));
      const ended = once(report, 'exit');
      const asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
      while (docker(psql(asleep)).trim() !== '1') await sleep(50);
      const startedAt = Date.now();
      await roles({ ...input, readyWithinSeconds: 60 });
      expect(Date.now() - startedAt).toBeGreaterThan(500);
      expect(docker(psql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'loans'")).trim()).toBe(
        'branchloans_owner',
      );
      await ended;
    });

    it('that does not start is told with its log', async () => {
      const broken = start('broken-database', images.postgres, 'echo no room; exit 1', environment);
      await expect(
        roles({
          container: broken.name,
          database: 'd',
          user: 'u',
          password: 'p',
          ownerPassword: 'o',
          readyWithinSeconds: 30,
        }),
      ).rejects.toThrow(/ended with exit code 1[^]*no room/);
    });
  });

  describe('a one-shot job', () => {
    const job = (script: string) => ({
      image: images.nginx,
      user: '101:101',
      entrypoint: 'sh',
      command: ['-c', script],
      environment: { GREETING: 'hello', EMPTY: '' },
      network: 'none',
      mounts: [],
      memoryMib: 64,
      labels: {},
    });

    it('hands its output back, and does not set what is empty', async () => {
      expect(await runOnce('The job', job('echo $GREETING ${EMPTY-unset}'))).toBe('hello unset\n');
    });

    it('fails with what it wrote', async () => {
      await expect(runOnce('The job', job('echo why >&2; exit 7'))).rejects.toThrow(
        /The job failed \(exit code 7\):\n\s+why/,
      );
    });

    it('runs hardened', async () => {
      await expect(runOnce('The job', job('touch /somewhere'))).rejects.toThrow(/Read-only file system/);
      expect(await runOnce('The job', job('grep CapEff /proc/self/status'))).toMatch(/CapEff:\s+0+$/m);
    });
  });
});
