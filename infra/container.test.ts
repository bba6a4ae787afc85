import fc from 'fast-check';
import { goDuration, replacesOn } from './container';
import * as pulumi from '@pulumi/pulumi';
import { BROKEN, GOOD } from '../tests/guardrails';
import { guarded, RULES, violations, type Resolved } from './guardrails';

describe('goDuration', () => {
  it.each([
    [0, '0s'],
    [30, '30s'],
    [60, '1m0s'],
    [90, '1m30s'],
    [3600, '1h0m0s'],
  ])('writes %i s as %s, as the engine reports it', (seconds, text) => {
    expect(goDuration(seconds)).toBe(text);
  });

  it('loses nothing', () => {
    fc.assert(
      fc.property(fc.nat(100_000), (seconds) => {
        const [, h, m, s] = /^(?:(\d+)h)?(?:(\d+)m)?(\d+)s$/.exec(goDuration(seconds)) ?? [];
        expect(Number(h ?? 0) * 3600 + Number(m ?? 0) * 60 + Number(s)).toBe(seconds);
      }),
    );
  });
});

it('a reservation that is set is applied in place, and one that is taken away replaces the container', () => {
  const limits = { cpus: 1, memoryMib: 512 };
  expect(replacesOn(limits)).toEqual(expect.arrayContaining(['mounts', 'memoryReservation', 'cpuShares']));
  expect(replacesOn({ ...limits, memoryReservationMib: 256 })).not.toContain('memoryReservation');
  expect(replacesOn({ ...limits, memoryReservationMib: 256 })).toContain('cpuShares');
  expect(replacesOn({ ...limits, cpuShares: 2048 })).not.toContain('cpuShares');
});

describe('guardrails', () => {
  it('let a hardened container pass', () => {
    expect(violations(GOOD)).toEqual([]);
  });

  it.each(BROKEN)('%s refuses %j, and nothing else does', (rule, change) => {
    const container = { ...GOOD, ...change } as Resolved;
    expect(RULES.filter(({ broken }) => broken(container)).map(({ name }) => name)).toEqual([rule]);
  });

  it('have a name of their own and a test each', () => {
    const tested = new Set(BROKEN.map(([rule]) => rule));
    expect(RULES.map(({ name }) => name)).toEqual([...tested]);
  });

  it.each([`sha256:${'b'.repeat(64)}`, `me/loans@sha256:${'b'.repeat(64)}`, 'nginx:1.30.5'])('allow %s', (image) => {
    expect(violations({ ...GOOD, image })).toEqual([]);
  });

  it('allow a secret by file', () => {
    expect(
      violations({ ...GOOD, envs: ['DATABASE_PASSWORD_FILE=/run/x', 'GF_SECURITY_ADMIN_PASSWORD=$__file{/run/y}'] }),
    ).toEqual([]);
  });

  it('let the container exporter read the engine, and only that one', () => {
    const mounts = [{ type: 'bind', source: '/var/run/docker.sock', target: '/s', readOnly: true }];
    const labels = (value: string) => [{ label: 'org.branchloans.component', value }];
    expect(violations({ ...GOOD, mounts, labels: labels('container-exporter') })).toEqual([]);
    expect(violations({ ...GOOD, mounts, labels: labels('node-exporter') })).toEqual(['mounts the Docker socket']);
    const writable = mounts.map((mount) => ({ ...mount, readOnly: false }));
    expect(violations({ ...GOOD, mounts: writable, labels: labels('container-exporter') })).toEqual([
      'mounts the Docker socket',
    ]);
    expect(violations({ ...GOOD, mounts, user: '0:0', labels: labels('container-exporter') })).toHaveLength(1);
  });

  it('end the program before anything is asked of the engine, for what is known at once', () => {
    expect(() => guarded('x', { ...GOOD, privileged: true })).toThrow(/guardrail: container x is privileged/);
    expect(() =>
      guarded('x', { ...GOOD, mounts: [{ type: 'bind', source: pulumi.output('/a'), target: '/b' }] }),
    ).not.toThrow();
  });
});
