import { docker, indent, StepError, tryDocker } from '../deploy/engine';
import { prefixOf, useEngineOf } from '../operator';
import { MAINTENANCE_FLAG, MAINTENANCE_PROBLEM, OPERATOR_FIELD, RETRY_AFTER_SECONDS } from '../ops/maintenance';

/**
 * Closes the entrance of an environment, opens it, or says which it is. Only a file in the volume of the gateway's
 * files changes (see ops/maintenance.ts): no Pulumi and no state is needed, and no deploy opens or closes anything.
 * @param args `on`, `off` or nothing
 * @throws StepError when there is no gateway, or it goes on serving
 */
export async function maintenance(stack: string, args: readonly string[]): Promise<void> {
  const [wanted = 'ask', ...more] = args;
  if (!isWish(wanted) || more.length > 0) {
    throw new StepError(
      `Say ON=1 or OFF=1, or nothing to be told which it is: make maintenance STACK=${stack} ON=1. Nothing was changed`,
    );
  }
  const gateway = await gatewayOf(stack);
  const before = await flag(gateway, wanted);
  if (wanted === 'off') {
    console.log(before === 'closed' ? `${stack} is open again.` : `${stack} was open already.`);
    return;
  }
  if (wanted === 'ask' && before === 'open') {
    console.log(`${stack} is open. To close it: make maintenance STACK=${stack} ON=1`);
    return;
  }
  if (wanted === 'on' && gateway.running) await confirmClosed(stack, gateway);
  console.log(closedText(stack, gateway));
}

/** A line for whoever looks at the environment otherwise; nothing where it is open or there is none. */
export async function remindOfMaintenance(stack: string): Promise<void> {
  const state = await gatewayOf(stack)
    .then((gateway) => flag(gateway, 'ask'))
    .catch(() => 'open');
  if (state === 'closed') console.log(`${stack} is CLOSED for maintenance: make maintenance STACK=${stack} OFF=1\n`);
}

type Wish = 'on' | 'off' | 'ask';

function isWish(word: string): word is Wish {
  return ['on', 'off', 'ask'].includes(word);
}

interface Gateway {
  readonly name: string;
  readonly running: boolean;
  readonly image: string;
  readonly volume: string;
}

interface Inspected {
  readonly Image: string;
  readonly State: { readonly Running: boolean };
  readonly Mounts: readonly { readonly Type: string; readonly Name?: string }[];
}

async function gatewayOf(stack: string): Promise<Gateway> {
  useEngineOf(stack);
  const name = `${prefixOf(stack)}-gateway`;
  const { code, stdout, stderr } = await tryDocker(['inspect', '--type', 'container', name]);
  if (code !== 0 && !/no such/i.test(stderr)) throw new StepError(`Looking for ${name} failed:\n${indent(stderr)}`);
  const [found] = code === 0 ? (JSON.parse(stdout) as Inspected[]) : [];
  const volume = found?.Mounts.find(({ Type }) => Type === 'volume')?.Name;
  if (found === undefined || volume === undefined) {
    throw new StepError(
      `${stack} has no gateway here (no container ${name}), nothing was changed: it is not up, or it runs without ` +
        'containers, where nothing stands before the API',
    );
  }
  return { name, running: found.State.Running, image: found.Image, volume };
}

const SCRIPT = `was=open
if [ -f "$1" ]; then was=closed; fi
case "$2" in on) : > "$1" ;; off) rm -f "$1" ;; esac
echo "$was"`;

/** The gateway itself may only read its files, so a helper of the same image looks, and writes. */
async function flag({ image, volume }: Gateway, wish: Wish): Promise<'open' | 'closed'> {
  const was = await docker(
    `Looking after ${MAINTENANCE_FLAG} in the volume ${volume}`,
    ['run', '--rm', '--network', 'none', '--read-only', '--user', '0:0', '--cap-drop', 'ALL']
      .concat(['--security-opt', 'no-new-privileges:true'])
      .concat(['--volume', `${volume}:/files${wish === 'ask' ? ':ro' : ''}`])
      .concat(['--entrypoint', 'sh', image, '-e', '-c', SCRIPT, 'sh', `/files/${MAINTENANCE_FLAG}`, wish]),
  );
  return was.trim() === 'closed' ? 'closed' : 'open';
}

/** A gateway whose configuration is older than this program does not look for the file. */
async function confirmClosed(stack: string, gateway: Gateway): Promise<void> {
  const ask = ['curl', '--silent', '--insecure', '--max-time', '10', '--header', 'Accept: application/json'];
  const { stdout, stderr } = await tryDocker(['exec', gateway.name, ...ask, 'https://127.0.0.1:8443/']);
  if (stdout.includes(`"${MAINTENANCE_PROBLEM.type}"`)) return;
  await flag(gateway, 'off');
  throw new StepError(
    `${gateway.name} goes on serving, so ${stack} was left open. Bring its configuration up to date first ` +
      `(make up STACK=${stack}). It answered:\n${indent(stdout + stderr || '(nothing)')}`,
  );
}

function closedText(stack: string, { name, running }: Gateway): string {
  const environment = stack === 'development' ? 'PULUMI_CONFIG_PASSPHRASE= ' : '';
  return `${stack} is closed: every request gets 503 with Retry-After: ${RETRY_AFTER_SECONDS}.${
    running ? '' : `\n${name} does not run: it will be closed when it starts.`
  }
  pass        health checks, /grafana/, /prometheus/, and requests with the operators' token:
              curl -H "${OPERATOR_FIELD}: $(${environment}pulumi stack output operatorToken --show-secrets -s ${stack})" …
  open again  make maintenance STACK=${stack} OFF=1`;
}
