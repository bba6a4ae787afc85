import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BRANCHES } from '../../pipeline/branches';
import { type Job, type Library, needsOf, ROOT, type Step } from './files';
import pins from './pins.json';

/**
 * Mistakes that a workflow must not have, as questions to its parsed files. Each rule comes with a mutant: a change of one of
 * our files that brings the mistake in, and that the rule must find.
 */
export interface Rule {
  readonly name: string;
  /** What is wrong, each with its place; empty when nothing is. */
  readonly faults: (library: Library) => string[];
  /** File below .github, text in it, and what is put in its place. */
  readonly mutants: readonly (readonly [file: string, find: string | RegExp, replace: string])[];
}

interface Place {
  readonly at: string;
  readonly file: string;
  readonly job?: Job;
  readonly step: Step;
}

const jobsOf = ({ workflows }: Library) =>
  Object.entries(workflows).flatMap(([file, { jobs }]) =>
    Object.entries(jobs).map(([name, job]) => ({ at: `${file}.${name}`, file, name, job })),
  );

const stepsOf = (library: Library): Place[] => [
  ...jobsOf(library).flatMap(({ at, file, job }) =>
    (job.steps ?? []).map((step, index) => ({ at: `${at}[${index}]`, file, job, step })),
  ),
  ...Object.entries(library.actions).flatMap(([file, { runs }]) =>
    runs.steps.map((step, index) => ({ at: `action ${file}[${index}]`, file, step })),
  ),
];

const text = (value: unknown) => JSON.stringify(value ?? '');
const usesSecret = (value: unknown) => /secrets\.(?!GITHUB_TOKEN)/.test(text(value));
/** Writing permissions, and why a job may have them. */
const MAY_WRITE: Readonly<Record<string, readonly string[]>> = {
  'image.publish': ['id-token', 'attestations', 'artifact-metadata'],
  'cd.image': ['id-token', 'attestations', 'artifact-metadata'],
  // The called file asks for them in a job that a pull request never runs.
  'ci.image': ['id-token', 'attestations', 'artifact-metadata'],
  'promote.copy': ['id-token', 'attestations', 'artifact-metadata'],
  'nightly.start': ['actions'],
  'release.release': ['contents'],
  'scorecard.scorecard': ['security-events'],
};
const TRIGGERS = ['push', 'pull_request', 'workflow_call', 'workflow_dispatch', 'schedule'];
const STOLEN = [
  'ddb9da4475c1cef7d5389062bdfdfbdbd1394648',
  '91e7c2c36dcad14149d8e455b960af62a2ffb275',
  '8afa9b9f9183b4e00c46e2b82d34047e3c177bd0',
];

export const RULES: readonly Rule[] = [
  {
    name: '1: no expression inside a script',
    faults: (library) =>
      stepsOf(library).flatMap(({ at, step }) =>
        /\$\{\{/.test(step.run ?? '') || /\$\{\{/.test(text(step.with?.['script']))
          ? [`${at}: an expression in a script`]
          : [],
      ),
    mutants: [['workflows/nightly.yml', '"$branch"', '"${{ github.ref_name }}"']],
  },
  {
    name: '2: only triggers that run no foreign code with keys',
    faults: ({ workflows, files }) => [
      ...Object.entries(workflows).flatMap(([file, { on }]) =>
        Object.keys(on).flatMap((trigger) => (TRIGGERS.includes(trigger) ? [] : [`${file}: on ${trigger}`])),
      ),
      ...Object.entries(files).flatMap(([file, content]) =>
        content.includes('allow-unsafe-pr-checkout') ? [`${file}: allow-unsafe-pr-checkout`] : [],
      ),
    ],
    mutants: [
      ['workflows/ci.yml', 'pull_request:', 'pull_request_target:'],
      [
        'workflows/ci.yml',
        'persist-credentials: false',
        'persist-credentials: false\n          allow-unsafe-pr-checkout: true',
      ],
    ],
  },
  {
    name: '3: no secret in build arguments, outputs or the environment of a whole job',
    faults: (library) => [
      ...Object.entries(library.workflows).flatMap(([file, { env, on }]) => [
        ...(usesSecret(env) ? [`${file}: secret in the environment of the workflow`] : []),
        ...(usesSecret(on) ? [`${file}: secret in an output`] : []),
      ]),
      ...jobsOf(library).flatMap(({ at, job }) => [
        ...(usesSecret(job.env) ? [`${at}: secret in the environment of the job`] : []),
        ...(usesSecret(job.outputs) ? [`${at}: secret in an output`] : []),
        ...(usesSecret(job.with) ? [`${at}: secret in an input`] : []),
      ]),
      ...stepsOf(library).flatMap(({ at, step }) => [
        ...(['build-args', 'labels', 'tags', 'settings'].some((name) => usesSecret(step.with?.[name]))
          ? [`${at}: secret in ${text(step.uses)}`]
          : []),
        ...(/GITHUB_ENV/.test(step.run ?? '') ? [`${at}: writes to GITHUB_ENV`] : []),
      ]),
      ...Object.entries(library.files).flatMap(([file, content]) =>
        /secrets\.DOCKER_USERNAME/.test(content) ? [`${file}: the registry's user must be a variable`] : [],
      ),
    ],
    mutants: [
      [
        'workflows/image.yml',
        'build-args: ${{ inputs.build-args }}',
        'build-args: TOKEN=${{ secrets.DOCKER_PASSWORD }}',
      ],
      [
        'workflows/image.yml',
        '      ref: ${{ steps.publish.outputs.ref }}',
        '      ref: ${{ secrets.DOCKER_PASSWORD }}',
      ],
      ['workflows/cd.yml', '${{ vars.DOCKER_USERNAME }}', '${{ secrets.DOCKER_USERNAME }}'],
      ['workflows/release.yml', 'run: make workflows', 'run: echo "A=$B" >> "$GITHUB_ENV"'],
    ],
  },
  {
    name: '4: every action is ours or pinned, by the commit in pins.json and its tag in a comment; every image by digest',
    faults: ({ files, workflows }) => [
      ...Object.entries(files).flatMap(([file, content]) =>
        [...content.matchAll(/^\s*(?:- )?uses: (\S+)(?: # (\S+))?\s*$/gm)].flatMap(([, uses = '', tag]) => {
          if (uses.startsWith('$/')) return [];
          const [path = '', commit] = uses.split('@');
          const pin = (pins as Record<string, { tag: string; commit: string }>)[path.split('/').slice(0, 2).join('/')];
          if (pin === undefined) return [`${file}: ${uses} is not in pins.json`];
          if (STOLEN.includes(commit ?? '')) return [`${file}: ${uses} was published by thieves`];
          return pin.commit === commit && pin.tag === tag
            ? []
            : [`${file}: ${uses} # ${tag ?? ''} is not ${text(pin)}`];
        }),
      ),
      ...Object.entries(files).flatMap(([file, content]) => [
        ...(/\b(npx|npm install|pip install|curl [^\n]*\|)/.test(content)
          ? [`${file}: fetches a tool that is not pinned`]
          : []),
        ...(/version:\s*(latest|'?\^)/.test(content) ? [`${file}: a moving version of a tool`] : []),
      ]),
      ...Object.entries(workflows).flatMap(([file, { jobs }]) =>
        Object.values(jobs).flatMap((job) =>
          Object.values(job.services ?? {}).flatMap(({ image = '' }) =>
            image.includes('@sha256:') ? [] : [`${file}: service ${image} without digest`],
          ),
        ),
      ),
    ],
    mutants: [
      ['actions/scan/action.yml', /setup-trivy@\w+ # v0.3.1/, 'setup-trivy@master'],
      [
        'actions/scan/action.yml',
        '81e514348e19b6112ce2a7e3ecbafe19c1e1f567',
        '8afa9b9f9183b4e00c46e2b82d34047e3c177bd0',
      ],
      ['workflows/cd.yml', '# v7.0.1', '# v6.0.0'],
      ['actions/scan/action.yml', 'version: v0.74.0', 'version: latest'],
      ['workflows/cd.yml', 'run: .ci/run', 'run: npx jest'],
      ['workflows/cd.yml', '    steps:\n', '    services: { db: { image: "postgres:18" } }\n    steps:\n'],
    ],
  },
  {
    name: '5: what is scanned is what is pushed and deployed: one build, and the digest at each hand-over',
    faults: (library) => {
      const { image, cd, promote } = library.workflows;
      const builds = stepsOf(library).filter(
        ({ step }) =>
          /actions\/build$|build-push-action/.test(step.uses ?? '') ||
          /docker (buildx |image )?build|pipeline\.js" image/.test(step.run ?? ''),
      );
      const publish = image?.jobs['publish'];
      const input = (job: Job | undefined, action: string) =>
        job?.steps?.find(({ uses }) => uses?.endsWith(`actions/${action}`))?.with ?? {};
      const wanted: [string, unknown, string][] = [
        [
          'scan takes the digest of the build',
          input(image?.jobs['scan'], 'scan')['digest'],
          'needs.build.outputs.digest',
        ],
        ['publish takes the scanned digest', input(publish, 'publish')['digest'], 'needs.scan.outputs.scanned-digest'],
        ['cd deploys what was published', cd?.jobs['deploy']?.with?.['ref'], 'needs.image.outputs.ref'],
        ['promote deploys what was copied', promote?.jobs['deploy']?.with?.['ref'], 'needs.copy.outputs.ref'],
        [
          'the contents are of what was scanned',
          library.actions['scan']?.runs.steps.at(-1)?.env?.['DIGEST'],
          'steps.scan.outputs.scanned-digest',
        ],
        [
          'scan says its digest only after the gate',
          library.actions['scan']?.outputs?.['scanned-digest']?.value,
          'steps.sbom.outputs.digest',
        ],
      ];
      return [
        // One in the action, one that uses it.
        ...(builds.length === 2 ? [] : [`${builds.length} steps build: ${builds.map(({ at }) => at).join(', ')}`]),
        ...(publish !== undefined && needsOf(publish).includes('scan') ? [] : ['image.publish does not need the scan']),
        ...((publish?.steps ?? []).some(({ uses, run }) => uses?.includes('checkout') || run)
          ? ['image.publish does more than push']
          : []),
        ...wanted.flatMap(([what, found, value]) => (found === `\${{ ${value} }}` ? [] : [`not so: ${what}`])),
      ];
    },
    mutants: [
      [
        'workflows/image.yml',
        '${{ needs.scan.outputs.scanned-digest }}\n          image',
        '${{ needs.build.outputs.digest }}\n          image',
      ],
      ['workflows/image.yml', 'needs: [plan, build, scan]', 'needs: [plan, build]'],
      ['workflows/image.yml', 'digest: ${{ needs.build.outputs.digest }}', "digest: ''"],
      ['workflows/cd.yml', 'ref: ${{ needs.image.outputs.ref }}', 'ref: ${{ needs.image.outputs.image }}:latest'],
      ['workflows/image.yml', '      - id: publish\n', '      - uses: $/.github/actions/build\n      - id: publish\n'],
      ['actions/scan/action.yml', 'value: ${{ steps.sbom.outputs.digest }}', 'value: ${{ inputs.digest }}'],
    ],
  },
  {
    name: '6: no gate is soft',
    faults: (library) => [
      ...[
        ...jobsOf(library).map(({ at, job }) => [at, job] as const),
        ...stepsOf(library).map(({ at, step }) => [at, step] as const),
      ].flatMap(([at, each]) => (each['continue-on-error'] === undefined ? [] : [`${at}: continue-on-error`])),
      ...stepsOf(library).flatMap(({ at, step }) => [
        ...(/\|\|\s*(true|:|exit 0)|set \+e/.test(step.run ?? '') ? [`${at}: a failure is swallowed`] : []),
        ...(step.env?.['OFFLINE'] !== undefined ? [`${at}: scans without vulnerabilities`] : []),
        ...(/always\(\)|failure\(\)/.test(step.if ?? '') ? [`${at}: runs after a failure`] : []),
      ]),
    ],
    mutants: [
      ['workflows/image.yml', '      - id: scan\n', '      - id: scan\n        continue-on-error: true\n'],
      ['workflows/cd.yml', 'run: .ci/run', 'run: .ci/run || true'],
      ['actions/scan/action.yml', '        SEVERITY:', '        OFFLINE: 1\n        SEVERITY:'],
      ['workflows/image.yml', '      - id: publish\n', '      - id: publish\n        if: always()\n'],
    ],
  },
  {
    name: '7: every script does something, and every make target that is called exists',
    faults: (library) => {
      const makefile = readFileSync(join(ROOT, 'Makefile'), 'utf8');
      return stepsOf(library).flatMap(({ at, step: { run } }) => {
        if (run === undefined) return [];
        const real = run.split('\n').filter((line) => !/^\s*(echo\b.*|true|:|exit 0|#.*)?$/.test(line));
        const targets = [...run.matchAll(/\bmake ([a-z-]+)/g)].map(([, target]) => target);
        return [
          ...(real.length === 0 ? [`${at}: a placeholder`] : []),
          ...targets.flatMap((target) =>
            makefile.includes(`\n${target}:`) ? [] : [`${at}: there is no make ${target}`],
          ),
        ];
      });
    },
    mutants: [
      ['workflows/cd.yml', 'run: .ci/run', 'run: echo "Running tests"'],
      ['workflows/ci.yml', 'run: make workflows', 'run: make lint-workflows'],
    ],
  },
  {
    name: "8: every job has a time limit, and a deploy's is longer than the program waits",
    faults: (library) => [
      ...jobsOf(library).flatMap(({ at, job }) =>
        job.steps !== undefined && job['timeout-minutes'] === undefined ? [`${at}: no timeout-minutes`] : [],
      ),
      ...(() => {
        const call = library.workflows['deploy']?.on['workflow_call'];
        const limit = Number(call?.inputs?.['timeout-minutes']?.default);
        const wait = Number.parseInt(library.actions['deploy']?.runs.steps.at(-1)?.env?.['WAIT'] ?? '', 10);
        return limit >= wait + 30 ? [] : [`deploy: ${limit} minutes are too few for waiting ${wait}`];
      })(),
    ],
    mutants: [
      ['workflows/cd.yml', '    timeout-minutes: 45\n', ''],
      ['workflows/deploy.yml', 'default: 60', 'default: 15'],
    ],
  },
  {
    name: '9: nobody may more than needed',
    faults: (library) => [
      ...Object.entries(library.workflows).flatMap(([file, { permissions }]) =>
        text(permissions) === '{}' ? [] : [`${file}: permissions at the top are not empty`],
      ),
      ...jobsOf(library).flatMap(({ at, job }) => [
        ...(typeof job.permissions === 'object' ? [] : [`${at}: no permissions of its own`]),
        ...Object.entries(typeof job.permissions === 'object' ? job.permissions : {}).flatMap(([scope, level]) =>
          level === 'write' && !(MAY_WRITE[at] ?? []).includes(scope) ? [`${at}: may write ${scope}`] : [],
        ),
        ...(job.secrets === 'inherit' ? [`${at}: inherits all secrets`] : []),
      ]),
      ...stepsOf(library).flatMap(({ at, step }) =>
        step.uses?.startsWith('actions/checkout@') && step.with?.['persist-credentials'] !== false
          ? [`${at}: leaves the token in the checkout`]
          : [],
      ),
    ],
    mutants: [
      ['workflows/cd.yml', 'permissions: {}', 'permissions: write-all'],
      ['workflows/cd.yml', 'contents: read # to check the commit out\n    steps', 'contents: write # why\n    steps'],
      ['workflows/rollback.yml', /secrets:\n( {6}.*\n)+/, 'secrets: inherit\n'],
      ['workflows/cd.yml', 'persist-credentials: false', 'persist-credentials: true'],
    ],
  },
  {
    name: '10: deploys of one environment queue, and none is cut off',
    faults: (library) => {
      const groups = Object.values(library.workflows).map(({ concurrency }) => concurrency?.group ?? '');
      return [
        ...jobsOf(library).flatMap(({ at, job }) => {
          if (!(job.steps ?? []).some(({ uses }) => uses?.endsWith('actions/deploy'))) return [];
          const { group, queue, 'cancel-in-progress': cancel } = job.concurrency ?? { group: '' };
          return [
            ...(/inputs\.environment/.test(group) && !/ref|sha/.test(group)
              ? []
              : [`${at}: its group is not the environment`]),
            ...(cancel === false ? [] : [`${at}: may be cancelled`]),
            ...(queue === 'max' ? [] : [`${at}: a third deploy would push the second out of the queue`]),
            ...(groups.includes(group) ? [`${at}: waits for itself`] : []),
          ];
        }),
        ...['cd', 'rollback', 'promote'].flatMap((file) =>
          library.workflows[file]?.concurrency?.['cancel-in-progress'] === false ? [] : [`${file}: may be cancelled`],
        ),
        ...(/github\.sha/.test(library.workflows['cd']?.concurrency?.group ?? '')
          ? []
          : ['cd: a push may displace another']),
      ];
    },
    mutants: [
      ['workflows/deploy.yml', 'group: deploy-${{ inputs.environment }}', 'group: deploy-${{ github.ref }}'],
      ['workflows/deploy.yml', 'cancel-in-progress: false', 'cancel-in-progress: true'],
      ['workflows/deploy.yml', '      queue: max\n', ''],
      ['workflows/cd.yml', /group: cd-.*/, 'group: deploy-${{ inputs.environment }}'],
      ['workflows/cd.yml', 'cancel-in-progress: false', 'cancel-in-progress: true'],
    ],
  },
  {
    name: '11: nothing is deployed by a tag',
    faults: (library) =>
      Object.entries(library.files).flatMap(([file, content]) =>
        /:latest\b/.test(content) ? [`${file}: names :latest`] : [],
      ),
    mutants: [
      ['workflows/rollback.yml', 'operation: rollback', 'operation: deploy\n      ref: docker.io/me/loans:latest'],
    ],
  },
  {
    name: '12: no cache that a pull request could fill',
    faults: (library) =>
      stepsOf(library).flatMap(({ at, step }) => [
        ...(/^actions\/cache|cache-from/.test(`${step.uses ?? ''}${text(step.with)}`) ? [`${at}: a cache`] : []),
        ...(step.uses?.startsWith('actions/setup-node@') && step.with?.['package-manager-cache'] !== false
          ? [`${at}: npm's cache`]
          : []),
        ...(step.uses?.startsWith('aquasecurity/setup-trivy@') && step.with?.['cache'] !== false
          ? [`${at}: Trivy's cache`]
          : []),
      ]),
    mutants: [
      ['workflows/cd.yml', '          package-manager-cache: false\n', ''],
      ['actions/scan/action.yml', 'cache: false', 'cache: true'],
    ],
  },
  {
    name: '13: the lists of branches are those of the map',
    faults: ({ workflows }) => {
      const map = Object.keys(BRANCHES).sort().join();
      const lists = {
        'ci on pull_request': workflows['ci']?.on['pull_request'],
        'cd on push': workflows['cd']?.on['push'],
      };
      return [
        ...Object.entries(lists).flatMap(([what, on]) =>
          [...(on?.branches ?? [])].sort().join() === map && Object.keys(on ?? {}).length === 1
            ? []
            : [`${what}: not the branches of the map`],
        ),
        ...['cd', 'image'].flatMap((file) =>
          Object.values(workflows[file]?.jobs ?? {}).flatMap((job) =>
            /refs\/heads|github\.ref ==|contains\(/.test(text([job.if, job.with]))
              ? [`${file}: maps branches by itself`]
              : [],
          ),
        ),
      ];
    },
    mutants: [
      ['workflows/cd.yml', 'staging, master', 'master'],
      ['workflows/ci.yml', 'production]', "production, 'release/**']"],
      [
        'workflows/cd.yml',
        'environment: ${{ needs.image.outputs.environment }}',
        "environment: ${{ github.ref == 'refs/heads/main' && 'staging' || 'production' }}",
      ],
    ],
  },
  {
    name: "14: a library's own parts are found in the library, also when another repository calls it",
    faults: (library) =>
      [
        ...stepsOf(library).map(({ at, step }) => [at, step.uses] as const),
        ...jobsOf(library).map(({ at, job }) => [at, job.uses] as const),
      ].flatMap(([at, uses]) => (uses?.startsWith('./') ? [`${at}: ${uses} is the caller's`] : [])),
    mutants: [['workflows/image.yml', '$/.github/actions/scan', './.github/actions/scan']],
  },
  {
    name: '15: the way back needs no second approval and hides nothing',
    faults: (library) => [
      ...jobsOf(library).flatMap(({ at, file, job }) =>
        file !== 'rollback' && (/rollback/.test(text(job.with)) || /failure\(\)/.test(job.if ?? ''))
          ? [`${at}: a rollback in a job of its own`]
          : [],
      ),
      ...(library.actions['deploy']?.runs.steps.filter(({ run }) => run?.match(/pipeline\.js" (?!verify\b)/)).length ===
      1
        ? []
        : ['action deploy: not one step for the deploy and its way back']),
    ],
    mutants: [
      [
        'workflows/cd.yml',
        '  deploy:\n    name: deploy\n    needs: image',
        '  deploy:\n    name: deploy\n    if: failure()\n    needs: image',
      ],
      [
        'actions/deploy/action.yml',
        /$/,
        '    - shell: bash\n      run: node "$GITHUB_ACTION_PATH/../../pipeline.js" rollback\n',
      ],
    ],
  },
  {
    name: '16: the required check waits for all, and takes no skipped job for a success',
    faults: ({ workflows }) => {
      const { 'all-green': green, ...others } = workflows['ci']?.jobs ?? {};
      const waited = green === undefined ? [] : needsOf(green);
      const maySkip = (green?.steps?.at(-1)?.env?.['MAY_SKIP'] ?? '').split('\n').filter(Boolean);
      return [
        ...(green?.if === 'always()' ? [] : ['ci.all-green: is itself skipped when a job fails']),
        ...Object.keys(others).flatMap((job) =>
          waited.includes(job) ? [] : [`ci.all-green: does not wait for ${job}`],
        ),
        ...maySkip.flatMap((job) => (others[job]?.if === undefined ? [`ci.all-green: ${job} is never skipped`] : [])),
        ...Object.entries(others).flatMap(([name, job]) =>
          job.if !== undefined && !maySkip.includes(name) ? [`ci.${name}: may be skipped`] : [],
        ),
        ...(green?.steps?.at(-1)?.env?.['NEEDS'] === '${{ toJSON(needs) }}' ? [] : ['ci.all-green: does not look']),
      ];
    },
    mutants: [
      ['workflows/ci.yml', '    if: always()\n', ''],
      ['workflows/ci.yml', 'needs: [plan, test, workflows,', 'needs: [plan, workflows,'],
      ['workflows/ci.yml', '            preview\n', '            preview\n            test\n'],
    ],
  },
  {
    name: '17: no condition that is always true or goes on after a failure',
    faults: (library) =>
      jobsOf(library).flatMap(({ at, job }) => [
        ...(/always\(\)/.test(job.if ?? '') && at !== 'ci.all-green' ? [`${at}: always()`] : []),
        ...(/contains\(\s*'/.test(job.if ?? '') ? [`${at}: contains() on a text`] : []),
      ]),
    mutants: [['workflows/cd.yml', '    needs: image\n', '    needs: image\n    if: always()\n']],
  },
  {
    name: '18: who holds a secret names an environment',
    faults: (library) =>
      jobsOf(library).flatMap(({ at, job }) =>
        job.steps !== undefined && usesSecret(job.steps) && job.environment === undefined
          ? [`${at}: a secret without an environment`]
          : [],
      ),
    mutants: [['workflows/deploy.yml', '    environment: ${{ inputs.environment }}\n', '']],
  },
  {
    name: '19: everything that others use is described, and has a type',
    faults: ({ workflows, actions }) =>
      [
        ...Object.entries(workflows).flatMap(([file, { on }]) => {
          const call = on['workflow_call'] as Record<string, Record<string, { type?: string }>> | undefined;
          return Object.entries(call?.['inputs'] ?? {}).flatMap(([name, { type }]) =>
            type ? [] : [`${file}.${name}: no type`],
          );
        }),
        ...Object.entries({ ...workflows, ...actions }).flatMap(([file, each]) => {
          const holder = ('on' in each ? each.on['workflow_call'] : each) as Record<string, unknown> | null | undefined;
          return ['inputs', 'secrets', 'outputs'].flatMap((kind) =>
            Object.entries((holder?.[kind] ?? {}) as Record<string, { description?: string }>).flatMap(
              ([name, { description }]) => (description ? [] : [`${file}.${name}: no description`]),
            ),
          );
        }),
      ].concat(
        Object.entries(actions).flatMap(([file, { inputs }]) =>
          Object.entries(inputs ?? {}).flatMap(([name, { required, default: value }]) =>
            required === true || (required === false && value !== undefined)
              ? []
              : [`${file}.${name}: neither required nor with a default`],
          ),
        ),
      ),
    mutants: [
      ['workflows/image.yml', '        description: Its Dockerfile\n', ''],
      ['actions/build/action.yml', '    required: false\n    default: image', '    required: false'],
      ['workflows/image.yml', '        type: string\n', ''],
    ],
  },
  {
    name: '20: nothing that writes secrets into a log',
    faults: (library) => [
      ...stepsOf(library).flatMap(({ at, step }) =>
        /set -[a-z]*x|--show-secrets|docker history|printenv|\benv\s*$/m.test(step.run ?? '')
          ? [`${at}: shows what is secret`]
          : [],
      ),
      ...Object.entries(library.files).flatMap(([file, content]) =>
        /toJSON\((secrets|github|env)\)/i.test(content) ? [`${file}: writes a whole context out`] : [],
      ),
    ],
    mutants: [
      ['actions/publish/action.yml', '        cosign sign', '        set -x\n        cosign sign'],
      ['workflows/ci.yml', 'toJSON(needs)', 'toJSON(secrets)'],
    ],
  },
  {
    name: '21: jobs with a token run nothing of the checkout, but the deploy and the preview',
    faults: (library) =>
      jobsOf(library).flatMap(({ at, job }) => {
        const holds = usesSecret(job.steps) || text(job.permissions).includes('"write"');
        const runs = (job.steps ?? []).some(
          ({ uses, run }) => uses?.startsWith('actions/checkout@') || /make |\.\//.test(run ?? ''),
        );
        return holds && runs && !['deploy.deploy', 'ci.preview', 'scorecard.scorecard', 'nightly.rescan'].includes(at)
          ? [`${at}: a token beside the checkout`]
          : [];
      }),
    mutants: [
      [
        'workflows/image.yml',
        '      - id: publish\n',
        '      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1\n        with:\n          persist-credentials: false\n      - id: publish\n',
      ],
      ['workflows/release.yml', 'run: gh release create', 'run: make test && gh release create'],
    ],
  },
  {
    name: '22: one version of a tool everywhere',
    faults: ({ files }) => {
      const { devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
        devDependencies: Record<string, string>;
      };
      const version = devDependencies['@pulumi/pulumi'] ?? '';
      return Object.entries(files).flatMap(([file, content]) => [
        ...[
          ...content.matchAll(/pulumi-version: (\d\S*)|Version of the Pulumi command line\n.*\n\s+default: (\S+)/g),
        ].flatMap(([, a, b]) => ((a ?? b) === version ? [] : [`${file}: Pulumi ${a ?? b ?? ''}, not ${version}`])),
        ...(/uses: pulumi\/actions/.test(content) && !/pulumi-version:/.test(content)
          ? [`${file}: any version of Pulumi`]
          : []),
      ]);
    },
    mutants: [
      ['workflows/ci.yml', 'pulumi-version: 3.265.0', 'pulumi-version: 3.1.0'],
      ['actions/deploy/action.yml', 'default: 3.265.0', 'default: 3.264.0'],
    ],
  },
  {
    name: '23: what is deployed was signed by the one workflow that may, and a signature is never asked for by half a name',
    faults: ({ workflows, actions, files }) => {
      const repository = '${{ github.repository }}/.github/workflows';
      const copy = workflows['promote']?.jobs['copy']?.steps?.find(({ uses }) => uses?.endsWith('actions/publish'));
      const wanted: [string, unknown, string][] = [
        ['cd', workflows['cd']?.jobs['deploy']?.with?.['signer'], `${repository}/image.yml@\${{ github.ref }}`],
        [
          'promote',
          workflows['promote']?.jobs['deploy']?.with?.['signer'],
          `${repository}/promote.yml@\${{ github.ref }}`,
        ],
        ['promote.copy', copy?.with?.['signer'], `${repository}/image.yml@refs/heads/staging`],
      ];
      const steps = actions['deploy']?.runs.steps ?? [];
      const order = ['" verify', '"$OPERATION"'].map((end) => steps.findIndex(({ run }) => run?.endsWith(end)));
      return [
        ...wanted.flatMap(([what, found, value]) => (found === value ? [] : [`${what}: the signer is not ${value}`])),
        ...(order[0]! >= 0 && order[0]! < order[1]! ? [] : ['action deploy: deploys before it verifies']),
        ...Object.entries(files).flatMap(([file, content]) =>
          [...content.matchAll(/--certificate-identity-regexp (\S+)/g)].flatMap(([, pattern = '']) =>
            /^'\^.*\$'$/.test(pattern) && content.includes('--certificate-github-workflow-repository')
              ? []
              : [`${file}: ${pattern} fits other workflows as well`],
          ),
        ),
      ];
    },
    mutants: [
      ['workflows/cd.yml', '/.github/workflows/image.yml@${{ github.ref }}', ''],
      ['workflows/promote.yml', 'image.yml@refs/heads/staging', 'image.yml@refs/heads/main'],
      ['workflows/promote.yml', /( +)signer: .*promote\.yml.*\n/, ''],
      ['actions/publish/action.yml', "@[^@]+$'", "@'"],
      ['actions/deploy/action.yml', 'pipeline.js" verify', 'pipeline.js" plan'],
    ],
  },
];
