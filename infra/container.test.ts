import fc from 'fast-check';
import { goDuration } from './container';
import * as pulumi from '@pulumi/pulumi';
import { guarded, violations } from './guardrails';

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

describe('guardrails', () => {
  const good = {
    image: 'sha256:abc',
    user: '101:101',
    memory: 128,
    memorySwap: 128,
    cpuPeriod: 100_000,
    cpuQuota: 100_000,
    healthcheck: { tests: ['CMD', 'true'] },
    capabilities: { drops: ['ALL'] },
    securityOpts: ['no-new-privileges:true'],
    readOnly: true,
    destroyGraceSeconds: 5,
    logOpts: { 'max-size': '10m', 'max-file': '3' },
    restart: 'unless-stopped',
  } as unknown as Parameters<typeof violations>[0];

  it('let a hardened container pass', () => {
    expect(violations(good)).toEqual([]);
  });

  it.each<[string, object]>([
    ['has no memory limit', { memory: undefined }],
    ['has no memory limit', { memorySwap: 256 }],
    ['has no CPU limit', { cpuQuota: 0 }],
    ['has no health check', { healthcheck: undefined }],
    ['has no health check', { healthcheck: { tests: ['NONE'] } }],
    ['runs an image by a tag that moves', { image: 'nginx:latest' }],
    ['runs an image by a tag that moves', { image: 'nginx' }],
    ['runs as root', { user: '0:0' }],
    ['runs as root', { user: undefined }],
    ['is privileged', { privileged: true }],
    ['keeps or adds capabilities', { capabilities: { drops: ['ALL'], adds: ['CAP_CHOWN'] } }],
    ['keeps or adds capabilities', { capabilities: undefined }],
    ['may gain privileges', { securityOpts: [] }],
    ['has a writable root file system', { readOnly: false }],
    ['shares a namespace of the host', { networkMode: 'host' }],
    ['shares a namespace of the host', { pidMode: 'host' }],
    ['mounts the Docker socket', { mounts: [{ source: '/var/run/docker.sock', target: '/s', type: 'bind' }] }],
    [
      'publishes a port without saying on which address',
      { ports: [{ internal: 1, external: 1 }], labels: [{ label: 'x.component', value: 'gateway' }] },
    ],
    ['publishes a port but is not the gateway', { ports: [{ internal: 1, external: 1, ip: '127.0.0.1' }] }],
    ['would be killed without grace', { destroyGraceSeconds: undefined }],
    ['has logs without a limit', { logOpts: {} }],
    ['has no restart policy', { restart: 'no' }],
    ['carries a secret in its environment', { envs: ['DATABASE_PASSWORD=hunter2'] }],
  ])('refuse one that %s', (says, change) => {
    expect(violations({ ...good, ...change })).toEqual([expect.stringContaining(says)]);
  });

  it('allow a secret by file', () => {
    expect(
      violations({ ...good, envs: ['DATABASE_PASSWORD_FILE=/run/x', 'GF_SECURITY_ADMIN_PASSWORD=$__file{/run/y}'] }),
    ).toEqual([]);
  });

  it('end the program before anything is asked of the engine, for what is known at once', () => {
    expect(() => guarded('x', { ...good, privileged: true })).toThrow(/guardrail: container x is privileged/);
    expect(() =>
      guarded('x', { ...good, mounts: [{ type: 'bind', source: pulumi.output('/a'), target: '/b' }] }),
    ).not.toThrow();
  });
});
