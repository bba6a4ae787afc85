import { StepError, tryDocker } from '../deploy/engine';
import { queryPrometheus, type Sample } from '../deploy/prometheus';
import { environmentOf, list, prefixOf, useEngineOf } from '../operator';
import { isHeard } from '../ops/alertmanager';

/**
 * What Prometheus says now: alerts that fire, and those that will if it stays so; worst first, with their pages. Asked
 * through the engine, so it works without the gateway, and without Alertmanager.
 */
export async function alerts(stack: string): Promise<void> {
  const container = await running(stack, 'prometheus');
  const [states, since] = await Promise.all([
    queryPrometheus(container, 'ALERTS'),
    queryPrometheus(container, 'ALERTS_FOR_STATE'),
  ]);
  const { alerts: settings } = environmentOf(stack);
  console.log(describeAlerts(stack, states, since, settings.runbooks, Date.now() / 1_000));
  if (!isHeard(settings.receivers)) console.log('\nNobody is told of them: see README, Alerts.');
}

/** @returns the name of the stack's container. @throws StepError when it does not run */
export async function running(stack: string, component: string): Promise<string> {
  useEngineOf(stack);
  const container = `${prefixOf(stack)}-${component}`;
  const { code, stdout } = await tryDocker(['inspect', '--format', '{{.State.Running}}', container]);
  if (code === 0 && stdout.trim() === 'true') return container;
  throw new StepError(`${container} does not run here: make status STACK=${stack}, make up STACK=${stack}`);
}

const RANKS: readonly string[] = ['critical', 'warning', 'info', 'none'];
/** What says nothing to somebody who looks. */
const FURNITURE: readonly string[] = ['Watchdog', 'InfoInhibitor'];
const HIDDEN: readonly string[] = ['__name__', 'alertname', 'alertstate', 'severity', 'env', 'service'];

/**
 * @param states series of ALERTS
 * @param since series of ALERTS_FOR_STATE: when each became true, in seconds since 1970
 */
export function describeAlerts(
  stack: string,
  states: readonly Sample[],
  since: readonly Sample[],
  runbooks: string,
  now: number,
): string {
  const key = (labels: Sample['labels']) =>
    JSON.stringify(
      Object.entries(labels)
        .filter(([name]) => !['__name__', 'alertstate'].includes(name))
        .sort(),
    );
  const began = new Map(since.map(({ labels, value }) => [key(labels), value]));
  const told = states
    .filter(({ labels }) => !FURNITURE.includes(labels['alertname'] ?? ''))
    .map(({ labels }) => ({
      labels,
      rank: RANKS.indexOf(labels['severity'] ?? ''),
      seconds: now - (began.get(key(labels)) ?? now),
    }))
    .sort((a, b) => stateOf(a.labels) - stateOf(b.labels) || a.rank - b.rank || b.seconds - a.seconds);
  const watched = states.some(({ labels }) => labels['alertname'] === 'Watchdog');
  const head = watched
    ? []
    : [`${stack}: the Watchdog does not fire, so the rules are not evaluated: ${runbooks}Watchdog.md`];
  if (told.length === 0)
    return [...head, `${stack}: no alert${watched ? ', and the watchdog is awake' : ''}.`].join('\n');
  const lines = told.map(({ labels, seconds }) => {
    const more = Object.entries(labels)
      .filter(([name]) => !HIDDEN.includes(name))
      .map(([name, value]) => `${name}=${value}`);
    return (
      `${labels['alertstate']} ${labels['severity']} ${labels['alertname']} for ${ago(seconds)}` +
      `${more.length === 0 ? '' : ` (${more.join(', ')})`}: ${runbooks}${labels['alertname']}.md`
    );
  });
  return [...head, `${stack}:`, list(lines)].join('\n');
}

function stateOf(labels: Sample['labels']): number {
  return labels['alertstate'] === 'firing' ? 0 : 1;
}

function ago(seconds: number): string {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}
