import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { BRANCHES, branchesOf, type Environment, ENVIRONMENTS } from './branches';
import { output, PipelineError, type Run } from './run';

/**
 * The settings of the repository on GitHub, made from the stack files and the branch map: environments with the branches
 * that may use them, their variables and secrets, and what a change of a branch needs.
 */
export interface Setting {
  readonly words: string;
  /** Arguments of `gh`. */
  readonly args: readonly string[];
  /**
   * For its standard input: JSON, made from what `gh` answers where that matters; or, where it is a name of an environment
   * variable, that variable's value.
   */
  readonly input?:
    { readonly json: unknown } | { readonly ask: (gh: Gh) => Promise<unknown> } | { readonly secret: string };
}

/** What `gh api` answers; undefined where there is no such thing. */
export type Gh = (path: string) => Promise<unknown>;

/** Given by whoever runs the command as `NAME_<ENVIRONMENT>` or `NAME`; what is not given is left as it is. */
const SECRETS = [
  'DOCKER_PASSWORD',
  'PULUMI_CONFIG_PASSPHRASE',
  'PULUMI_ACCESS_TOKEN',
  'PULUMI_BACKEND_KEYS',
  'DOCKER_HOST_KEY',
  'TLS_CERTIFICATE',
  'TLS_KEY',
];

interface Service {
  readonly cpus: number;
  readonly memory: string;
  readonly healthcheck: { readonly interval: string; readonly timeout: string; readonly retries: number };
}

/**
 * Who must agree to a job that names an environment, and how long it waits. Given by whoever runs the command, since people are
 * not part of a program; what is not given stays as it is on GitHub.
 */
interface Protection {
  /** Names of users, and `organisation/team`; at most six. */
  readonly reviewers: readonly string[] | undefined;
  readonly waitMinutes: number | undefined;
}

type Env = Readonly<Record<string, string | undefined>>;

function protectionOf(environment: string, env: Env): Protection {
  const given = (name: string) => env[`${name}_${environment.toUpperCase()}`];
  const reviewers = given('REVIEWERS')
    ?.split(/[\s,]+/)
    .filter(Boolean);
  const wait = given('WAIT_MINUTES');
  const faults = [
    ...((reviewers ?? []).length > 6 ? ['GitHub takes at most six'] : []),
    ...(reviewers ?? []).flatMap((name) =>
      /^[A-Za-z0-9-]+(\/[A-Za-z0-9_-]+)?$/.test(name) ? [] : [`"${name}" is no user and no organisation/team`],
    ),
    ...(wait === undefined || (/^\d{1,5}$/.test(wait) && Number(wait) <= 43_200)
      ? []
      : [`WAIT_MINUTES "${wait}" is no number of minutes up to 43200`]),
  ];
  if (faults.length > 0) throw new PipelineError(`environment ${environment}: ${faults.join('; ')}`);
  return { reviewers, waitMinutes: wait === undefined ? undefined : Number(wait) };
}

/** As GitHub tells of an environment; it takes the same apart from the shape of its rules. */
interface OnGitHub {
  readonly protection_rules?: readonly {
    readonly type: string;
    readonly wait_timer?: number;
    readonly prevent_self_review?: boolean;
    readonly reviewers?: readonly { readonly type: string; readonly reviewer: { readonly id: number } }[];
  }[];
}

/** What to send for an environment: to send nothing of a rule would take it away. */
async function rulesOf(environment: string, { reviewers, waitMinutes }: Protection, gh: Gh): Promise<object> {
  const { protection_rules: rules = [] } = ((await gh(`environments/${environment}`)) ?? {}) as OnGitHub;
  const [wait, review] = ['wait_timer', 'required_reviewers'].map((type) => rules.find((rule) => rule.type === type));
  const named = reviewers?.map(async (name) => {
    const [organisation, team] = name.split('/');
    const path = team === undefined ? `/users/${name}` : `/orgs/${organisation ?? ''}/teams/${team}`;
    const found = (await gh(path)) as { id: number } | undefined;
    if (found === undefined) throw new PipelineError(`GitHub knows no ${name}`);
    return { type: team === undefined ? 'User' : 'Team', id: found.id };
  });
  return {
    wait_timer: waitMinutes ?? wait?.wait_timer ?? 0,
    prevent_self_review: reviewers === undefined ? (review?.prevent_self_review ?? false) : reviewers.length > 0,
    reviewers: named
      ? await Promise.all(named)
      : (review?.reviewers ?? []).map(({ type, reviewer }) => ({ type, id: reviewer.id })),
    deployment_branch_policy: { protected_branches: false, custom_branch_policies: true },
  };
}

/** That has no stack: publishing a version of the library. */
const RELEASE = 'release';

/**
 * @param root directory with `Pulumi.<environment>.yaml`
 * @param env names and numbers of the person who runs the command
 */
export function settingsOf(root: string, env: Env = process.env): Setting[] {
  const user = env['DOCKER_USERNAME'];
  return [
    ...(user
      ? [{ words: `variable DOCKER_USERNAME = ${user}`, args: ['variable', 'set', 'DOCKER_USERNAME', '--body', user] }]
      : []),
    ...ENVIRONMENTS.flatMap((environment) => ofEnvironment(root, environment, env)),
    ...guarded(RELEASE, [{ name: 'v*.*.*', type: 'tag' }], env),
    ...Object.keys(BRANCHES).map(protect),
  ];
}

/** An environment, and the refs that may use it. */
function guarded(
  environment: string,
  refs: readonly { readonly name: string; readonly type: string }[],
  env: Env,
): Setting[] {
  const at = `repos/{owner}/{repo}/environments/${environment}`;
  const protection = protectionOf(environment, env);
  const { reviewers, waitMinutes } = protection;
  const told = [
    ...(reviewers === undefined
      ? []
      : [reviewers.length === 0 ? 'no reviewers' : `reviewed by ${reviewers.join(' or ')}`]),
    ...(waitMinutes === undefined ? [] : [`after ${waitMinutes} minutes`]),
  ];
  return [
    {
      words: [`environment ${environment}, for ${refs.map(({ name }) => name).join(' and ')} only`, ...told].join(', '),
      args: ['api', '--method', 'PUT', at, '--input', '-'],
      input: { ask: (gh) => rulesOf(environment, protection, gh) },
    },
    ...refs.map(({ name, type }) => ({
      words: `environment ${environment}: may be used by ${name}`,
      args: ['api', '--method', 'POST', `${at}/deployment-branch-policies`, '--input', '-'],
      input: { json: { name, type } },
    })),
  ];
}

function ofEnvironment(root: string, environment: Environment, env: Env): Setting[] {
  const { config } = parse(readFileSync(join(root, `Pulumi.${environment}.yaml`), 'utf8')) as {
    config: Record<string, unknown>;
  };
  const api = config['branchloans:api'] as Service;
  const database = config['branchloans:database'] as Service & { volume: string; user: string; name: string };
  // Copies, as COPIES says.
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
  const branches = branchesOf(environment).map((name) => ({ name, type: 'branch' }));
  return [
    ...guarded(environment, branches, env),
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

const COPIES =
  'The variables of the environments are copies of Pulumi.<environment>.yaml, for people who read them on GitHub: no workflow ' +
  'reads them, the stack file decides.';

/** Says what would be set, or sets it with `gh` (logged in, in a clone of the repository). */
export async function repositorySettings(root: string, apply: boolean, run: Run): Promise<void> {
  const faults: string[] = [];
  const gh: Gh = async (path) => {
    const { code, stdout, stderr } = await run('gh', [
      'api',
      path.startsWith('/') ? path : `repos/{owner}/{repo}/${path}`,
    ]);
    if (code === 0) return JSON.parse(stdout) as unknown;
    if (/HTTP 404/.test(stderr)) return undefined;
    // Not to know what is there is no reason to set it anew.
    throw new PipelineError(`gh api ${path} failed: ${stderr.trim() || `exit code ${code}`}`);
  };
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
    try {
      const text =
        input === undefined
          ? undefined
          : 'json' in input
            ? JSON.stringify(input.json)
            : 'ask' in input
              ? JSON.stringify(await input.ask(gh))
              : secret;
      await output(run, 'gh', args, { input: text });
      console.log(`set    ${words}`);
    } catch (error) {
      // A branch of the map that does not exist (yet) cannot be protected; the others can.
      faults.push(`${words}: ${(error as Error).message}`);
    }
  }
  console.log(COPIES);
  if (!apply)
    console.log(
      'Nothing was changed: APPLY=1 sets all of this. REVIEWERS_PRODUCTION="user organisation/team" and WAIT_MINUTES_PRODUCTION= ' +
        'set who must agree and how long it waits, likewise for the others; without them both stay as they are.',
    );
  if (faults.length > 0) throw new PipelineError(faults.join('\n'));
}
