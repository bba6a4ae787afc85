import { isAttested } from './publish';

it.each([
  ['auto', 'public', true],
  ['auto', 'private', false],
  ['auto', 'internal', false],
  ['auto', undefined, false],
  ['true', 'private', true],
  ['false', 'public', false],
])('attestations: asked for %s in a repository that is %s: %s', (asked, visibility, attested) => {
  expect(isAttested(asked, visibility)).toBe(attested);
});

it('another word is told before anything is pushed', () => {
  expect(() => isAttested('yes', 'public')).toThrow('attest must be true, false or auto, not "yes"');
});
