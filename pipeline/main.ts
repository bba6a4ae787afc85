import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { branchesOf, planOf, standingFor } from './branches';
import {
  commandsOf,
  deploy,
  deployFaults,
  engineOfStack,
  isGreen,
  placeCertificate,
  storeKeysOf,
  type Target,
  withAccess,
} from './deploy';
import { sbom, scan } from './gate';
import { type History, historyOf } from './history';
import { assertSame, build, digestOf } from './layout';
import { checkNode } from './node';
import { fetchLayout, mark, publish, resolve as resolveName } from './publish';
import { output, PipelineError, run } from './run';
import { repositorySettings } from './settings';
import { verifySignature } from './signature';

/**
 * The steps of the pipeline: `main.ts <step>`, with what they need in the environment. The same steps run in a workflow
 * (from the bundle .github/pipeline.js) and by `make` on any machine.
 */
const steps: Record<string, () => Promise<void>> = {
  plan,
  node,
  image,
  fetch: fetchStep,
  scan: scanStep,
  sbom: sbomStep,
  publish: publishStep,
  promote,
  verify,
  deploy: deployStep,
  rollback: rollbackStep,
  inspect,
  branches,
  'all-green': allGreen,
  release,
  'repository-settings': () => repositorySettings(process.cwd(), flag('APPLY', false), run),
};

const LAYOUT = '.local/image';

async function plan(): Promise<void> {
  const result = planOf({
    ref: required('REF', 'a full ref such as refs/heads/main'),
    commit: await commit(),
    registry: text('REGISTRY') ?? 'docker.io',
    namespace: required('NAMESPACE', 'the user of the registry: set the variable DOCKER_USERNAME'),
    repository: required('REPOSITORY', 'owner/name'),
  });
  outputs({ ...result });
  tell(`${result.branch} deploys to ${result.environment}, as ${result.image}:${result.tag}`);
}

async function node(): Promise<void> {
  const directory = resolve(text('DIRECTORY') ?? '.');
  const project = { directory, scripts: lines('SCRIPTS'), postgres: text('POSTGRES') };
  const checked = await checkNode(project, run);
  tell(['### Checked', ...checked.map(({ script, seconds }) => `- ${script}: ${seconds} s`)].join('\n'));
}

async function image(): Promise<void> {
  const context = resolve(text('CONTEXT') ?? '.');
  const digest = await build(
    {
      context,
      file: resolve(text('DOCKERFILE') ?? 'app/Dockerfile'),
      target: text('TARGET'),
      environment: text('ENVIRONMENT') ?? text('STACK') ?? 'development',
      commit: await commit(),
      repository: text('REPOSITORY'),
      args: lines('BUILD_ARGS'),
      network: text('BUILD_NETWORK'),
      layout: text('LAYOUT') ?? LAYOUT,
    },
    run,
  );
  outputs({ digest });
  tell(`Built ${digest}`);
}

async function scanStep(): Promise<void> {
  const offline = flag('OFFLINE', false);
  if (offline && text('GITHUB_ACTIONS') !== undefined) {
    throw new PipelineError('OFFLINE is for a machine without the vulnerability database, not for a pipeline');
  }
  const sources = text('SOURCES') ?? '.';
  const scanned = await scan(
    {
      layout: text('LAYOUT') ?? LAYOUT,
      digest: text('DIGEST'),
      sources: sources === 'none' ? undefined : sources,
      skipped: lines('SKIP'),
      severities: (text('SEVERITY') ?? 'CRITICAL,HIGH').split(','),
      ignoreUnfixed: flag('IGNORE_UNFIXED', true),
      exceptions: text('EXCEPTIONS') ?? '.trivyignore.yaml',
      offline,
      reports: text('REPORTS') ?? '.local/reports',
      today: new Date().toISOString().slice(0, 10),
    },
    run,
  );
  tell(scanned.text);
  outputs({ 'scanned-digest': scanned.digest, blocking: String(scanned.blocking) });
  if (scanned.blocking > 0)
    throw new PipelineError(`${scanned.blocking} finding(s) block the image: nothing is pushed`);
}

async function fetchStep(): Promise<void> {
  const ref = required('IMAGE_REF', 'name@sha256:…');
  const login = text('REGISTRY_TOKEN') === undefined ? undefined : credentials();
  const digest = await fetchLayout(ref, text('LAYOUT') ?? LAYOUT, login, run);
  assertSame('The image that was fetched', digest, text('DIGEST') ?? digest);
  tell(`Fetched ${ref}`);
}

async function sbomStep(): Promise<void> {
  const file = text('SBOM') ?? '.local/sbom.spdx.json';
  const layout = text('LAYOUT') ?? LAYOUT;
  const digest = digestOf(layout);
  assertSame('The image to be listed', digest, text('DIGEST') ?? digest);
  tell(`Wrote ${await sbom(layout, file, run)}`);
  outputs({ sbom: file, digest });
}

async function publishStep(): Promise<void> {
  const layout = text('LAYOUT') ?? LAYOUT;
  const given = text('DIGEST');
  // By hand the layout is what was scanned just before; a pipeline must say which digest that was.
  if (given === undefined && text('GITHUB_ACTIONS') !== undefined) throw new PipelineError('DIGEST is missing');
  await published(
    { layout },
    given ?? digestOf(layout),
    required('IMAGE', 'a name such as docker.io/me/loans-staging'),
  );
}

/** The same bytes under the name of the next environment: nothing is built. */
async function promote(): Promise<void> {
  const from = required('FROM', 'name:tag or name@sha256:…');
  const { digest, revision } = await resolveName(from, credentials(), run);
  assertSame(from, digest, text('DIGEST') ?? digest);
  const ref = `${from.replace(/(@.*|:[^/:]*)$/, '')}@${digest}`;
  const tag = text('TAG') ?? revision;
  if (tag === undefined) throw new PipelineError(`${from} does not say which commit it was built from: give TAG`);
  await published({ ref }, digest, required('IMAGE', 'the name it gets, without tag'), tag);
}

/** Whether the workflow that is named has signed the image, for this repository. */
async function verify(): Promise<void> {
  const name = required('IMAGE_REF', 'name@sha256:… or name:tag');
  const login = text('REGISTRY_TOKEN') === undefined ? undefined : credentials();
  // A tag may move between two steps: what is verified is told by its digest, and that one goes on.
  const { digest } = name.includes('@') ? { digest: name.split('@')[1] ?? '' } : await resolveName(name, login, run);
  const ref = `${name.replace(/(@.*|:[^/:]*)$/, '')}@${digest}`;
  assertSame(name, digest, text('DIGEST') ?? digest);
  const signer = {
    workflow: required('SIGNER', 'owner/name/.github/workflows/file.yml@refs/heads/branch'),
    repository: text('SIGNER_REPOSITORY') ?? required('REPOSITORY', 'owner/name'),
  };
  await verifySignature(ref, signer, login, run);
  outputs({ digest });
  tell(`${ref} is signed by ${signer.workflow}`);
}

async function published(
  source: Parameters<typeof publish>[0]['source'],
  digest: string,
  image: string,
  given = text('TAG'),
): Promise<void> {
  const latest = text('LATEST') ?? 'published';
  if (latest !== 'published' && latest !== 'never') throw new PipelineError('LATEST must be published or never');
  const tag = given ?? (await commit());
  const spec = { source, image, tag, digest, latest, credentials: credentials() } as const;
  const result = await publish(spec, history(), run);
  outputs({ ref: result.ref, digest, latest: result.latest });
  tell(`Pushed ${result.ref} as ${tag}; latest was ${result.latest}${result.reason ? `: ${result.reason}` : ''}`);
}

function history(): History {
  const [url, repository, token] = [text('GITHUB_API_URL'), text('REPOSITORY'), text('GITHUB_TOKEN')];
  return historyOf(run, url && repository && token ? { url, repository, token } : undefined);
}

/** Of the registry; in a pipeline both, or a job that means to push would find out half-way. */
function credentials(): { readonly user: string; readonly token: string } | undefined {
  const [user, token] = [text('REGISTRY_USER'), text('REGISTRY_TOKEN')];
  if (user !== undefined && token !== undefined) return { user, token };
  if (user === undefined && token === undefined && text('GITHUB_ACTIONS') === undefined) return undefined;
  throw new PipelineError(
    `${user === undefined ? 'the variable DOCKER_USERNAME' : 'the secret DOCKER_PASSWORD'} is missing in this environment`,
  );
}

function target(ref: string | undefined): Target {
  return {
    directory: resolve(text('DIRECTORY') ?? '.'),
    stack: required('STACK', 'the stack, named as the environment'),
    ref,
    settings: lines('SETTINGS'),
  };
}

/** Checks first, then works with access to engine and registry. */
async function reaching<T>(where: Target, work: (commands: ReturnType<typeof commandsOf>) => Promise<T>): Promise<T> {
  let stopped = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (stopped = true));
  const faults = deployFaults(where, {
    hosted: text('RUNNER_ENVIRONMENT') === 'github-hosted',
    env: process.env,
  });
  if (faults.length > 0) {
    throw new PipelineError(`Nothing was touched:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`);
  }
  const keys = storeKeysOf(text('PULUMI_BACKEND_KEYS') ?? '');
  for (const [name, value] of Object.entries(keys)) {
    // The runner hides the secret as a whole, not its parts.
    if (text('GITHUB_ACTIONS') !== undefined) console.log(`::add-mask::${value}`);
    process.env[name] = value;
  }
  placeCertificate(where.directory, text('CERTIFICATE') ?? 'ssl/branchloans.com', process.env);
  const given = { ...process.env };
  const [user, token] = [text('REGISTRY_USER'), text('REGISTRY_TOKEN')];
  // Only a new image is pulled; going back must not depend on a registry.
  const { ref } = where;
  const engine = engineOfStack(where.directory, where.stack, given);
  const login = ref && user !== undefined && token !== undefined ? { ref, user, token, engine } : undefined;
  // Both ask with what is taken from the environment in the next step.
  const [order, reader] = [history(), login && { user: login.user, token: login.token }];
  // What runs may be of a registry that this login is not for, or be gone from it: that must not stop every deploy after
  // it. The decision then says that nothing was compared.
  const revisionOf = async (image: string) =>
    image.includes('@') ? (await resolveName(image, reader, run).catch(() => undefined))?.revision : undefined;
  // The repository's own commands get what Pulumi needs, and nothing else; an empty variable is none.
  for (const name of [
    'GITHUB_TOKEN',
    'PULUMI_BACKEND_KEYS',
    'REGISTRY_TOKEN',
    'DOCKER_HOST_KEY',
    'TLS_KEY',
    'TLS_CERTIFICATE',
  ])
    Reflect.deleteProperty(process.env, name);
  for (const [name, value] of Object.entries(given)) if (value === '') Reflect.deleteProperty(process.env, name);
  return withAccess(given, login, run, () => work(commandsOf(where, run, () => stopped, order, revisionOf)));
}

async function deployStep(): Promise<void> {
  const ref = required('IMAGE_REF', 'name@sha256:…');
  const where = target(ref);
  const login = text('REGISTRY_TOKEN') === undefined ? undefined : credentials();
  const { outcome, previous, words } = await reaching(where, deploy);
  // For a promotion: what answered here may go on.
  if (outcome === 'deployed' && login !== undefined) await mark(ref, 'proven', login, run);
  const serving = outcome === 'superseded' ? (previous?.image ?? '') : outcome === 'deployed' ? ref : '';
  outputs({ outcome, ref: serving, previous: previous?.image ?? '' });
  tell(`### ${where.stack}: ${outcome}\n${words}\n- asked for: ${ref}\n- before: ${previous?.image ?? 'nothing'}`);
  if (!isGreen(outcome)) throw new PipelineError(`${where.stack}: ${outcome}`);
}

async function rollbackStep(): Promise<void> {
  const where = target(undefined);
  const to = text('TO');
  if (to !== undefined && !/^[0-9a-f]{1,12}$/.test(to))
    throw new PipelineError(`"${to}" is no release (make releases)`);
  await reaching(where, async (commands) => {
    const previous = await commands.current();
    // Without a release to go to, the program chooses the one before.
    const done = await commands.rollback({ release: to ?? '' });
    const answers = await commands.smoke();
    const now = await commands.current();
    outputs({
      outcome: done && answers ? 'deployed' : 'failed',
      ref: now?.image ?? '',
      previous: previous?.image ?? '',
    });
    tell(`### ${where.stack}: back from ${previous?.image ?? 'nothing'} to ${now?.image ?? 'nothing'}`);
    if (!done || !answers) throw new PipelineError(done ? 'It does not answer' : 'The rollback failed');
  });
}

/** What runs, that it answers, and that nobody changed it by hand. */
async function inspect(): Promise<void> {
  const where = target(undefined);
  await reaching(where, async (commands) => {
    const now = await commands.current();
    if (now === undefined) throw new PipelineError(`${where.stack} was never deployed from this state`);
    const answers = await commands.smoke();
    const drifted = flag('DRIFT', true) && !(await commands.drift());
    outputs({ outcome: answers && !drifted ? 'deployed' : 'failed', ref: now.image, previous: now.image });
    tell(
      `### ${where.stack} runs ${now.image}; ${answers ? 'answers' : 'DOES NOT ANSWER'}${drifted ? '; DRIFTED' : ''}`,
    );
    if (!answers || drifted) throw new PipelineError(answers ? 'Somebody changed what runs' : 'It does not answer');
  });
}

/** For each environment a branch to start its nightly look on; one that has none is never deployed to, and is told. */
async function branches(): Promise<void> {
  const path = `repos/${required('REPOSITORY', 'owner/name')}/branches?per_page=100`;
  const names = await output(run, 'gh', ['api', '--paginate', path, '--jq', '.[].name']);
  const standing = standingFor(names.split('\n'));
  for (const { environment, branch } of standing) {
    const words = branch ?? `no branch ${branchesOf(environment).join(' or ')}: nobody looks at it`;
    tell(`- ${environment}: ${words}`);
  }
  const found = standing.flatMap(({ branch }) => branch ?? []);
  if (found.length === 0) throw new PipelineError('The repository has no branch of the map: nothing is looked at');
  outputs({ branches: found.join(' ') });
}

/** The one required check: a job that was skipped is no success, unless it is named in MAY_SKIP. */
function allGreen(): Promise<void> {
  const needs = JSON.parse(required('NEEDS', 'the needs context as JSON')) as Record<string, { result: string }>;
  const maySkip = lines('MAY_SKIP');
  const red = Object.entries(needs).filter(
    ([job, { result }]) => result !== 'success' && !(result === 'skipped' && maySkip.includes(job)),
  );
  if (Object.keys(needs).length === 0) throw new PipelineError('No job was waited for');
  if (red.length > 0) throw new PipelineError(red.map(([job, { result }]) => `${job}: ${result}`).join('\n'));
  tell(`All ${Object.keys(needs).length} jobs are green.`);
  return Promise.resolve();
}

/** A tag is a version that never changes: the one of package.json, of the recorded interface and of the changelog. */
function release(): Promise<void> {
  const ref = required('REF', 'refs/tags/vX.Y.Z');
  const versionIn = (file: string) => (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
  const version = versionIn('package.json');
  if (ref !== `refs/tags/v${version}`)
    throw new PipelineError(`${ref} is not v${version}, the version in package.json`);
  const recorded = versionIn('tests/workflows/interface.json');
  if (recorded !== version) {
    throw new PipelineError(`The recorded interface is of ${recorded}, not ${version}: make pipeline RECORD=1`);
  }
  const notes = notesOf(readFileSync('CHANGELOG.md', 'utf8'), version);
  if (notes === undefined) {
    throw new PipelineError(`CHANGELOG.md has no section "## [${version}] - YYYY-MM-DD" that says something`);
  }
  const file = text('NOTES');
  if (file !== undefined) writeFileSync(file, notes);
  tell(`Version ${version}`);
  return Promise.resolve();
}

/** What the changelog says of a version; undefined where it says nothing. */
function notesOf(changelog: string, version: string): string | undefined {
  const sections = changelog.split(/^(?=## )/m);
  const own = sections.find((section) => section.startsWith(`## [${version}] - `));
  const notes = own?.replace(/^.*\n/, '').trim();
  return notes === '' ? undefined : notes;
}

function text(name: string): string | undefined {
  const value = process.env[name];
  return value === undefined || value === '' ? undefined : value;
}

function required(name: string, what: string): string {
  const value = text(name);
  if (value === undefined) throw new PipelineError(`${name} is missing: ${what}`);
  return value;
}

function lines(name: string): string[] {
  return (text(name) ?? '')
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);
}

function flag(name: string, fallback: boolean): boolean {
  const value = text(name);
  if (value === undefined) return fallback;
  if (['true', '1'].includes(value)) return true;
  if (['false', '0'].includes(value)) return false;
  throw new PipelineError(`${name} must be true or false, not "${value}"`);
}

async function commit(): Promise<string> {
  const given = text('COMMIT');
  if (given !== undefined) return given;
  const { code, stdout } = await run('git', ['rev-parse', 'HEAD']);
  if (code !== 0) throw new PipelineError('COMMIT is missing, and this is no git repository');
  return stdout.trim();
}

/** To the job's log, and to its summary. */
function tell(words: string): void {
  console.log(words);
  const summary = text('GITHUB_STEP_SUMMARY');
  if (summary !== undefined) appendFileSync(summary, `${words}\n\n`);
}

function outputs(values: Readonly<Record<string, string>>): void {
  const file = text('GITHUB_OUTPUT');
  for (const [name, value] of Object.entries(values)) {
    if (/[\r\n]/.test(value)) throw new PipelineError(`The output ${name} has more than one line`);
    if (file !== undefined) appendFileSync(file, `${name}=${value}\n`);
  }
}

async function main(): Promise<void> {
  const step = steps[process.argv[2] ?? ''];
  if (step === undefined) throw new PipelineError(`usage: main.ts ${Object.keys(steps).join('|')}`);
  await step();
}

main().catch((error: unknown) => {
  // The runner shows this line at the job as well.
  const words = error instanceof PipelineError ? error.message : String(error instanceof Error ? error.stack : error);
  console.error(text('GITHUB_ACTIONS') === undefined ? words : `::error::${words.replaceAll('\n', '%0A')}`);
  process.exitCode = 1;
});
