import fc from 'fast-check';
import { BRANCHES, ENVIRONMENTS, environmentOf, planOf, standingFor } from './branches';

it.each([
  ['main', 'development'],
  ['development', 'development'],
  ['staging', 'staging'],
  ['master', 'production'],
  ['production', 'production'],
])('%s deploys to %s', (branch, environment) => {
  expect(environmentOf(`refs/heads/${branch}`)).toEqual({ branch, environment });
});

it.each([
  'refs/heads/Main',
  'refs/heads/PRODUCTION',
  'refs/heads/production-hotfix',
  'refs/heads/pre-production',
  'refs/heads/feature/production',
  'refs/heads/production/',
  'refs/heads/refs/heads/main',
  'refs/tags/production',
  'refs/pull/7/merge',
  'production',
  'refs/heads/',
  '',
  'refs/heads/ main',
  'refs/heads/main\n',
  'refs/heads/constructor',
  'refs/heads/__proto__',
])('"%s" deploys nowhere', (ref) => {
  expect(() => environmentOf(ref)).toThrow(/deploys nowhere. Branches that do: main -> development/);
});

it('nothing but the five branches deploys', () => {
  fc.assert(
    fc.property(fc.string(), (name) => {
      fc.pre(!Object.hasOwn(BRANCHES, name));
      expect(() => environmentOf(`refs/heads/${name}`)).toThrow(/deploys nowhere/);
    }),
  );
});

describe('the branch that stands for an environment', () => {
  it.each([
    [
      ['main', 'master'],
      ['main', undefined, 'master'],
    ],
    [
      ['feature', 'production', 'staging'],
      [undefined, 'staging', 'production'],
    ],
    [Object.keys(BRANCHES).reverse(), ['main', 'staging', 'master']],
    [
      ['Main', 'main-2', ''],
      [undefined, undefined, undefined],
    ],
  ])('of %j', (existing, branches) => {
    expect(standingFor(existing)).toEqual(
      ENVIRONMENTS.map((environment, index) => ({ environment, branch: branches[index] })),
    );
  });
});

describe('the name of an image', () => {
  const given = {
    ref: 'refs/heads/staging',
    commit: 'a'.repeat(40),
    registry: 'docker.io',
    namespace: 'me',
    repository: 'Me/Branch.Loans',
  };

  it('is user/repository-branch, in lower case', () => {
    expect(planOf(given)).toEqual({
      branch: 'staging',
      environment: 'staging',
      image: 'docker.io/me/branch.loans-staging',
      tag: 'a'.repeat(40),
    });
  });

  it.each([
    ['namespace', '', /set the variable DOCKER_USERNAME/],
    ['namespace', 'Me', /no user of a registry/],
    ['namespace', 'me$(id)', /no user of a registry/],
    ['registry', 'docker.io/x', /no registry's host/],
    ['commit', 'main', /not 40 hexadecimal digits/],
    ['repository', 'me/-x', /cannot be part of an image's name/],
  ])('is refused with %s "%s"', (field, value, message) => {
    expect(() => planOf({ ...given, [field]: value })).toThrow(message);
  });
});
