import { PipelineError } from './run';

/**
 * Which environment a branch deploys to. This is the only place that says so: the workflows' lists of branches are
 * tested against it. Total: a branch that is not here is an error, never a default.
 */
export const BRANCHES = {
  main: 'development',
  development: 'development',
  staging: 'staging',
  master: 'production',
  production: 'production',
} as const;

export type Environment = (typeof BRANCHES)[keyof typeof BRANCHES];

export const ENVIRONMENTS: readonly Environment[] = [...new Set(Object.values(BRANCHES))];

/**
 * The branch that stands for each environment, where only some of the map are there: the first one that is.
 * @param existing all branches of the repository
 */
export function standingFor(existing: readonly string[]): { environment: Environment; branch: string | undefined }[] {
  return ENVIRONMENTS.map((environment) => ({
    environment,
    branch: branchesOf(environment).find((branch) => existing.includes(branch)),
  }));
}

export const branchesOf = (environment: Environment): string[] =>
  Object.entries(BRANCHES).flatMap(([branch, to]) => (to === environment ? [branch] : []));

export interface Plan {
  readonly branch: string;
  readonly environment: Environment;
  /** Name of the image without tag: `<registry>/<namespace>/<repository>-<branch>`. */
  readonly image: string;
  /** The commit: 40 hexadecimal digits. */
  readonly tag: string;
}

/**
 * @param ref full name as git has it, such as `refs/heads/main`; a tag called `main` is no branch
 * @throws PipelineError for every ref that is not a branch of the map, exactly as it is written there
 */
export function environmentOf(ref: string): { readonly branch: string; readonly environment: Environment } {
  const branch = ref.startsWith('refs/heads/') ? ref.slice('refs/heads/'.length) : undefined;
  if (branch === undefined || !Object.hasOwn(BRANCHES, branch)) {
    const known = Object.entries(BRANCHES).map(([name, environment]) => `${name} -> ${environment}`);
    throw new PipelineError(`"${ref}" deploys nowhere. Branches that do: ${known.join(', ')}`);
  }
  return { branch, environment: BRANCHES[branch as keyof typeof BRANCHES] };
}

/**
 * @param repository `owner/name`; only the name goes into the image's
 * @throws PipelineError when the ref deploys nowhere, or no image could have such a name
 */
export function planOf(given: {
  readonly ref: string;
  readonly commit: string;
  readonly registry: string;
  readonly namespace: string;
  readonly repository: string;
}): Plan {
  const { branch, environment } = environmentOf(given.ref);
  const name = given.repository.split('/').at(-1)?.toLowerCase() ?? '';
  const image = `${given.registry}/${given.namespace}/${name}-${branch}`;
  const faults = [
    ...(/^[0-9a-f]{40}$/.test(given.commit) ? [] : [`commit "${given.commit}" is not 40 hexadecimal digits`]),
    ...(/^[a-z0-9][a-z0-9.-]*(:\d+)?$/.test(given.registry) ? [] : [`"${given.registry}" is no registry's host`]),
    ...(/^[a-z0-9]+([._/-][a-z0-9]+)*$/.test(given.namespace)
      ? []
      : [
          `"${given.namespace}" is no user of a registry: set the variable DOCKER_USERNAME (a variable, not a secret: ` +
            'a job output that contains a secret is dropped)',
        ]),
    ...(/^[a-z0-9]+([._-]+[a-z0-9]+)*$/.test(name) ? [] : [`"${name}" cannot be part of an image's name`]),
  ];
  if (faults.length > 0) throw new PipelineError(faults.join('\n'));
  return { branch, environment, image, tag: given.commit };
}
