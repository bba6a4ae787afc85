import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ALERTMANAGER_PATH,
  alertmanagerArguments,
  type Receivers,
  renderAlertmanager,
  SECRET_FILES,
} from '../../infra/ops/alertmanager';
import { findProgram, image, missingForContainers, run } from '../ops/binaries';
import { describeUnless } from '../skip';

/** Alertmanager's configuration as amtool reads it, and what a real one makes of alerts. */

const NONE: Receivers = { webhook: false, mail: undefined, pager: undefined, watchdog: false };
const MAIL = { to: 'a@example.com', from: 'b@example.com', server: 'smtp.example.com:587', user: 'b' };
const ALL: Receivers = { webhook: true, mail: MAIL, pager: 'pagerduty', watchdog: true };

const amtool = findProgram('alertmanager', 'amtool', '--version', '0.26.0');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'alertmanager-'));
  chmodSync(directory, 0o755);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(receivers: Receivers): string {
  const file = join(directory, 'alertmanager.yml');
  mkdirSync(join(directory, 'secrets'));
  for (const secret of Object.values(SECRET_FILES)) writeFileSync(join(directory, secret), 'http://127.0.0.1:9/');
  writeFileSync(file, renderAlertmanager(receivers, directory));
  return file;
}

describeUnless(
  amtool === undefined ? 'no image and no amtool >= 0.26' : undefined,
  `the configuration, read by ${amtool?.label ?? 'amtool'}`,
  () => {
    it.each<[string, Receivers]>([
      ['nobody', NONE],
      ['everybody', ALL],
      ['a pager by webhook', { ...ALL, pager: 'webhook' }],
      ['a mail server without a password', { ...NONE, mail: { ...MAIL, user: undefined } }],
      ['only a dead man', { ...NONE, watchdog: true }],
    ])('for %s is accepted', (_name, receivers) => {
      const { status, output } = amtool!.run(directory, ['check-config', write(receivers)]);
      expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining('SUCCESS') });
    });

    it.each([
      ['critical', ['severity=critical', 'alertname=ApiDown', 'env=production']],
      ['warning', ['severity=warning', 'alertname=ApiSlow']],
      ['info', ['severity=info', 'alertname=NoLoansCreated']],
      ['watchdog', ['severity=none', 'alertname=Watchdog']],
      ['nobody', ['severity=none', 'alertname=InfoInhibitor']],
      ['nobody', ['alertname=SomethingElse']],
    ])('leads to %s: %j', (receiver, labels) => {
      const file = write(ALL);
      const args = ['config', 'routes', 'test', `--config.file=${file}`, `--verify.receivers=${receiver}`, ...labels];
      expect(amtool!.run(directory, args)).toEqual({ status: 0, output: expect.stringContaining(receiver) });
      const wrong = args.map((arg) => (arg.startsWith('--verify') ? '--verify.receivers=somebody' : arg));
      expect(amtool!.run(directory, wrong).status).not.toBe(0);
    });
  },
);

interface Posted {
  readonly labels: Readonly<Record<string, string>>;
  readonly status: { readonly inhibitedBy: readonly string[]; readonly state: string };
}

describeUnless(missingForContainers(['alertmanager']), 'a real Alertmanager', () => {
  const name = `alertmanager-test-${process.pid}`;
  let base: string;

  beforeEach(async () => {
    const configFile = write(ALL);
    const { status, output } = run('docker', [
      ...['run', '--detach', '--name', name, '--publish', '127.0.0.1::9093', '--read-only', '--cap-drop', 'ALL'],
      ...['--user', '65534:65534', '--volume', '/alertmanager', '--volume', `${directory}:${directory}:ro`],
      ...['--entrypoint', '/bin/alertmanager', image('alertmanager')],
      ...alertmanagerArguments({ configFile, url: 'https://localhost:8443' }),
    ]);
    if (status !== 0) throw new Error(output);
    const port = run('docker', ['port', name, '9093']).output.trim().split(':').pop();
    base = `http://127.0.0.1:${port}${ALERTMANAGER_PATH}`;
    await eventually(async () => ((await get(`${base}/-/ready`)).status === 200 ? true : undefined));
  }, 60_000);
  afterEach(() => run('docker', ['rm', '--force', '--volumes', name]));

  /**
   * Posts alerts, at least one of which is held back, and waits until Alertmanager has judged all of them, which it does
   * a moment after it shows them: two equal answers in a row. Name -> whether it is held back.
   */
  async function heldBack(alerts: readonly Readonly<Record<string, string>>[]): Promise<Record<string, boolean>> {
    const body = JSON.stringify(alerts.map((labels) => ({ labels: { env: 'staging', ...labels } })));
    const headers = { 'content-type': 'application/json' };
    expect((await get(`${base}/api/v2/alerts`, { method: 'POST', headers, body })).status).toBe(200);
    const key = ({ alertname = '', ...more }: Readonly<Record<string, string>>) =>
      [alertname, more['severity'], more['burn'], more['probe'], more['job'], more['mountpoint']]
        .filter(Boolean)
        .join(' ');
    let before = '';
    return eventually(async () => {
      const posted = (await (await get(`${base}/api/v2/alerts`)).json()) as Posted[];
      if (posted.length < alerts.length || posted.some(({ status }) => status.state === 'unprocessed'))
        return undefined;
      const held = Object.fromEntries(posted.map(({ labels, status }) => [key(labels), status.inhibitedBy.length > 0]));
      const answer = JSON.stringify(held);
      const settled = answer === before && Object.values(held).includes(true);
      before = answer;
      return settled ? held : undefined;
    });
  }

  it('holds back what something worse explains, and nothing else', async () => {
    expect(
      await heldBack([
        { alertname: 'ProbeFailing', severity: 'critical', probe: 'api' },
        { alertname: 'ProbeFailing', severity: 'warning', probe: 'grafana' },
        { alertname: 'SLOErrorBudgetBurn', severity: 'critical', burn: 'fast', slo: 'success', service: 'loans-api' },
        { alertname: 'SLOErrorBudgetBurn', severity: 'critical', burn: 'medium', slo: 'success', service: 'loans-api' },
        { alertname: 'SLOErrorBudgetBurn', severity: 'warning', burn: 'slow', slo: 'success', service: 'loans-api' },
        {
          alertname: 'SLOErrorBudgetBurn',
          severity: 'warning',
          burn: 'very-slow',
          slo: 'latency',
          service: 'loans-api',
        },
        { alertname: 'PostgresLongTransaction', severity: 'warning' },
      ]),
    ).toEqual({
      'ProbeFailing critical api': false,
      'ProbeFailing warning grafana': false,
      'SLOErrorBudgetBurn critical fast': false,
      'SLOErrorBudgetBurn critical medium': true,
      'SLOErrorBudgetBurn warning slow': true,
      'SLOErrorBudgetBurn warning very-slow': false,
      'PostgresLongTransaction warning': false,
    });
  }, 30_000);

  it('names the database when everything fails for want of it', async () => {
    expect(
      await heldBack([
        { alertname: 'PostgresDown', severity: 'critical' },
        { alertname: 'ApiDatabaseAway', severity: 'critical' },
        { alertname: 'ApiErrorRateHigh', severity: 'critical' },
        { alertname: 'ProbeFailing', severity: 'critical', probe: 'database' },
        { alertname: 'SLOErrorBudgetBurn', severity: 'critical', burn: 'fast', slo: 'success', service: 'loans-api' },
        { alertname: 'HostMemoryHigh', severity: 'warning' },
        { alertname: 'PostgresConnectionsHigh', severity: 'warning', env: 'production' },
      ]),
    ).toEqual({
      'PostgresDown critical': false,
      'ApiDatabaseAway critical': true,
      'ApiErrorRateHigh critical': true,
      'ProbeFailing critical database': true,
      'SLOErrorBudgetBurn critical fast': true,
      'HostMemoryHigh warning': false,
      'PostgresConnectionsHigh warning': false,
    });
  }, 30_000);

  it('names the API, or the gateway, and keeps what they do not explain', async () => {
    expect(
      await heldBack([
        { alertname: 'ApiDown', severity: 'critical' },
        { alertname: 'ApiReplicasMissing', severity: 'warning' },
        { alertname: 'TargetDown', severity: 'warning', job: 'api' },
        { alertname: 'TargetDown', severity: 'warning', job: 'host' },
        { alertname: 'ProbeFailing', severity: 'critical', probe: 'api' },
        { alertname: 'PostgresDown', severity: 'critical' },
        { alertname: 'HostFilesystemAlmostFull', severity: 'critical', mountpoint: 'engine', instance: 'h' },
        { alertname: 'HostFilesystemFillingUp', severity: 'warning', mountpoint: 'engine', instance: 'h' },
        { alertname: 'HostFilesystemFillingUp', severity: 'warning', mountpoint: 'database', instance: 'h' },
      ]),
    ).toEqual({
      'ApiDown critical': false,
      'ApiReplicasMissing warning': true,
      'TargetDown warning api': true,
      'TargetDown warning host': false,
      'ProbeFailing critical api': true,
      'PostgresDown critical': false,
      'HostFilesystemAlmostFull critical engine': false,
      'HostFilesystemFillingUp warning engine': true,
      'HostFilesystemFillingUp warning database': false,
    });
  }, 30_000);

  it('reads its configuration again when it is told to, and keeps silences over a restart', async () => {
    const silence = ['silence', 'add', `--alertmanager.url=http://127.0.0.1:9093${ALERTMANAGER_PATH}`];
    const added = run('docker', [
      'exec',
      name,
      'amtool',
      ...silence,
      '--comment=a test',
      '--author=us',
      'alertname=ApiSlow',
    ]);
    expect(added.status).toBe(0);
    run('docker', ['restart', name]);
    const port = run('docker', ['port', name, '9093']).output.trim().split(':').pop();
    base = `http://127.0.0.1:${port}${ALERTMANAGER_PATH}`;
    await eventually(async () => ((await get(`${base}/-/ready`)).status === 200 ? true : undefined));
    expect(await (await get(`${base}/api/v2/silences`)).json()).toMatchObject([{ comment: 'a test' }]);
    writeFileSync(join(directory, 'alertmanager.yml'), renderAlertmanager(NONE, directory));
    expect(run('docker', ['exec', name, 'sh', '-c', 'kill -s HUP 1']).status).toBe(0);
    await eventually(async () => {
      const { config } = (await (await get(`${base}/api/v2/status`)).json()) as { config: { original: string } };
      return config.original.includes('pagerduty_configs') ? undefined : true;
    });
  }, 60_000);
});

/** With an end: Docker's port proxy accepts before anybody listens behind it, and then nothing comes. */
const get = (url: string, init: RequestInit = {}) => fetch(url, { ...init, signal: AbortSignal.timeout(3_000) });

async function eventually<T>(attempt: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    const result = await attempt().catch(() => undefined);
    if (result !== undefined) return result;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error('nothing came in 20 s');
}
