import { describeAlerts } from './alerts';
import { silenceCommand } from './silence';

const alert = (alertname: string, severity: string, alertstate = 'firing', more: Record<string, string> = {}) => ({
  labels: { __name__: 'ALERTS', alertname, severity, alertstate, env: 'staging', ...more },
  value: 1,
});
const since = ({ labels }: ReturnType<typeof alert>, value: number) => ({
  labels: Object.fromEntries(
    Object.entries({ ...labels, __name__: 'ALERTS_FOR_STATE' }).filter(([name]) => name !== 'alertstate'),
  ),
  value,
});
const WATCHDOG = alert('Watchdog', 'none');

describe('make alerts', () => {
  it('lists what fires before what may, and worse things first', () => {
    const slow = alert('ApiSlow', 'warning');
    const down = alert('TargetDown', 'warning', 'firing', { job: 'host' });
    const away = alert('ApiDatabaseAway', 'critical', 'pending');
    const burn = alert('SLOErrorBudgetBurn', 'critical', 'firing', {
      slo: 'success',
      burn: 'fast',
      service: 'loans-api',
    });
    const all = [slow, WATCHDOG, away, burn, down];
    const began = [since(slow, 940), since(burn, 400), since(down, -9_000), since(away, 990)];
    expect(describeAlerts('staging', all, began, 'docs/runbooks/', 1_000)).toBe(
      `staging:
  - firing critical SLOErrorBudgetBurn for 10 min (slo=success, burn=fast): docs/runbooks/SLOErrorBudgetBurn.md
  - firing warning TargetDown for 3 h (job=host): docs/runbooks/TargetDown.md
  - firing warning ApiSlow for 60 s: docs/runbooks/ApiSlow.md
  - pending critical ApiDatabaseAway for 10 s: docs/runbooks/ApiDatabaseAway.md`,
    );
  });

  it('says that all is well only when the rules are evaluated', () => {
    expect(describeAlerts('staging', [WATCHDOG], [], 'x/', 0)).toBe('staging: no alert, and the watchdog is awake.');
    expect(describeAlerts('staging', [], [], 'x/', 0)).toMatch(
      /Watchdog does not fire.*x\/Watchdog\.md\nstaging: no alert\.$/,
    );
  });
});

describe('make silence', () => {
  it.each([
    [['--alert', 'ApiSlow', '--for', '2h', '--why', 'an import'], '2h'],
    [['--alert', 'ApiSlow', '--for', '7d', '--why', 'an import'], '168h'],
  ])('%j', (args, duration) => {
    const { command, done } = silenceCommand('staging', args, 'ann');
    const wanted = ['add', '--author=ann', '--comment=an import', `--duration=${duration}`, 'alertname=ApiSlow'];
    expect(command).toEqual(wanted);
    expect(done('1-2')).toContain('make silence STACK=staging END=1-2');
  });

  it('ends one, and lists them', () => {
    expect(silenceCommand('staging', ['--end', '1-2'], 'ann').command).toEqual(['expire', '1-2']);
    const { command, done } = silenceCommand('staging', [], 'ann');
    expect([command, done('')]).toEqual([['query'], 'staging: nothing is silenced.']);
  });

  it.each([
    [['--alert', 'ApiSlow']],
    [['--alert', 'ApiSlow', '--for', '2h']],
    [['--alert', 'ApiSlow', '--for', 'ever', '--why', 'x']],
    [['--alert', 'a=~".*"', '--for', '2h', '--why', 'x']],
    [['--alert', 'ApiSlow', '--for', '2h', '--why', 'x', '--end', '1']],
  ])('refuses %j', (args) => {
    expect(() => silenceCommand('staging', args, 'ann')).toThrow(/nothing was changed/);
  });
});
