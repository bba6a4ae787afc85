import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { CertificateError, isIssuedHere, readCertificate } from '../../ssl/certificates';
import { StepError } from '../deploy/engine';
import { queryPrometheus } from '../deploy/prometheus';
import type { EnvironmentSpec } from '../environment';
import { isHeard } from '../ops/alertmanager';
import {
  backendKeepsSecrets,
  environmentOf,
  imagesFor,
  missingTools,
  prefixOf,
  requirePassphrase,
  ROOT,
  settingsOf,
  stackExists,
} from '../operator';
import {
  type Check,
  checkAlerts,
  checkCertificate,
  checkClock,
  checkDrift,
  checkImages,
  checkPending,
  checkReceivers,
  checkSecrets,
  checkSettings,
  describeReadiness,
} from '../ops/readiness';
import { alertWarnings, preflight } from '../preflight';
import { compared } from './drift';
import { planned } from './preview';
import { answering } from './smoke';

/**
 * `make readiness`: is the stack ready for production? What other verbs and the program itself check is asked of them,
 * and what the settings tell is added. Changes nothing; exit code 1 when a check fails.
 */
export async function readiness(stack: string): Promise<void> {
  const checks = await checksOf(stack);
  console.log(describeReadiness(stack, checks));
  if (checks.some(({ verdict }) => verdict === 'fail')) process.exitCode = 1;
}

async function checksOf(stack: string): Promise<Check[]> {
  let spec: EnvironmentSpec;
  try {
    spec = environmentOf(stack);
  } catch (error) {
    return [failed('settings', error, `Pulumi.${stack}.yaml`)];
  }
  return [
    ...checkSettings(spec),
    checkReceivers(spec),
    checkImages(imagesFor(settingsOf(stack))),
    checkSecrets(stack, readFileSync(resolve(ROOT, `Pulumi.${stack}.yaml`), 'utf8'), backendKeepsSecrets()),
    ...(await checksOfEngine(stack, spec)),
    // After the program, which makes or renews it.
    ...(await tried('certificate', 'ssl/README.md', () => certificateOf(spec))),
  ];
}

function certificateOf(spec: EnvironmentSpec): Check[] {
  const { domain, url, gateway } = spec;
  const own = gateway.certificate;
  const { certificate, notAfter } = readCertificate({
    certificateFile: resolve(ROOT, own?.certificateFile ?? `ssl/${domain}.pem`),
    keyFile: resolve(ROOT, own?.keyFile ?? `ssl/${domain}.key`),
    domain: own === undefined ? domain : new URL(url).hostname,
  });
  return checkCertificate(spec, { notAfter, isOwn: isIssuedHere(certificate) }, new Date());
}

async function checksOfEngine(stack: string, spec: EnvironmentSpec): Promise<Check[]> {
  const missing = await missingTools(stack);
  if (missing.length > 0) {
    return [{ name: 'engine', verdict: 'fail', says: missing.join('\n'), remedy: 'as each line says' }];
  }
  const engine = await tried('engine', 'as it says', async () => {
    const { warnings } = await preflight(spec, process.env['DOCKER_HOST']);
    // That nobody is told is a check of the settings already.
    const said = isHeard(spec.alerts.receivers) ? [] : alertWarnings(spec);
    const others = warnings.filter((warning) => !said.includes(warning));
    if (others.length === 0)
      return [{ name: 'engine', verdict: 'ok', says: 'it answers, and the ports are free or ours' }];
    return others.map((says) => ({ name: 'engine', verdict: 'warn', says }));
  });
  const key = await tried('passphrase', 'as it says', () => {
    requirePassphrase(stack);
    return [];
  });
  if (key.length > 0) return [...engine, ...key];
  if (!stackExists(stack)) {
    const says = `${stack} was never up here: what would run was not looked at`;
    return [...engine, { name: 'deployed', verdict: 'fail', says, remedy: `make up STACK=${stack}` }];
  }
  // One after the other: each asks for the same lock.
  return [
    ...engine,
    ...(await tried('deployed', `make preview STACK=${stack}`, async () => [
      checkPending(stack, (await planned(stack)).changes),
    ])),
    ...(await tried('drift', `make drift STACK=${stack}`, async () => {
      const { unfinished, findings } = await compared(stack);
      return [checkDrift(stack, [...unfinished, ...findings.map(({ what }) => what)])];
    })),
    ...(await tried('entrance', `make smoke STACK=${stack}`, async () => [
      { name: 'entrance', verdict: 'ok', says: await answering(stack) },
    ])),
    ...(await tried('alerts', `make alerts STACK=${stack}`, async () => {
      const states = await queryPrometheus(`${prefixOf(stack)}-prometheus`, 'ALERTS');
      return [...checkAlerts(stack, states), checkClock(spec.exporters, states)];
    })),
  ];
}

/** What cannot be checked is not right. */
async function tried(name: string, remedy: string, work: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await work();
  } catch (error) {
    return [failed(name, error, remedy)];
  }
}

/** @throws what is no failure that an operator can read */
function failed(name: string, error: unknown, remedy: string): Check {
  if (!(error instanceof StepError || error instanceof CertificateError)) throw error;
  return { name, verdict: 'fail', says: error.message, remedy };
}
