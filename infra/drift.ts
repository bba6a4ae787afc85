import { createHash } from 'node:crypto';
import type { PublishInput } from './deploy/publish';
import type { SwitchInput } from './deploy/switch';
import { serversOf } from './ops/nginx';
import { type PlannedStep, readUrn } from './plan';

/** Where an engine no longer is what was deployed: found by comparing Pulumi's state with what the engine says. */

/** What `pulumi stack export --show-secrets` says, as far as it is read here. */
export interface Deployment {
  readonly resources?: readonly Deployed[];
  readonly pending_operations?: readonly { readonly resource: { readonly urn: string }; readonly type: string }[];
}

/** How Pulumi marks a secret in an exported state. */
const SECRET_MARK = '4dabf18193072939515e22adb298388d';

/** @param exported what `pulumi stack export --show-secrets` prints */
export function readDeployment(exported: string): Deployment {
  const opened = (_: string, value: unknown): unknown => {
    if (typeof value !== 'object' || value === null || !(SECRET_MARK in value)) return value;
    const { plaintext } = value as { plaintext?: string };
    return plaintext === undefined ? undefined : JSON.parse(plaintext, opened);
  };
  return (JSON.parse(exported, opened) as { deployment?: Deployment }).deployment ?? {};
}

interface Deployed {
  readonly urn: string;
  readonly type: string;
  readonly id?: string;
  readonly delete?: boolean;
  readonly initErrors?: readonly string[];
  readonly inputs?: Readonly<Record<string, unknown>>;
  readonly outputs?: Readonly<Record<string, unknown>>;
}

/** What `docker inspect` says, as far as it is read here. */
export interface Inspected {
  readonly Id: string;
  readonly Name: string;
  readonly State: { readonly Status: string; readonly Health?: { readonly Status: string } };
  readonly NetworkSettings: {
    readonly Networks: Readonly<Record<string, { readonly Aliases?: readonly string[] | null }>>;
  };
}

/** Input of a step that puts files into a volume; of the gateway's `switch` it says which of them names the servers. */
export type Publication = PublishInput & Partial<Pick<SwitchInput, 'upstream'>>;

/** The files of one such step: what was published, and what its volume holds. */
export interface Published {
  readonly urn: string;
  readonly input: Publication;
  /** Path below `current` -> SHA-256 of the file, in hex; undefined when nothing is current. */
  readonly hashes: Readonly<Record<string, string>> | undefined;
  /** The text of the file that names the servers, where there is one. */
  readonly upstream?: string;
}

export interface Reality {
  readonly deployment: Deployment;
  /** What a refresh would write into the state. */
  readonly refresh: readonly PlannedStep[];
  /** Everything with the environment's label, and what the state names by id. */
  readonly containers: readonly Inspected[];
  readonly published: readonly Published[];
}

export interface Finding {
  /** A sentence that begins with the part of the environment. */
  readonly what: string;
  /** What `up` would do about it. */
  readonly up: string;
  /** The command that puts it right; `pulumi` commands without `-s`, `make` commands without `STACK=`. */
  readonly remedy: string;
}

const CONTAINER = 'docker:index/container:Container';
const UNSEEN = '`up` does not see it, nor does `up --refresh`';
const REFRESH = 'up --refresh';

/** Why a deploy is not over; then nothing can be said of drift. Undefined: it is. */
export function unfinished({ resources = [], pending_operations: pending = [] }: Deployment): string[] {
  const name = (urn: string) => readUrn(urn).name;
  return [
    ...pending.map(({ resource, type }) => `${name(resource.urn)}: "${type}" was begun and not ended`),
    ...resources.filter((each) => each.delete).map(({ urn }) => `${name(urn)}: the old one is still to be removed`),
    ...resources
      .filter(({ initErrors }) => (initErrors ?? []).length > 0)
      .map(({ urn }) => `${name(urn)}: was made, but did not start well`),
  ];
}

/** In the order in which they are best put right. */
export function findDrift({ deployment, refresh, containers, published }: Reality): Finding[] {
  const deployed = (deployment.resources ?? []).filter(({ type }) => type === CONTAINER);
  const known = new Set(deployed.map(({ id }) => id));
  const served = new Set(published.flatMap(({ upstream }) => (upstream === undefined ? [] : serversOf(upstream))));
  const strays = containers.filter(({ Id }) => !known.has(Id)).map((container) => stray(container, served));
  const gone = new Set(refresh.filter(({ op }) => op === 'delete').map(({ urn }) => readUrn(urn).name));
  const own = deployed.flatMap((resource) => {
    const actual = containers.find(({ Id }) => Id === resource.id);
    return actual === undefined ? [] : compare(resource, actual, gone);
  });
  return [...strays, ...own, ...refresh.flatMap(refreshed), ...published.flatMap(comparePublished)];
}

/** @param served names of the containers that the gateway sends requests to */
function stray({ Name }: Inspected, served: ReadonlySet<string>): Finding {
  const name = Name.slice(1);
  if (served.has(name)) {
    return {
      what: `Stray: the container ${name} gets requests from the gateway, but no deploy knows it. Do not remove it: it serves.`,
      up: 'a deploy gives the requests to containers of its own; then `make drift` again',
      remedy: 'make up',
    };
  }
  return {
    what: `Stray: the container ${name} carries this environment's label, but no deploy knows it.`,
    up: `${UNSEEN}; \`make repair\` removes all of them`,
    remedy: `docker rm --force ${name}`,
  };
}

function compare(
  { urn, inputs = {}, outputs = {} }: Deployed,
  actual: Inspected,
  gone: ReadonlySet<string>,
): Finding[] {
  const { part } = readUrn(urn);
  const [name, was] = [actual.Name.slice(1), String(outputs['name'] ?? inputs['name'])];
  const findings: Finding[] = [];
  if (name !== was) {
    const what = `${part}: the container ${was} is called ${name} now.`;
    findings.push({
      what,
      up: '`up --refresh` would replace it where it has a fixed name',
      remedy: `docker rename ${name} ${was}`,
    });
  }
  findings.push(...compareNetworks(part, was, inputs, actual, gone), ...compareState(part, was, actual));
  return findings;
}

function compareNetworks(
  part: string,
  name: string,
  inputs: Readonly<Record<string, unknown>>,
  { NetworkSettings: { Networks: actual } }: Inspected,
  gone: ReadonlySet<string>,
): Finding[] {
  const wanted = (inputs['networksAdvanced'] ?? []) as { name: string; aliases?: string[] }[];
  const missing = wanted.flatMap(({ name: network, aliases = [] }): Finding[] => {
    const connect = ['docker network connect', ...aliases.map((alias) => `--alias ${alias}`), network, name].join(' ');
    const there = actual[network];
    if (there === undefined) {
      // Comes with a network that has to be made first.
      if (gone.has(network)) return [];
      return [{ what: `${part}: ${name} is not connected to ${network}.`, up: UNSEEN, remedy: connect }];
    }
    const lacks = aliases.filter((alias) => !(there.Aliases ?? []).includes(alias));
    if (lacks.length === 0) return [];
    const what = `${part}: ${name} is not known as ${lacks.join(', ')} in ${network}.`;
    return [{ what, up: UNSEEN, remedy: `docker network disconnect ${network} ${name} && ${connect}` }];
  });
  const extra = Object.keys(actual)
    .filter((network) => !wanted.some((each) => each.name === network))
    .map((network) => ({
      what: `${part}: ${name} is connected to ${network} too.`,
      up: UNSEEN,
      remedy: `docker network disconnect ${network} ${name}`,
    }));
  return [...missing, ...extra];
}

function compareState(part: string, name: string, { State: { Status: status, Health: health } }: Inspected): Finding[] {
  if (status === 'running') {
    if (health?.Status !== 'unhealthy') return [];
    return [
      {
        what: `${part}: ${name} is unhealthy (docker logs ${name}).`,
        up: UNSEEN,
        remedy: `docker restart ${name}`,
      },
    ];
  }
  if (status === 'restarting') {
    return [{ what: `${part}: ${name} crashes and is started again.`, up: UNSEEN, remedy: `docker logs ${name}` }];
  }
  const paused = status === 'paused';
  return [
    {
      what: `${part}: ${name} does not run (${status}).`,
      up: paused ? UNSEEN : '`up` does not see it; `up --refresh` starts it',
      remedy: `docker ${paused ? 'unpause' : 'start'} ${name}`,
    },
  ];
}

const RESERVATIONS = ['cpuShares', 'memoryReservation'];

/** What the provider reads back, and what it would say of a resource that is gone. */
function refreshed({ op, urn, oldState, newState, diffReasons }: PlannedStep): Finding[] {
  const { part, type, name } = readUrn(urn);
  const kind = /(\w+)$/.exec(type)?.[1]?.toLowerCase() ?? type;
  if (op === 'delete') {
    const lost =
      kind !== 'volume'
        ? ''
        : part === 'Database'
          ? ' The data in it is lost: `up --refresh` makes an empty one, restore a backup into it.'
          : ' `up --refresh` makes it anew, with its files.';
    const what = `${part}: the ${kind} ${name} is gone.${lost}`;
    return [{ what, up: '`up` does not see it; `up --refresh` makes it again', remedy: REFRESH }];
  }
  if (op !== 'update' || type !== CONTAINER) return [];
  // Whether it runs is said already, and swap goes with memory.
  const keys = (diffReasons ?? []).filter((key) => key !== 'mustRun' && key !== 'memorySwap' && key !== 'name');
  return keys.map((key) => {
    const [is, was] = [newState?.outputs?.[key], oldState?.inputs?.[key] ?? oldState?.outputs?.[key]];
    // One that was made up by hand can only be taken away with its container (container.ts).
    const inPlace = ['memory', 'restart', ...(was ? RESERVATIONS : []), 'cpuSet', 'maxRetryCount'].includes(key);
    const way = inPlace ? 'sets it back in the running container' : 'replaces the container';
    return {
      what: `${part}: ${key} of ${name} is ${text(is)}, deployed was ${text(was)}.`,
      up: `\`up\` does not see it; \`up --refresh\` ${way}`,
      remedy: REFRESH,
    };
  });
}

const text = (value: unknown) =>
  typeof value === 'string' ? value : value === undefined ? 'not set' : JSON.stringify(value);

function comparePublished({ urn, input, hashes, upstream }: Published): Finding[] {
  const { part } = readUrn(urn);
  const up = UNSEEN;
  const remedy = `up --target-replace '${urn}'`;
  if (hashes === undefined) return [{ what: `${part}: the volume ${input.volume} holds no files.`, up, remedy }];
  const expected = Object.entries(expectedFiles(input)).map(([path, content]) => [path, sha256(content)] as const);
  const wrong = [
    ...expected.filter(([path, hash]) => hashes[path] !== hash).map(([path]) => path),
    ...Object.keys(hashes).filter((path) => !expected.some(([known]) => known === path)),
  ];
  if (wrong.length === 0) return [];
  const file = input.upstream;
  const servers = file === undefined || upstream === undefined ? [] : serversOf(upstream);
  const named =
    file !== undefined && wrong.includes(file)
      ? ` ${file} names the servers ${servers.join(', ') || '(none)'}, deployed were ${serversOf(input.files[file] ?? '').join(', ')}.`
      : '';
  const what = `${part}: files in the volume ${input.volume} differ from what was deployed: ${wrong.join(', ')}.${named}`;
  return [{ what, up, remedy }];
}

/** As `publish` writes them. */
function expectedFiles({ files, version, reload }: Publication): Readonly<Record<string, string>> {
  const confirm = reload?.confirm;
  return confirm ? { ...files, [confirm.file]: confirm.text.replace('{version}', version) } : files;
}

function sha256(content: string): string {
  return createHash('sha256').update(content).digest('hex');
}

/** The steps of a deployment that put files into a volume, and whose input can be read: those with a volume, a version and files. */
export function publishSteps({ resources = [] }: Deployment): { readonly urn: string; readonly input: Publication }[] {
  return resources.flatMap(({ urn, inputs, delete: old }) => {
    if (old || typeof inputs?.['stdin'] !== 'string') return [];
    const input = JSON.parse(inputs['stdin']) as Partial<Publication>;
    return input.volume && input.version && input.files ? [{ urn, input: input as Publication }] : [];
  });
}
