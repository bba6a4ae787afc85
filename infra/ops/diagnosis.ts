/**
 * What a deploy that was killed or cut off has left behind: the state of the stack beside what the engine has.
 * Nothing here touches either.
 */

/** The parts of `pulumi stack export` that are looked at. */
export interface State {
  readonly resources?: readonly StateResource[];
  /** What Pulumi had begun when it was killed. */
  readonly pending_operations?: readonly { readonly type: string; readonly resource: StateResource }[];
}

export interface StateResource {
  readonly urn: string;
  readonly type: string;
  readonly id?: string;
  readonly inputs?: Readonly<Record<string, unknown>>;
}

export interface Engine {
  /** All of the engine's. */
  readonly containers: readonly EngineContainer[];
  readonly networks: readonly { readonly id: string; readonly name: string }[];
  /** Names of the containers that the gateway sends traffic to; undefined when it runs but does not say. */
  readonly serving: readonly string[] | undefined;
}

export interface EngineContainer {
  readonly id: string;
  readonly name: string;
  /** As the engine says it: created, running, exited, … */
  readonly status: string;
  /** Value of the label `environment`; empty for what is none of ours. */
  readonly environment: string;
  /** Runs to its end and removes itself: a step of a deploy. */
  readonly oneShot: boolean;
}

export interface Diagnosis {
  /** Steps of a deploy that still run in containers: to be waited for. */
  readonly running: readonly EngineContainer[];
  /** Why the state must be read anew from the engine. */
  readonly stale: readonly string[];
  /** URNs of steps that may have been done by half: to be run again, even if the settings go back. */
  readonly halfDone: readonly string[];
  /** Unknown to the state, and without traffic. */
  readonly strays: readonly EngineContainer[];
  /** Unknown to the state. A second one of the same name would make the name ambiguous. */
  readonly networks: readonly { readonly id: string; readonly name: string }[];
  /** Unknown to the state, but the gateway sends requests there. */
  readonly serving: readonly EngineContainer[];
  /** Containers of this environment run here, and the state knows none of what is here: it is not theirs. */
  readonly foreign: readonly EngineContainer[];
}

const CONTAINER = 'docker:index/container:Container';
const STOPPED = ['created', 'exited', 'dead'];

export function diagnose(state: State, engine: Engine, prefix: string): Diagnosis {
  const resources = state.resources ?? [];
  const pending = state.pending_operations ?? [];
  const known = new Set(resources.flatMap(({ id }) => id ?? []));
  const unknown = engine.containers.filter(({ id, environment }) => environment === prefix && !known.has(id));
  const lasting = unknown.filter(({ oneShot }) => !oneShot);
  const owned = [...engine.containers, ...engine.networks].some(({ id }) => known.has(id));
  const foreign = owned ? [] : lasting.filter(({ status }) => !STOPPED.includes(status));
  const serves = ({ name, status }: EngineContainer) =>
    status === 'running' && isApi(name, prefix) && (engine.serving?.includes(name) ?? true);

  const byId = new Map(engine.containers.map((container) => [container.id, container]));
  const lost = resources
    .filter(({ type }) => type === CONTAINER)
    .flatMap(({ urn, id = '' }) => {
      const container = byId.get(id);
      if (container === undefined) return [`${nameOf(urn)} is in the state, but not on the engine`];
      return STOPPED.includes(container.status) ? [`${container.name} does not run (${container.status})`] : [];
    });
  const interrupted = pending.map(({ type, resource }) => `${nameOf(resource.urn)} was interrupted while ${type}`);
  const steps = new Set(resources.filter(isStep).map(({ urn }) => urn));

  return {
    running: unknown.filter(({ oneShot, status }) => oneShot && !STOPPED.includes(status)),
    stale: [...interrupted, ...lost],
    halfDone: [...new Set(pending.map(({ resource }) => resource.urn))].filter((urn) => steps.has(urn)),
    strays: foreign.length > 0 ? [] : lasting.filter((container) => !serves(container)),
    networks: engine.networks.filter(
      ({ id, name }) => [`${prefix}-front`, `${prefix}-data`].includes(name) && !known.has(id) && foreign.length === 0,
    ),
    serving: foreign.length > 0 ? [] : lasting.filter(serves),
    foreign,
  };
}

/**
 * Steps of this state's deploys among the processes of the machine. By the whole name: another environment's prefix may
 * begin with ours. What was begun is in the state before it runs.
 * @param listing lines of `<pid> <command>`
 */
export function stepsAmong(listing: readonly string[], { resources = [], pending_operations: pending = [] }: State) {
  const names = new Set([...resources, ...pending.map(({ resource }) => resource)].map(({ urn }) => nameOf(urn)));
  return listing.filter((line) => names.has(/ deploy\/main\.ts (\S+) \S+$/.exec(line)?.[1] ?? ''));
}

/** A step can be repeated; the other commands of the state made secrets, once. */
function isStep({ type, inputs }: StateResource): boolean {
  return type === 'command:local:Command' && String(inputs?.['create']).includes('deploy/main.ts');
}

/** Containers of the API have a name of the engine's making behind that of their resource. */
function isApi(name: string, prefix: string): boolean {
  return name.startsWith(`${prefix}-api-`);
}

function nameOf(urn: string): string {
  return urn.split('::').at(-1) ?? urn;
}
