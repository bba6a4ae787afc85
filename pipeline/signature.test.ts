import { verifySignature } from './signature';
import type { Run } from './run';

const ref = `docker.io/me/loans-main@sha256:${'a'.repeat(64)}`;
const workflow = 'me/loans/.github/workflows/image.yml@refs/heads/main';
const calls: string[] = [];
const answering =
  (code: number): Run =>
  (command, args, options) => {
    calls.push([command, ...args, ...(options?.input === undefined ? [] : [`< ${options.input}`])].join(' '));
    return Promise.resolve({ code: args[0] === 'login' ? 0 : code, stdout: '', stderr: 'no matching signatures' });
  };
beforeEach(() => (calls.length = 0));

it('one workflow of one repository is asked for, as a whole and by no pattern', async () => {
  await verifySignature(ref, { workflow, repository: 'me/loans' }, undefined, answering(0));
  expect(calls).toEqual([
    'cosign verify --certificate-oidc-issuer https://token.actions.githubusercontent.com ' +
      `--certificate-identity https://github.com/${workflow} --certificate-github-workflow-repository me/loans ${ref}`,
  ]);
});

it('a token goes to its registry on standard input only', async () => {
  await verifySignature(ref, { workflow, repository: 'me/loans' }, { user: 'me', token: 'hunter2' }, answering(0));
  expect(calls[0]).toBe('cosign login docker.io --username me --password-stdin < hunter2');
});

it('nothing goes on without the signature, or without cosign', async () => {
  const signer = { workflow, repository: 'me/loans' };
  await expect(verifySignature(ref, signer, undefined, answering(1))).rejects.toThrow(/is not signed by me\/loans/);
  await expect(verifySignature(ref, signer, undefined, answering(127))).rejects.toThrow(/cosign is not installed/);
});

it.each([
  ['a repository', 'me/loans', 'me/loans'],
  ['a workflow without its ref', 'me/loans/.github/workflows/image.yml', 'me/loans'],
  ['a workflow with half a ref', 'me/loans/.github/workflows/image.yml@main', 'me/loans'],
  ['a pattern', 'me/loans/.github/workflows/.*@refs/heads/main', 'me/loans'],
  ['a file that is no workflow', 'me/loans/image.yml@refs/heads/main', 'me/loans'],
  ['two lines', `${workflow}\n${workflow}`, 'me/loans'],
  ['an owner alone', workflow, 'me'],
  ['nobody', workflow, ''],
])('%s is no signer', async (_, given, repository) => {
  const asked = verifySignature(ref, { workflow: given, repository }, undefined, answering(0));
  await expect(asked).rejects.toThrow(/is no signer/);
  expect(calls).toEqual([]);
});
