import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { JOBS } from '../../infra/ops/exporters';
import { secondsOf } from '../../infra/ops/rules';
import { queryPrometheus } from '../../infra/deploy/prometheus';
import { alertsOf, GROUPS } from '../alerts/promtool';
import { describeUnless } from '../skip';
import { crash, docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { type Load, startLoad } from './load';

/**
 * Alerts on a real engine: real faults, the rules that ship with their own `for`, a real Alertmanager, and a receiver that
 * writes down what it is told. The faults overlap, so the whole takes a quarter of an hour. ALERTS=name,…: only these.
 */

jest.setTimeout(1_500_000);

/** Beside an alert's own `for`: scrapes, evaluations and a machine that is busy with the fault. */
const SLACK_SECONDS = 60;
/** After the end of a fault its errors leave the windows of 5 minutes. */
const RESOLVED_WITHIN_SECONDS = 420;

interface Expected {
  readonly alert: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** The job without which there is no such rule; the API's if left out. */
  readonly needs?: string;
}

const EXPECTED = {
  databaseStopped: [
    { alert: 'ApiDatabaseAway' },
    { alert: 'ApiErrors' },
    { alert: 'ApiRequestsShed', labels: { reason: 'circuit_open' } },
    { alert: 'SLOErrorBudgetBurn', labels: { slo: 'success', burn: 'fast' } },
    { alert: 'PostgresDown', needs: JOBS.postgres },
    { alert: 'ContainerOomKilled', needs: JOBS.containers },
  ],
  tableLocked: [
    // Neither ApiSlow nor ApiDbPoolSaturated: what would wait is refused at once.
    { alert: 'ApiErrorRateHigh' },
    { alert: 'PostgresConnectionsHigh', needs: JOBS.postgres },
  ],
  containerLost: [{ alert: 'ApiRestartLoop' }, { alert: 'ApiReplicasMissing' }],
  everythingStopped: [
    { alert: 'ApiDown' },
    { alert: 'ProbeFailing', labels: { probe: 'api' }, needs: JOBS.probe },
    { alert: 'NginxDown', needs: JOBS.nginx },
  ],
} as const satisfies Readonly<Record<string, readonly Expected[]>>;

const only = process.env['ALERTS']?.split(',');
const wanted = (fault: keyof typeof EXPECTED, jobs: ReadonlySet<string>): Expected[] =>
  (EXPECTED[fault] as readonly Expected[]).filter(
    ({ alert, needs = JOBS.api }) => jobs.has(needs) && (only === undefined || only.includes(alert)),
  );

const RECEIVER = `require('node:http').createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => (body += chunk)).on('end', () => {
    console.log(JSON.stringify({ path: request.url, ...JSON.parse(body) }));
    response.end();
  });
}).listen(8080)`;

interface Message {
  readonly path: string;
  readonly status: 'firing' | 'resolved';
  readonly alerts: readonly { readonly status: string; readonly labels: Readonly<Record<string, string>> }[];
}

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'alerts', () => {
  const receiver = `bl-receiver-${process.pid}`;
  let environment: TestEnvironment;
  let load: Load;
  let jobs: ReadonlySet<string>;
  const told: string[] = [];

  const part = (name: string) => `${environment.prefix}-${name}`;
  const ask = (expression: string) => queryPrometheus(part('prometheus'), expression);
  const messages = () =>
    docker(['logs', receiver])
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Message);

  beforeAll(async () => {
    environment = await TestEnvironment.create('development', (settings) => {
      const of = (name: string) => settings[`branchloans:${name}`] as Record<string, unknown>;
      delete settings['branchloans:exporters'];
      // A small pool and few connections are soon used up.
      settings['branchloans:api'] = { ...of('api'), replicas: 2, poolSize: 2, cpus: 0.5 };
      settings['branchloans:database'] = { ...of('database'), maxConnections: 30 };
    });
    for (const [name, path] of [
      ['alertWebhook', 'alerts'],
      ['alertWatchdog', 'watchdog'],
    ] as const) {
      const address = `http://receiver:8080/${path}`;
      environment.pulumi(['config', 'set', '--secret', name, address, '-s', environment.stack]);
    }
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    docker([
      ...['run', '--detach', '--name', receiver, '--network', part('front'), '--network-alias', 'receiver'],
      ...['--entrypoint', 'node', environment.image('node'), '--eval', RECEIVER],
    ]);
    load = startLoad(environment, { rate: 20 });
    // Two scrapes of everything.
    await sleep(35_000);
    jobs = new Set((await ask('count by (job) (up)')).map(({ labels }) => labels['job'] ?? ''));
    expect(await firing()).toEqual([]);
  });
  afterAll(async () => {
    await load.stop().catch(() => undefined);
    console.info(told.join('\n'));
    docker(['rm', '--force', receiver]);
    await environment.remove();
  });

  async function firing(): Promise<Readonly<Record<string, string>>[]> {
    const samples = await ask('ALERTS{alertstate="firing",severity!="none"}').catch(() => []);
    return samples.map(({ labels }) => labels);
  }

  const matches = ({ alert, labels = {} }: Expected, found: Readonly<Record<string, string>>) =>
    found['alertname'] === alert && Object.entries(labels).every(([name, value]) => found[name] === value);

  /** Of the rule that ships. */
  function patience({ alert, labels = {} }: Expected): number {
    const rules = alertsOf(GROUPS).filter((rule) => rule.alert === alert);
    const rule = rules.find(({ labels: own = {} }) =>
      Object.entries(own).every(([name, value]) => !(name in labels) || labels[name] === value),
    );
    return rule?.for === undefined ? 0 : secondsOf(rule.for);
  }

  /** Waits until all of them fire, each within its time; the fault goes on meanwhile. */
  async function fires(expected: readonly Expected[], since: number): Promise<void> {
    const waiting = new Set(expected);
    while (waiting.size > 0) {
      const found = await firing();
      const seconds = Math.round((Date.now() - since) / 1_000);
      for (const each of waiting) {
        if (found.some((labels) => matches(each, labels))) {
          waiting.delete(each);
          told.push(`${each.alert}: fired after ${seconds} s (for: ${patience(each)} s)`);
        } else if (seconds > patience(each) + SLACK_SECONDS) {
          throw new Error(`${each.alert} did not fire within ${seconds} s; these did: ${JSON.stringify(found)}`);
        }
      }
      await sleep(2_000);
    }
  }

  async function resolves(expected: readonly Expected[], since: number): Promise<void> {
    const waiting = new Set(expected);
    while (waiting.size > 0) {
      const found = await firing();
      const seconds = Math.round((Date.now() - since) / 1_000);
      for (const each of waiting) {
        if (!found.some((labels) => matches(each, labels))) {
          waiting.delete(each);
          told.push(`${each.alert}: resolved within ${seconds} s after its fault`);
        } else if (seconds > RESOLVED_WITHIN_SECONDS) {
          throw new Error(`${each.alert} still fires ${seconds} s after its fault: ${JSON.stringify(found)}`);
        }
      }
      await sleep(2_000);
    }
  }

  /** Sessions of the superuser in the database, until they are ended. */
  function holdSessions(count: number, statement: string): void {
    const one = `psql --no-psqlrc --quiet --dbname branchloans_dev --command "${statement}"`;
    const script = `for n in $(seq ${count}); do ${one} & done; wait`;
    spawn('docker', ['exec', part('database'), 'bash', '-c', script], { stdio: 'ignore' });
  }
  const answers = () => {
    try {
      return environment.sql('SELECT 1').trim() === '1';
    } catch {
      return false;
    }
  };
  const endSessions = () =>
    environment.sql(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
    );

  it('fire within their time when the fault is real, reach people, and end after it', async () => {
    const [lost, kept] = environment.apiContainers();
    const resolved: Promise<void>[] = [];
    const ended = (expected: readonly Expected[]) => resolved.push(resolves(expected, Date.now()));

    // One container dies again and again, and then for good: all the while the others are in trouble of their own.
    const containerLost = (async () => {
      const expected = wanted('containerLost', jobs);
      if (expected.length === 0) return expected;
      // It must be seen between its deaths.
      for (let death = 0; death < 3; death += 1) {
        if (death > 0) await sleep(40_000);
        crash(lost!);
      }
      await fires(
        expected.filter(({ alert }) => alert === 'ApiRestartLoop'),
        Date.now(),
      );
      docker(['stop', lost!]);
      await fires(
        expected.filter(({ alert }) => alert === 'ApiReplicasMissing'),
        Date.now(),
      );
      return expected;
    })();
    // Its failure is told where it is waited for.
    containerLost.catch(() => undefined);

    const stopped = wanted('databaseStopped', jobs);
    const locked = wanted('tableLocked', jobs);
    if (stopped.length > 0) {
      if (stopped.some(({ alert }) => alert === 'ContainerOomKilled')) {
        spawn('docker', ['exec', part('grafana'), 'tail', '/dev/zero'], { stdio: 'ignore' });
      }
      docker(['stop', part('database')]);
      await fires(stopped, Date.now());
      docker(['start', part('database')]);
      await eventually(answers);
    }
    if (locked.length > 0) {
      const since = Date.now();
      holdSessions(1, 'BEGIN; LOCK TABLE loans IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(900)');
      if (jobs.has(JOBS.postgres)) holdSessions(19, 'SELECT pg_sleep(900)');
      await fires(locked, since);
      endSessions();
      ended(locked);
    }
    ended(stopped);

    const lostAlerts = await containerLost;
    const everything = wanted('everythingStopped', jobs);
    if (everything.length > 0) {
      docker(['stop', kept!, lost!]);
      if (jobs.has(JOBS.nginx)) docker(['stop', part('gateway')]);
      await fires(everything, Date.now());
      if (jobs.has(JOBS.nginx)) docker(['start', part('gateway')]);
      docker(['start', kept!]);
    }
    docker(['start', lost!]);
    ended([...lostAlerts, ...everything]);
    await Promise.all(resolved);

    const fired = [...stopped, ...locked, ...lostAlerts, ...everything];
    if (only === undefined) expect(fired.length).toBeGreaterThanOrEqual(10);
    const sent = messages();
    expect(sent.filter(({ path }) => path === '/watchdog').length).toBeGreaterThan(3);
    expect(sent.filter(({ path }) => path === '/alerts').flatMap(({ alerts }) => alerts)).not.toContainEqual(
      expect.objectContaining({ labels: expect.objectContaining({ severity: 'none' }) }),
    );
    if (only === undefined) {
      // What explains the others is told, and that it is over.
      const heard = (status: string) =>
        sent.flatMap(({ alerts }) =>
          alerts.filter((each) => each.status === status).map(({ labels }) => labels['alertname']),
        );
      expect(heard('firing')).toEqual(expect.arrayContaining(['ApiDown']));
      await eventually(() =>
        messages().some(({ status, alerts }) => status === 'resolved' && alerts[0]?.labels['alertname'] === 'ApiDown'),
      );
    }
  });

  it('are listed with their runbooks, and can be silenced', async () => {
    expect(await environment.verb('alerts')).toMatchObject({
      code: 0,
      output: expect.stringMatching(/development:|no alert/),
    });
    const silenced = await environment.verb('silence', ['--alert', 'ApiSlow', '--for', '5m', '--why', 'a test']);
    expect(silenced).toMatchObject({ code: 0, output: expect.stringContaining('make silence STACK=development END=') });
    docker(['restart', part('alertmanager')]);
    await eventually(async () => (await environment.verb('silence')).output.includes('ApiSlow'));
    const id = /END=(\S+)/.exec(silenced.output)?.[1] ?? '';
    expect(await environment.verb('silence', ['--end', id])).toMatchObject({ code: 0 });
  });

  it('leave nothing to change, and are seen by whoever knows the password', async () => {
    expect(await environment.changes()).toBe('');
    const secret = 'http://receiver:8080';
    expect(docker(['inspect', part('alertmanager')])).not.toContain(secret);
    expect(environment.state()).not.toContain(secret);
  });
});

async function eventually(attempt: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 360_000;
  while (!(await attempt())) {
    if (Date.now() > end) throw new Error('it did not come true within 6 minutes');
    await sleep(2_000);
  }
}
