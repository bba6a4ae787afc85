import { StepError } from '../deploy/engine';
import { type Deployment, readDeployment } from '../drift';
import { list, missingFor, prefixOf, pulumiOutput, pulumiUp, requirePassphrase, stackExists } from '../operator';
import { readUrn } from '../plan';

/** Secrets that the program makes where the settings have none -> what is behind the prefix in their resources' names. */
export const GENERATED = {
  databasePassword: 'database-password',
  /** Of the role that owns the database: only migrations log in with it. */
  databaseOwnerPassword: 'database-owner-password',
  prometheusPassword: 'prometheus-password',
  grafanaPassword: 'grafana-password',
  /** Signs Grafana's sessions: everybody signs in again. */
  grafanaKey: 'grafana-key',
  operatorToken: 'gateway-operator-token',
  exporterPassword: 'postgres-exporter-password',
} as const;

/**
 * `make rotate`: an ordinary `up` in which one generated secret is made anew, and all who use it get it.
 * @throws StepError when there is no such secret, or it was set by hand
 */
export async function rotate(stack: string, [secret = '']: readonly string[]): Promise<void> {
  if (!Object.hasOwn(GENERATED, secret)) {
    throw new StepError(`Say which secret: make rotate STACK=${stack} SECRET=${Object.keys(GENERATED).join('|')}`);
  }
  const missing = await missingFor(stack);
  if (missing.length > 0) throw new StepError(`${stack} cannot be changed from here:\n${list(missing)}`);
  if (!stackExists(stack)) throw new StepError(`${stack} was never up here: make up STACK=${stack}`);
  requirePassphrase(stack);
  const { code, stdout, stderr } = await pulumiOutput(stack, ['stack', 'export', '-s', stack]);
  if (code !== 0) throw new StepError(`The state of ${stack} cannot be read:\n${stderr.trim()}`);
  const name = `${prefixOf(stack)}-${GENERATED[secret as keyof typeof GENERATED]}`;
  const urn = urnOf(readDeployment(stdout), name);
  if (urn === undefined) {
    throw new StepError(
      `${stack} did not make its ${secret}, nothing was changed. If the settings have it, set another one and deploy it: ` +
        `pulumi config set --secret ${secret} -s ${stack}, then make up STACK=${stack}`,
    );
  }
  await pulumiUp(stack, ['--replace', urn]);
  console.log(`${stack} has a new ${secret}; the old one opens nothing any more.`);
}

/** @returns the resource of that name; undefined where the stack has none */
export function urnOf({ resources = [] }: Deployment, name: string): string | undefined {
  return resources.find(({ urn }) => readUrn(urn).name === name)?.urn;
}
