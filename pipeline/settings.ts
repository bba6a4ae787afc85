import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { BRANCHES, type Environment, ENVIRONMENTS } from './branches';
import { output, PipelineError, type Run } from './run';

/**
 * The settings of the repository on GitHub, made from the stack files and the branch map: environments with the branches
 * that may use them, their variables and secrets, and what a change of a branch needs.
 */
export interface Setting {
  readonly words: string;
  /** Arguments of `gh`. */
  readonly args: readonly string[];
  /** For its standard input; where it is a name of an environment variable, that variable's value. */
  readonly input?: { readonly json: unknown } | { readonly secret: string };
}

/** Given by whoever runs the command as `NAME_<ENVIRONMENT>` or `NAME`; what is not given is left as it is. */
const SECRETS = [
  'DOCKER_PASSWORD',
  'PULUMI_CONFIG_PASSPHRASE',
  'PULUMI_ACCESS_TOKEN',
  'DOCKER_HOST_KEY',
  'TLS_CERTIFICATE',
  'TLS_KEY',
];

interface Service {
  readonly cpus: number;
  readonly memory: string;
  readonly healthcheck: { readonly interval: string; readonly timeout: string; readonly retries: number };
}

/** @param root directory with `Pulumi.<environment>.yaml` */
export function settingsOf(root: string): Setting[] {
  return [
    ...ENVIRONMENTS.flatMap((environment) => ofEnvironment(root, environment)),
    ...Object.keys(BRANCHES).map(protect),
  ];
}

function ofEnvironment(root: string, environment: Environment): Setting[] {
  const { config } = parse(readFileSync(join(root, `Pulumi.${environment}.yaml`), 'utf8')) as {
    config: Record<string, unknown>;
  };
  const api = config['branchloans:api'] as Service;
  const database = config['branchloans:database'] as Service & { volume: string; user: string; name: string };
  const variables: Record<string, string | number> = {
    HEALTHCHECK_INTERVAL: api.healthcheck.interval,
    HEALTHCHECK_TIMEOUT: api.healthcheck.timeout,
    HEALTHCHECK_RETRIES: api.healthcheck.retries,
    APP_CPU_LIMIT: api.cpus,
    APP_MEMORY_LIMIT: api.memory,
    DB_CPU_LIMIT: database.cpus,
    DB_MEMORY_LIMIT: database.memory,
    DB_VOLUME_PATH: database.volume,
    POSTGRES_USER: database.user,
    POSTGRES_DB: database.name,
  };
  const branches = Object.entries(BRANCHES).flatMap(([branch, to]) => (to === environment ? [branch] : []));
  const at = `repos/{owner}/{repo}/environments/${environment}`;
  return [
    {
      words: `environment ${environment}, for ${branches.join(' and ')} only`,
      args: ['api', '--method', 'PUT', at, '--input', '-'],
      input: { json: { deployment_branch_policy: { protected_branches: false, custom_branch_policies: true } } },
    },
    ...branches.map((name) => ({
      words: `environment ${environment}: may be used by ${name}`,
      args: ['api', '--method', 'POST', `${at}/deployment-branch-policies`, '--input', '-'],
      input: { json: { name, type: 'branch' } },
    })),
    ...Object.entries(variables).map(([name, value]) => ({
      words: `environment ${environment}: variable ${name} = ${value}`,
      args: ['variable', 'set', name, '--env', environment, '--body', String(value)],
    })),
    ...SECRETS.map((name) => ({
      words: `environment ${environment}: secret ${name}`,
      args: ['secret', 'set', name, '--env', environment],
      input: { secret: `${name}_${environment.toUpperCase()}` },
    })),
  ];
}

/** Of the one job that stands for all others; see ci.yml. */
export const REQUIRED_CHECK = 'all green';

function protect(branch: string): Setting {
  return {
    words: `branch ${branch}: by pull request with one approval and "${REQUIRED_CHECK}"; no force push, no deletion`,
    args: ['api', '--method', 'PUT', `repos/{owner}/{repo}/branches/${branch}/protection`, '--input', '-'],
    input: {
      json: {
        required_status_checks: { strict: true, contexts: [REQUIRED_CHECK] },
        enforce_admins: true,
        required_pull_request_reviews: { required_approving_review_count: 1, require_code_owner_reviews: true },
        restrictions: null,
        required_linear_history: false,
        allow_force_pushes: false,
        allow_deletions: false,
      },
    },
  };
}

/** Says what would be set, or sets it with `gh` (logged in, in a clone of the repository). */
export async function repositorySettings(root: string, apply: boolean, run: Run): Promise<void> {
  const faults: string[] = [];
  for (const { words, args, input } of settingsOf(root)) {
    const [own = '', all = ''] = input !== undefined && 'secret' in input ? [input.secret, args[2]] : [];
    const secret = process.env[own] || process.env[all];
    if (own !== '' && !secret) {
      console.log(`left   ${words}: neither ${own} nor ${all} is given`);
      continue;
    }
    if (!apply) {
      console.log(`would  ${words}`);
      continue;
    }
    const text = input === undefined ? undefined : 'json' in input ? JSON.stringify(input.json) : secret;
    try {
      await output(run, 'gh', args, { input: text });
      console.log(`set    ${words}`);
    } catch (error) {
      // A branch of the map that does not exist (yet) cannot be protected; the others can.
      faults.push(`${words}: ${(error as Error).message}`);
    }
  }
  if (!apply)
    console.log('Nothing was changed: APPLY=1 sets all of this. Reviewers of an environment are chosen by a person.');
  if (faults.length > 0) throw new PipelineError(faults.join('\n'));
}
