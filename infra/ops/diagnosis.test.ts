import fc from 'fast-check';
import { diagnose, type Engine, type EngineContainer, type State, type StateResource, stepsAmong } from './diagnosis';

const PREFIX = 'env';
const CONTAINER = 'docker:index/container:Container';
const urn = (name: string) => `urn:pulumi:staging::branchloans::${name}`;
const resource = (name: string, id: string, type = CONTAINER): StateResource => ({ urn: urn(name), id, type });
const step = (name: string): StateResource => ({
  ...resource(name, name, 'command:local:Command'),
  inputs: { create: `node --import tsx deploy/main.ts gate ${name}` },
});
const container = (name: string, change: Partial<EngineContainer> = {}): EngineContainer => ({
  id: `id of ${name}`,
  name,
  status: 'running',
  environment: PREFIX,
  oneShot: false,
  ...change,
});
const engine = (containers: EngineContainer[], serving: string[] | undefined = []): Engine => ({
  containers,
  networks: [{ id: 'front', name: 'env-front' }],
  serving,
});
const state = (...resources: StateResource[]): State => ({
  resources: [resource('env-front', 'front', 'docker:index/network:Network'), ...resources],
});
const found = (diagnosis: ReturnType<typeof diagnose>) =>
  Object.fromEntries(Object.entries(diagnosis).filter(([, list]) => list.length > 0));

describe('what a deploy has left', () => {
  it('is nothing where state and engine agree', () => {
    const running = ['env-gateway', 'env-api-1-ab12'].map((name) => container(name));
    const known = running.map(({ name, id }) => resource(name, id));
    expect(found(diagnose(state(...known), engine(running), PREFIX))).toEqual({});
    expect(found(diagnose({}, { containers: [], networks: [], serving: [] }, PREFIX))).toEqual({});
  });

  it('are containers that the state does not know; others of the engine are none of ours', () => {
    const half = container('env-database', { status: 'created' });
    const api = container('env-api-1-cd34');
    const others = [container('theirs', { environment: '' }), container('env-2-api', { environment: 'env-2' })];
    expect(found(diagnose(state(), engine([half, api, ...others]), PREFIX))).toEqual({ strays: [half, api] });
  });

  it('leaves alone what the gateway sends traffic to, and everything of the API when it does not say', () => {
    const api = container('env-api-1-cd34');
    const grafana = container('env-grafana');
    expect(found(diagnose(state(), engine([api, grafana], ['env-api-1-cd34']), PREFIX))).toEqual({
      serving: [api],
      strays: [grafana],
    });
    const silent = { ...engine([api, grafana]), serving: undefined };
    expect(found(diagnose(state(), silent, PREFIX))).toEqual({ serving: [api], strays: [grafana] });
  });

  it('are one-shot containers: waited for while they run', () => {
    const migrate = container('eager_curie', { oneShot: true });
    expect(found(diagnose(state(), engine([migrate]), PREFIX))).toEqual({ running: [migrate] });
  });

  it('is a second network of the same name', () => {
    const networks = [
      { id: 'front', name: 'env-front' },
      { id: 'second', name: 'env-front' },
      { id: 'x', name: 'env-front-of-somebody' },
    ];
    expect(found(diagnose(state(), { containers: [], networks, serving: [] }, PREFIX))).toEqual({
      networks: [networks[1]],
    });
  });

  it('is a state that speaks of what is gone, or does not run', () => {
    const stopped = container('env-gateway', { status: 'exited' });
    expect(
      diagnose(state(resource('env-gateway', stopped.id), resource('env-api-1', 'gone')), engine([stopped]), PREFIX)
        .stale,
    ).toEqual(['env-gateway does not run (exited)', 'env-api-1 is in the state, but not on the engine']);
  });

  it('is what Pulumi had begun; a step of it is run again, a secret is not made again', () => {
    const secret = { ...resource('password', 'p', 'command:local:Command'), inputs: { create: 'node -p random' } };
    const pending_operations = [
      { type: 'updating', resource: step('env-files-publish') },
      { type: 'creating', resource: step('env-api-gate') },
      { type: 'updating', resource: secret },
    ];
    expect(
      diagnose({ ...state(step('env-files-publish'), secret), pending_operations }, engine([]), PREFIX),
    ).toMatchObject({
      stale: [
        'env-files-publish was interrupted while updating',
        'env-api-gate was interrupted while creating',
        'password was interrupted while updating',
      ],
      // The gate is not in the state: it is made anew anyway.
      halfDone: [urn('env-files-publish')],
    });
  });

  it('is nothing of ours where the state knows none of what runs: it belongs to another state', () => {
    const running = [container('env-gateway'), container('env-database')];
    for (const empty of [{}, { resources: [resource('env-gateway', 'of another engine')] }]) {
      const diagnosis = diagnose(empty, engine(running), PREFIX);
      expect(diagnosis).toMatchObject({ foreign: running, strays: [], networks: [], serving: [] });
    }
  });

  it('never names a container that the state knows, that is not ours, or that serves', () => {
    const any = fc.record({
      id: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      name: fc.constantFrom('env-api-1-a', 'env-api-2-b', 'env-gateway', 'env-database'),
      status: fc.constantFrom('running', 'created', 'exited', 'restarting', 'paused', 'dead'),
      environment: fc.constantFrom(PREFIX, PREFIX, 'other', ''),
      oneShot: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(any, { selector: ({ id }) => id }),
        fc.subarray(['a', 'b', 'c', 'd', 'e']),
        fc.option(fc.subarray(['env-api-1-a', 'env-api-2-b']), { nil: undefined }),
        (containers, known, serving) => {
          const { strays, foreign } = diagnose(
            { resources: known.map((id) => resource(id, id)) },
            { containers, networks: [], serving },
            PREFIX,
          );
          for (const { id, name, environment, oneShot, status } of strays) {
            expect([known.includes(id), environment, oneShot]).toEqual([false, PREFIX, false]);
            if (status === 'running' && name.includes('-api-')) expect(serving).not.toContain(name);
          }
          // Whoever owns nothing here removes nothing that runs.
          if (!containers.some(({ id }) => known.includes(id))) {
            expect(strays.filter(({ status }) => !['created', 'exited', 'dead'].includes(status))).toEqual([]);
          }
          if (foreign.length > 0) expect(strays).toEqual([]);
        },
      ),
    );
  });
});

describe('steps among the processes', () => {
  const line = (name: string, pid = 7) => `${pid} node --import tsx deploy/main.ts ${name} gate`;

  it('are those of this state, and not those of an environment whose prefix begins with ours', () => {
    const listing = [line('env-b-api-gate'), line('env-api-gate'), '8 vi deploy/main.ts', line('env-roles', 9)];
    expect(stepsAmong(listing, state(step('env-api-gate')))).toEqual([line('env-api-gate')]);
    expect(stepsAmong(listing, state(step('env-b-api-gate')))).toEqual([line('env-b-api-gate')]);
  });

  it('are also those that were begun by the deploy that was killed', () => {
    const begun: State = { pending_operations: [{ type: 'creating', resource: step('env-api-gate') }] };
    expect(stepsAmong([line('env-api-gate'), line('env-roles')], begun)).toEqual([line('env-api-gate')]);
  });
});
