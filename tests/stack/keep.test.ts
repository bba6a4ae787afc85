import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import images from '../../infra/images.json';
import { LABEL } from '../../infra/labels';
import { renderUpstream } from '../../infra/ops/nginx';
import { keepRunning } from '../../infra/verbs/keep';
import { describeUnless } from '../skip';
import { crash, docker, reasonWithoutEngine } from './environment';

/** What the keeper and a real engine do together; with containers that only wait, in place of a stack. */

jest.setTimeout(120_000);

describeUnless(reasonWithoutEngine(), 'the keeper on a real engine', () => {
  const prefix = `bl-keep-${randomBytes(4).toString('hex')}`;
  const api = `${prefix}-api-1-9f3c2ab`;
  const candidate = `${prefix}-api-1-0000000`;
  const gateway = `${prefix}-gateway`;
  const step = `${prefix}-migrate`;
  let said: string[] = [];
  let end = new AbortController();
  let kept: Promise<void> = Promise.resolve();

  const start = (name: string, component: string, ...further: string[]) =>
    docker([
      ...['run', '--detach', '--name', name, '--network', 'none', '--init', '--stop-timeout', '1'],
      ...['--label', `${LABEL}.environment=${prefix}`, '--label', `${LABEL}.component=${component}`],
      ...further,
      ...['--entrypoint', 'sh', images.nginx, '-c'],
      `mkdir -p /etc/branchloans/current && printf '%s' "$1" > /etc/branchloans/current/upstream.conf; trap : HUP; while :; do sleep 1; done`,
      ...['sh', renderUpstream([api])],
    ]);
  const status = (name: string) => docker(['inspect', '--format', '{{.State.Status}}', name]).trim();
  const runs = async (name: string) => {
    const deadline = Date.now() + 30_000;
    while (status(name) !== 'running') {
      if (Date.now() > deadline) throw new Error(`${name} was not started:\n${said.join('\n')}`);
      await sleep(100);
    }
  };
  /** Ends the keeper, and returns what it said. */
  const finish = async () => {
    end.abort();
    await kept;
    return said;
  };
  const begin = () => {
    said = [];
    end = new AbortController();
    kept = keepRunning(prefix, end.signal, (sentence) => said.push(sentence));
  };

  beforeAll(() => {
    for (const [name, component] of [
      [gateway, 'gateway'],
      [api, 'api'],
      [candidate, 'api'],
    ] as const) {
      start(name, component, '--restart', 'unless-stopped');
    }
    start(step, 'migrate');
  });
  beforeEach(begin);
  afterEach(finish);
  afterAll(() => docker(['rm', '--force', gateway, api, candidate, step]));

  it('starts again what was killed through the engine, which the engine does not', async () => {
    docker(['kill', api]);
    expect(status(api)).toBe('exited');
    await runs(api);
    expect(await finish()).toEqual([`${api} was killed: started again.`]);
  });

  it('starts the gateway first, and then what the gateway names', async () => {
    docker(['kill', api, gateway]);
    await runs(gateway);
    await runs(api);
    expect(await finish()).toEqual([`${gateway} was killed: started again.`, `${api} was killed: started again.`]);
  });

  it('leaves a crash to the engine, and starts what the engine gives up since it was sent a signal before', async () => {
    crash(api);
    await runs(api);
    // Not a word of the first one.
    docker(['kill', '--signal', 'HUP', gateway]);
    crash(gateway);
    await sleep(200);
    await runs(gateway);
    expect(await finish()).toEqual([`${gateway} ended with exit code 137: started again.`]);
  });

  it('leaves alone what was stopped, what the gateway does not name, and the steps of a deploy', async () => {
    docker(['kill', candidate, step]);
    docker(['stop', api]);
    await sleep(8_000);
    expect([candidate, step, api].map(status)).toEqual(['exited', 'exited', 'exited']);
    expect(await finish()).toEqual([
      `${api} was asked to stop: left alone until somebody starts it (docker start ${api}) or a deploy replaces it.`,
    ]);
    docker(['start', api]);
  });

  it('does what is to be done when it begins, by what the engine remembers', async () => {
    await finish();
    docker(['kill', api]);
    docker(['stop', gateway]);
    begin();
    await sleep(8_000);
    // Without the gateway nobody knows whether the other one is of use.
    expect([api, gateway].map(status)).toEqual(['exited', 'exited']);
    docker(['start', gateway]);
    await runs(api);
  });
});
