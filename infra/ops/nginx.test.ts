import { createHash } from 'node:crypto';
import { GATEWAY_PROBLEMS } from './answers';
import { htpasswd, renderGateway, renderUpstream } from './nginx';

const options = {
  domain: 'branchloans.com',
  listen: { https: 8443, http: 8080 },
  publicHttpsPort: 443,
  files: {
    certificate: '/f/tls.pem',
    key: '/f/tls.key',
    htpasswd: '/f/htpasswd',
    upstream: '/f/upstream.conf',
    maintenance: '/f/.maintenance',
    operators: '/f/operators.conf',
  },
  workerShutdownTimeoutSeconds: 15,
};

test('the same options give the same text', () => {
  expect(renderGateway(options)).toBe(renderGateway({ ...options }));
});

test('the usual port does not appear in redirects, another one does', () => {
  expect(renderGateway(options)).toContain('return 308 https://$host$request_uri;');
  expect(renderGateway({ ...options, publicHttpsPort: 8443 })).toContain('return 308 https://$host:8443$request_uri;');
});

test('the way to the API alone exists only where it is asked for', () => {
  expect(renderGateway(options)).not.toContain('listen 8000');
  expect(renderGateway({ ...options, listen: { ...options.listen, api: 8000 } })).toContain('listen 8000');
});

test.each(['evil.example; return 200', 'a b', '$host', '', 'a\nb'])('refuses the name "%s"', (domain) => {
  expect(() => renderGateway({ ...options, domain })).toThrow('cannot stand in');
});

test.each(['api;', 'api 1', '-api', ''])('refuses the server "%s"', (server) => {
  expect(() => renderUpstream([server])).toThrow('not the name of a container');
});

test.each([0, -1, 1.5, NaN])('refuses the weight %s', (weight) => {
  expect(() => renderUpstream([{ name: 'api-1', weight }])).toThrow('is not a weight of api-1');
});

test('a document of a problem needs no escaping in nginx or JSON', () => {
  for (const texts of Object.values(GATEWAY_PROBLEMS)) expect(texts.join('')).toMatch(/^[A-Za-z0-9 .,:;_/-]+$/);
});

test.each([
  [0, ['* 00;']],
  [0.0001, ['0.01% 01;', '* 00;']],
  [0.01, ['1% 01;', '* 00;']],
  [0.29, ['29% 01;', '* 00;']],
  [1, ['100% 01;']],
])('samples the share %d of the traces that begin here', (sampleRatio, lines) => {
  const text = renderGateway({ ...options, tracing: { sampleRatio, clientsDecide: true } });
  const [, shares = ''] = /split_clients \$request_id \$sampled_here \{([^}]*)\}/.exec(text) ?? [];
  expect(shares.trim().split(/\n\s*/)).toEqual(lines);
});

describe('a password line', () => {
  test('is the salted hash that nginx checks, and the same for the same input', () => {
    const line = htpasswd('admin', 'secret');
    const bytes = Buffer.from(line.replace('admin:{SSHA}', ''), 'base64');
    const expected = createHash('sha1').update('secret').update(bytes.subarray(20)).digest();
    expect(bytes.subarray(0, 20)).toEqual(expected);
    expect(htpasswd('admin', 'secret')).toBe(line);
  });

  test('differs by user and password, and refuses a user that would break the line', () => {
    expect(new Set([htpasswd('a', 'x'), htpasswd('a', 'y'), htpasswd('b', 'x').replace(/^b/, 'a')]).size).toBe(3);
    expect(() => htpasswd('a:b', 'x')).toThrow('not a user name');
  });
});
