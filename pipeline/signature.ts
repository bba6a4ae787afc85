import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { output, PipelineError, type Run } from './run';

/**
 * A keyless signature says which workflow made it: `owner/name/.github/workflows/file.yml@ref`, which is part of its certificate.
 * A library's workflow signs for whoever calls it, so the repository that it ran for is asked for as well.
 */
export interface Signer {
  /** `owner/name/.github/workflows/file.yml@ref`, with the ref in full: `refs/heads/main`, `refs/tags/v1.0.0` or a commit. */
  readonly workflow: string;
  /** `owner/name` of the repository whose run it was. */
  readonly repository: string;
}

const NAME = String.raw`[\w.-]+\/[\w.-]+`;
const WORKFLOW = new RegExp(
  String.raw`^${NAME}\/\.github\/workflows\/[\w.-]+\.ya?ml@(refs\/(heads|tags)\/[\w./-]+|[0-9a-f]{40})$`,
);

/**
 * Asks cosign whether exactly this workflow has signed the image.
 * @throws PipelineError when nobody has, another one has, or the signer could mean more than one workflow
 */
export async function verifySignature(
  ref: string,
  { workflow, repository }: Signer,
  credentials: { readonly user: string; readonly token: string } | undefined,
  run: Run,
): Promise<void> {
  if (!WORKFLOW.test(workflow) || !new RegExp(`^${NAME}$`).test(repository)) {
    throw new PipelineError(
      `"${workflow}" of "${repository}" is no signer: owner/name/.github/workflows/file.yml@refs/heads/branch, and owner/name`,
    );
  }
  const directory = mkdtempSync(join(tmpdir(), 'signature-'));
  try {
    const env = credentials === undefined ? {} : { DOCKER_CONFIG: directory };
    if (credentials !== undefined) {
      const login = ['login', ref.split('/')[0] ?? '', '--username', credentials.user, '--password-stdin'];
      await output(run, 'cosign', login, { input: credentials.token, env });
    }
    const claims = [
      ...['--certificate-oidc-issuer', 'https://token.actions.githubusercontent.com'],
      // Compared as a whole: a pattern would take main for main-2, and one workflow for all of them.
      ...['--certificate-identity', `https://github.com/${workflow}`],
      ...['--certificate-github-workflow-repository', repository],
    ];
    const { code, stderr } = await run('cosign', ['verify', ...claims, ref], { env });
    if (code === 127) throw new PipelineError('cosign is not installed');
    if (code !== 0) {
      const words = stderr.trim().split('\n').slice(-6).join('\n');
      throw new PipelineError(`${ref} is not signed by ${workflow} for ${repository}: nothing goes on\n${words}`);
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
