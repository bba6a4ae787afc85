import { resolve } from 'node:path';
import { CertificateError } from '../../ssl/certificates';
import { reasonOf, trustedAuthorities } from '../../ssl/trust';
import { StepError } from '../deploy/engine';
import { passingKey } from '../deploy/smoke';
import type { EnvironmentSpec } from '../environment';
import { environmentOf, apiContainer, ROOT } from '../operator';
import { type Answer, ask, type Target } from './load';

/** The public entrance of a stack, for whoever asks there or puts a load upon it. */

const KEY_COMMAND = ['node', '/app/main.js', 'api-key'];
const KEY = { name: 'load', purpose: 'the load' };

/**
 * Production has real borrowers: whoever means it says its name.
 * @param what would happen there, for the message
 * @throws StepError
 */
export function requireConfirmation(stack: string, verb: string, what: string): void {
  if (stack !== 'production' || process.env['CONFIRM'] === stack) return;
  throw new StepError(
    `This would ${what} of production, nothing was done. If that is wanted: make ${verb} STACK=production CONFIRM=production`,
  );
}

/**
 * Does `work` with the entrance, and with an API key of its own where the stack wants one; the key is revoked afterwards.
 * @throws StepError when nothing answers there
 */
export async function withEntrance<T>(stack: string, work: (target: Target) => Promise<T>): Promise<T> {
  const environment = environmentOf(stack);
  const { url, api } = environment;
  const authority = authorityOf(environment);
  await requireAnswer(stack, url, authority);
  const container = api.keys === 'required' ? await apiContainer(stack) : undefined;
  if (api.keys === 'required' && container === undefined) {
    throw new StepError(`${stack} wants an API key, and none can be made: no API container of it runs on this engine`);
  }
  if (container === undefined) return work({ url, authority, key: undefined });
  const key = passingKey(container, KEY_COMMAND, KEY);
  try {
    return await work({ url, authority, key: await key.text() });
  } finally {
    await key.revoke();
  }
}

/** PEM of the authorities that may vouch for who answers there. @throws StepError where a file of them is wrong */
export function authorityOf({ domain, gateway }: Pick<EnvironmentSpec, 'domain' | 'gateway'>): string {
  const directory = resolve(ROOT, 'ssl');
  const certificateFile = resolve(ROOT, gateway.certificate?.certificateFile ?? `ssl/${domain}.pem`);
  try {
    return trustedAuthorities({ directory, certificateFile });
  } catch (error) {
    throw error instanceof CertificateError ? new StepError(error.message) : error;
  }
}

async function requireAnswer(stack: string, url: string, authority: string): Promise<void> {
  const answer = await ask(`${url}/health/ready`, authority).catch((error: unknown) => error as Error);
  if (!(answer instanceof Error) && answer.status === 200) return;
  const said = answer instanceof Error ? reasonOf(answer) : wordsOf(answer);
  throw new StepError(
    `${stack} is not ready at ${url}, nothing was done: ${said}\nWhat is wrong: make status STACK=${stack}`,
  );
}

const wordsOf = ({ status, body }: Answer) => `it answers ${status} ${body.slice(0, 200)}`;
