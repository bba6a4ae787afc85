import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { ROOT } from './files';
import { toolEnvironment } from './linters';
import pins from './pins.json';

/**
 * The graph of jobs, run by act on this machine. Ours is real: the actions, the steps, the build, the registry. The actions of others and
 * the commands that would reach for the world (Trivy, Pulumi, the program's make) are stubs that write down what they are
 * asked. act has no approvals, permissions and queues: those are looked at in the files (rules.ts).
 */
export interface Stage {
  readonly directory: string;
  /** Lines of the stubs, in order. */
  log(): string[];
  run(fate: Fate): Ran;
  remove(): void;
}

export interface Fate {
  readonly workflow: string;
  readonly event: 'push' | 'workflow_dispatch' | 'schedule';
  readonly branch: string;
  /** What `make smoke` answers, one after the other; then true. */
  readonly smoke?: readonly boolean[];
  readonly tests?: boolean;
  readonly up?: boolean;
  readonly rollback?: boolean;
  /** What Trivy finds. */
  readonly secret?: boolean;
  /** Nobody has signed what cosign is asked about. */
  readonly unsigned?: boolean;
  /** What runs is of a commit that came after the one that is pushed. */
  readonly overtaken?: boolean;
  /** What runs before; undefined when nothing was ever deployed. */
  readonly before?: string;
  readonly variables: Readonly<Record<string, string>>;
}

export interface Ran {
  readonly green: boolean;
  readonly output: string;
}

const LIBRARY = 'library/branchloans';
const VERSION = 'v1';

/** What act does not know, in its words; references to ourselves as another repository writes them. */
const forAct = (text: string) =>
  text
    .replaceAll('uses: $/', `uses: ${LIBRARY}/`)
    .replace(new RegExp(`(uses: ${LIBRARY}/[^\\s@]+)$`, 'gm'), `$1@${VERSION}`)
    .replace(/^ +queue: max\n/gm, '')
    .replace(/^ +deployment: false\n/gm, '')
    .replace(/^ +artifact-metadata: write.*\n/gm, '');

const STUB_ACTIONS: Readonly<Record<string, string>> = {
  'actions/checkout': 'cp -r "$STAGE/repository/." .',
  'actions/upload-artifact':
    'mkdir -p "$STAGE/artifacts/$NAME" && cp -r "$WHAT"/. "$STAGE/artifacts/$NAME" 2>/dev/null || cp "$WHAT" "$STAGE/artifacts/$NAME"',
  'actions/download-artifact': 'mkdir -p "$WHAT" && cp -r "$STAGE/artifacts/$NAME"/. "$WHAT"',
};

const COMMANDS: Readonly<Record<string, string>> = {
  trivy: `[[ $1 == --version ]] && { echo '{"Version": "0.74.0"}'; exit; }
while [[ $# -gt 0 ]]; do [[ $1 == --output ]] && file=$2; shift; done
if [[ -e $STAGE/secret ]]; then
  echo '{"SchemaVersion": 2, "Results": [{"Target": "/key", "Secrets": [{"RuleID": "private-key", "Severity": "CRITICAL", "Title": "Key"}]}]}' > "$file"
else echo '{"SchemaVersion": 2}' > "$file"; fi`,
  // A login reads the token that is piped to it, or the pipe breaks.
  cosign:
    'echo "cosign $*" >> "$STAGE/log"; [[ $1 != login ]] || cat > /dev/null; [[ $1 != verify || ! -e $STAGE/unsigned ]]',
  // The branches are those of the repository.
  gh: `echo "gh $*" >> "$STAGE/log"; [[ $1 != api ]] || git -C "$STAGE/repository" for-each-ref --format '%(refname:short)' refs/heads`,
  pulumi: `case "$1 $2" in
  "config set") echo "set $5 $6" >> "$STAGE/log"; if [[ $5 == *:image ]]; then echo "$6" > "$STAGE/wanted"; fi ;;
  "stack output") [[ -e $STAGE/current ]] && echo "{\\"image\\": \\"$(cat "$STAGE/current")\\", \\"release\\": {\\"commit\\": \\"$(cat "$STAGE/later" 2> /dev/null)\\"}}" ;;
esac`,
  make: `echo "make $*" >> "$STAGE/log"
case $1 in
  up) [[ -e $STAGE/up-fails ]] && exit 1; cp "$STAGE/wanted" "$STAGE/current" ;;
  smoke) read -r answer < "$STAGE/smoke"; sed -i 1d "$STAGE/smoke"; [[ $answer != false ]] ;;
  rollback) [[ -e $STAGE/rollback-fails ]] && exit 1; cp "$STAGE/before" "$STAGE/current" ;;
esac`,
};

/** @param files of the repository that calls the library, besides a Dockerfile and a stack of each environment */
export function stage(files: Readonly<Record<string, string>>): Stage {
  const root = mkdtempSync(join(tmpdir(), 'act-'));
  const [library, directory, commands, stubs] = ['library', 'repository', 'commands', 'stubs'].map((name) =>
    join(root, name),
  );
  const write = (file: string, text: string) => {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  };
  const commit = (where: string) => {
    const git = (...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', ...args], { cwd: where });
    git('init', '--quiet', '--initial-branch=main');
    git('add', '--all', '--force');
    git('commit', '--quiet', '--message', 'all');
  };

  cpSync(join(ROOT, '.github'), join(library!, '.github'), { recursive: true });
  execFileSync('find', [join(library!, '.github'), '-name', '*.yml'], { encoding: 'utf8' })
    .split('\n')
    .filter(Boolean)
    .forEach((file) => writeFileSync(file, forAct(readFileSync(file, 'utf8'))));
  commit(library!);

  for (const [name, text] of Object.entries(COMMANDS)) {
    write(join(commands!, name), `#!/usr/bin/env bash\n${text}\n`);
    chmodSync(join(commands!, name), 0o755);
  }
  const replaced = Object.entries(pins).flatMap(([action, { commit: pin }]) => {
    const work = STUB_ACTIONS[action] ?? `echo "uses ${action}" >> "$STAGE/log"`;
    const env = 'env: { NAME: "${{ inputs.name }}", WHAT: "${{ inputs.path }}" }';
    write(
      join(stubs!, action, 'action.yml'),
      `name: stub\ninputs: { name: { default: "" }, path: { default: "" } }\nruns:\n  using: composite\n  steps:\n    - shell: bash\n      run: ${JSON.stringify(work)}\n      ${env}\n`,
    );
    commit(join(stubs!, action));
    return ['--local-repository', `${action}@${pin}=${join(stubs!, action)}`];
  });

  const stacks = ['development', 'staging', 'production'].map((name) => [
    `Pulumi.${name}.yaml`,
    'encryptionsalt: v1:x\nconfig: {}\n',
  ]);
  const all: Record<string, string> = {
    Dockerfile: 'FROM scratch\nARG COMMIT\nENV COMMIT=${COMMIT}\nCOPY Pulumi.yaml /\n',
    'Pulumi.yaml': 'name: branchloans\n',
    '.nvmrc': '24\n',
    ...Object.fromEntries(stacks),
    ...files,
  };
  for (const [file, text] of Object.entries(all)) write(join(directory!, file), forAct(text));
  execFileSync('chmod', ['-R', 'a+x', directory!]);
  commit(directory!);
  execFileSync('git', ['remote', 'add', 'origin', 'https://github.com/me/loans.git'], { cwd: directory! });

  return {
    directory: directory!,
    log: () => (existsSync(join(root, 'log')) ? readFileSync(join(root, 'log'), 'utf8').trim().split('\n') : []),
    run({
      workflow,
      event,
      branch,
      smoke = [],
      tests = true,
      up = true,
      rollback = true,
      secret = false,
      unsigned = false,
      overtaken = false,
      before,
      variables,
    }) {
      const marks = { 'tests-fail': !tests, 'up-fails': !up, 'rollback-fails': !rollback, secret, unsigned };
      for (const file of ['log', 'later', 'wanted', 'current', 'before', 'artifacts', ...Object.keys(marks)])
        rmSync(join(root, file), { recursive: true, force: true });
      for (const [file, there] of Object.entries(marks)) if (there) writeFileSync(join(root, file), '');
      writeFileSync(join(root, 'smoke'), smoke.map((answer) => `${String(answer)}\n`).join('') + 'true\n'.repeat(9));
      if (before !== undefined) for (const file of ['current', 'before']) writeFileSync(join(root, file), before);
      const git = (...args: string[]) =>
        execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', ...args], {
          cwd: directory!,
          encoding: 'utf8',
        }).trim();
      git('checkout', '--quiet', '-B', branch);
      // Every push is another commit: the tag of one is never overwritten.
      git('commit', '--quiet', '--allow-empty', '--message', 'push');
      const commitOf = git('rev-parse', 'HEAD');
      // On top of it, and in the same repository; what is checked out stays.
      if (overtaken) {
        const later = git('commit-tree', 'HEAD^{tree}', '-p', 'HEAD', '-m', 'later');
        writeFileSync(join(root, 'later'), later);
      }
      writeFileSync(
        join(root, 'event.json'),
        JSON.stringify({
          ref: `refs/heads/${branch}`,
          after: commitOf,
          repository: { full_name: 'me/loans', name: 'loans' },
          inputs: {},
        }),
      );
      const vars = Object.entries({ DOCKER_USERNAME: 'me', ...variables }).flatMap(([name, value]) => [
        '--var',
        `${name}=${value}`,
      ]);
      const secrets = ['DOCKER_PASSWORD', 'PULUMI_CONFIG_PASSPHRASE'].flatMap((name) => [
        '--secret',
        `${name}=not-${name.length}`,
      ]);
      const { status, stdout, stderr } = spawnSync(
        'act',
        [
          ...[
            event,
            '--workflows',
            join(directory!, '.github/workflows', workflow),
            '--eventpath',
            join(root, 'event.json'),
          ],
          ...['--platform', 'ubuntu-24.04=-self-hosted', '--container-daemon-socket', '-', '--action-offline-mode'],
          ...['--local-repository', `${LIBRARY}@${VERSION}=${library!}`, ...replaced, ...vars, ...secrets],
          ...[
            '--secret',
            'GITHUB_TOKEN=',
            '--env',
            `STAGE=${root}`,
            '--action-cache-path',
            join(root, 'cache'),
            '--no-cache-server',
          ],
        ],
        {
          cwd: directory!,
          encoding: 'utf8',
          maxBuffer: 64 << 20,
          env: { ...toolEnvironment, PATH: `${commands!}:${toolEnvironment.PATH}`, HOME: root, STAGE: root },
        },
      );
      return { green: status === 0, output: `${stdout}${stderr}` };
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}

export const ownWorkflow = (name: string) => readFileSync(join(ROOT, '.github/workflows', name), 'utf8');
