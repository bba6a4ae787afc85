import { StepError } from '../deploy/engine';
import {
  embedded,
  embeddedPorts,
  list,
  missingFor,
  outputsOf,
  pulumi,
  pulumiUp,
  requirePassphrase,
  stackExists,
} from '../operator';
import { remindOfMaintenance } from './maintenance';

/** Makes the environment what its settings say. Other verbs change a setting and then do this. */
export async function up(stack: string): Promise<void> {
  const missing = await missingFor(stack);
  if (missing.length > 0) {
    if (stack !== 'development') {
      throw new StepError(`${stack} runs in containers only, nothing was changed:\n${list(missing)}`);
    }
    await embedded('up', ...embeddedPorts(), ...missing.flatMap((reason) => ['--reason', reason]));
    return;
  }
  requirePassphrase(stack);
  // Its ports are those of the containers to come.
  if (stack === 'development') await embedded('down');
  if (!stackExists(stack)) await pulumi(stack, ['stack', 'init', stack]);
  await pulumiUp(stack);
  printAccess(stack);
  await remindOfMaintenance(stack);
}

/** How to get in, after an `up`; nothing when the stack is not there. */
export function printAccess(stack: string): void {
  const url = outputsOf(stack)?.['url'];
  if (typeof url !== 'string') return;
  const secret = (name: string) => `pulumi stack output ${name} --show-secrets -s ${stack}`;
  const environment = stack === 'development' ? 'PULUMI_CONFIG_PASSPHRASE= ' : '';
  console.log(`
${stack} is up:
  API          ${url}/api/loans        health ${url}/health        documents ${url}/docs
  Grafana      ${url}/grafana/         user admin, password: ${environment}${secret('grafanaPassword')}
  Prometheus   ${url}/prometheus/      user admin, password: ${environment}${secret('prometheusPassword')}
  alerts       make alerts STACK=${stack}, or ${url}/alertmanager/ with Prometheus' password
  keys         make api-key STACK=${stack} NAME=desk SCOPES=loans:read,loans:write
  trust        curl --cacert ssl/ca.pem ${url}/health (unless the certificate is your own)
`);
}
