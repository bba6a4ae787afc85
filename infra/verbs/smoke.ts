import { request } from 'node:https';
import { reasonOf, trusting } from '../../ssl/trust';
import { StepError } from '../deploy/engine';
import { authorityOf } from '../load/entrance';
import { environmentOf, list, outputsOf } from '../operator';

const PATHS = ['/health/live', '/health/ready', '/api/status'];
const TRIES = 5;

/**
 * Asks the environment as its users do: from this machine, by its name, through TLS and the gateway. The smoke test of a
 * deploy asks from inside the gateway; this one also sees DNS, the network and a firewall.
 */
export async function smoke(stack: string): Promise<void> {
  console.log(await answering(stack));
}

/** @returns a sentence. @throws StepError with what does not answer, and how */
export async function answering(stack: string): Promise<string> {
  const url = outputsOf(stack)?.['url'];
  if (typeof url !== 'string') throw new StepError(`${stack} was never up here: make up STACK=${stack}`);
  const authority = authorityOf(environmentOf(stack));
  const faults: string[] = [];
  for (const path of PATHS) {
    const fault = await faultOf(new URL(path, url), authority);
    if (fault !== undefined) faults.push(`${path}: ${fault}`);
  }
  if (faults.length > 0) throw new StepError(`${stack} does not answer at ${url}:\n${list(faults)}`);
  return `${stack} answers at ${url}: ${PATHS.join(', ')}.`;
}

/** What is wrong with the answer, after some tries; undefined when it is 200. */
async function faultOf(url: URL, authority: string): Promise<string | undefined> {
  let fault: string | undefined;
  for (let tried = 0; tried < TRIES; tried++) {
    if (tried > 0) await new Promise((done) => setTimeout(done, 1_000));
    fault = await asked(url, authority);
    if (fault === undefined) return undefined;
  }
  return fault;
}

function asked(url: URL, authority: string): Promise<string | undefined> {
  return new Promise((done) => {
    const call = request(url, { ...trusting(authority), timeout: 5_000, agent: false }, (answer) => {
      answer.resume();
      done(answer.statusCode === 200 ? undefined : `answers ${answer.statusCode ?? 'nothing'}`);
    });
    call.on('timeout', () => call.destroy(new Error('no answer in 5 s')));
    call.on('error', (error) => done(reasonOf(error)));
    call.end();
  });
}
