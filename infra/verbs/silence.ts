import { userInfo } from 'node:os';
import { docker, StepError } from '../deploy/engine';
import { ALERTMANAGER_PATH, ALERTMANAGER_PORT } from '../ops/alertmanager';
import { running } from './alerts';

/**
 * Tells nobody of an alert for a while, ends that, or lists what is silenced. By amtool in Alertmanager's container, so
 * it needs no password; kept in Alertmanager's volume, so deploys and restarts end no silence.
 * @param args `--alert name --for 2h --why text`, `--end id`, or nothing
 */
export async function silence(stack: string, args: readonly string[]): Promise<void> {
  const { command, done } = silenceCommand(stack, args, userInfo().username);
  const container = await running(stack, 'alertmanager');
  const url = `--alertmanager.url=http://127.0.0.1:${ALERTMANAGER_PORT}${ALERTMANAGER_PATH}`;
  const said = (await docker('Asking Alertmanager', ['exec', container, 'amtool', 'silence', ...command, url])).trim();
  console.log(done(said));
}

interface Order {
  readonly command: readonly string[];
  readonly done: (said: string) => string;
}

/** What amtool is told. @throws StepError where something is missing: a silence without end or reason is forgotten */
export function silenceCommand(stack: string, args: readonly string[], author: string): Order {
  if (args.length === 0) return { command: ['query'], done: (said) => said || `${stack}: nothing is silenced.` };
  const given = Object.fromEntries(
    args.flatMap((arg, index) => (arg.startsWith('--') ? [[arg.slice(2), args[index + 1] ?? '']] : [])),
  );
  const { alert = '', for: duration = '', why = '', end = '', ...unknown } = given;
  const ends = end !== '' && args.length === 2;
  const begins = end === '' && /^\w+$/.test(alert) && /^[1-9]\d*[mhd]$/.test(duration) && why.trim() !== '';
  if (Object.keys(unknown).length > 0 || !(ends || begins)) throw new StepError(help(stack));
  if (ends) return { command: ['expire', end], done: () => `${end} has ended.` };
  // Amtool knows no days.
  const hours = duration.endsWith('d') ? `${Number.parseInt(duration, 10) * 24}h` : duration;
  const command = ['add', `--author=${author}`, `--comment=${why}`, `--duration=${hours}`, `alertname=${alert}`];
  return {
    command,
    done: (id) => `Nobody is told of ${alert} for ${duration}. To end it: make silence STACK=${stack} END=${id}`,
  };
}

const help = (stack: string) => `Say which alert, for how long and why; nothing was changed:
  make silence STACK=${stack} ALERT=ApiSlow FOR=2h WHY='import of March'   FOR: minutes, hours or days (30m, 2h, 7d)
  make silence STACK=${stack}                                             what is silenced
  make silence STACK=${stack} END=<id>                                    end one`;
