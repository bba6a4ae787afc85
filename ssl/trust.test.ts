import { webcrypto } from 'node:crypto';
import fs from 'node:fs';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { ensureCertificate } from './certificates';
import { reasonOf, trustedAuthorities, trusting } from './trust';
import * as x509 from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

interface Pair {
  readonly name: string;
  readonly pem: string;
  readonly keys: webcrypto.CryptoKeyPair;
}

/** A certificate for `localhost`, or of an authority; signed by its issuer, or by itself. */
async function certify(name: string, authority: boolean, issuer?: Pair): Promise<Pair> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '4a',
    subject: `CN=${name}`,
    issuer: `CN=${issuer?.name ?? name}`,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: (issuer?.keys ?? keys).privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(authority, undefined, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'localhost' }]),
    ],
  });
  return { name, pem: certificate.toString('pem'), keys };
}

/** Of a company: a root that is in no list of Node's, one that signs for its servers, and a server. */
let root: Pair;
let issuing: Pair;
let server: Pair;
let stranger: Pair;
let directory: string;
const file = (name: string) => join(directory, name);
const write = (name: string, ...parts: string[]) => fs.writeFileSync(file(name), parts.join('\n'));

beforeAll(async () => {
  root = await certify('Company Root', true);
  issuing = await certify('Company Servers', true, root);
  server = await certify('localhost', false, issuing);
  stranger = await certify('Stranger', true);
});

beforeEach(() => (directory = fs.mkdtempSync(join(tmpdir(), 'trust-'))));
afterEach(() => fs.rmSync(directory, { recursive: true, force: true }));

const authorities = (environment: Record<string, string> = {}) =>
  trustedAuthorities({ directory, certificateFile: file('own.pem'), environment });

/** Asks a server that presents `chain`. @returns its status, or what a person is told */
async function ask(chain: string, key: string, trusted: string): Promise<string> {
  const listening = createServer({ cert: chain, key }, (_, answer) => answer.end()).on(
    'tlsClientError',
    () => undefined,
  );
  await new Promise<void>((done) => listening.listen(0, '127.0.0.1', done));
  try {
    return await new Promise<string>((done) => {
      const { port } = listening.address() as AddressInfo;
      const url = `https://localhost:${port}/`;
      const call = request(url, { ...trusting(trusted), agent: false, family: 4 }, (answer) => {
        answer.resume();
        done(String(answer.statusCode));
      });
      call.on('error', (error) => done(reasonOf(error)));
      call.end();
    });
  } finally {
    listening.closeAllConnections();
    await new Promise((done) => listening.close(done));
  }
}

const keyOf = async ({ keys }: Pair) =>
  x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
const askCompany = async (trusted: string) => ask(`${server.pem}\n${issuing.pem}`, await keyOf(server), trusted);

it('trusts what Node does, and nobody else', async () => {
  expect(authorities()).toBe(rootCertificates.join('\n'));
  expect(await askCompany(authorities())).toMatch(
    /^unable to (verify the first|get local issuer) certificate: name who issued .* by NODE_EXTRA_CA_CERTS=/,
  );
});

it("trusts the project's own authority", async () => {
  const made = await ensureCertificate({ directory, domain: 'localhost' });
  const [pem, key] = [made.certificateFile, made.keyFile].map((each) => fs.readFileSync(each, 'utf8'));
  expect(await ask(pem!, key!, authorities())).toBe('200');
});

it('trusts the file of NODE_EXTRA_CA_CERTS, beside the others', async () => {
  write('company.pem', 'Our authorities:', stranger.pem, 'and', root.pem);
  await ensureCertificate({ directory, domain: 'localhost' });
  const trusted = authorities({ NODE_EXTRA_CA_CERTS: file('company.pem') });
  expect(await askCompany(trusted)).toBe('200');
  for (const each of [...rootCertificates, fs.readFileSync(file('ca.pem'), 'utf8').trim()]) {
    expect(trusted).toContain(each);
  }
});

it.each([
  ['the root', () => [issuing.pem, root.pem]],
  ['the issuer alone, as most files have it', () => [issuing.pem]],
])("trusts who issued the stack's own certificate: its file has %s", async (_, chain) => {
  write('own.pem', server.pem, ...chain());
  expect(await askCompany(authorities())).toBe('200');
});

it.each([
  ['the certificate itself', () => [server.pem]],
  ['an authority in its place', () => [stranger.pem]],
  ['others that may not sign', () => [stranger.pem, server.pem]],
])('a file of the stack vouches for nobody by %s', async (_, chain) => {
  write('own.pem', ...chain());
  expect(authorities()).toBe(rootCertificates.join('\n'));
  expect(await askCompany(authorities())).toContain('unable to');
});

it.each<[string, string | undefined, RegExp]>([
  [
    'is not there',
    undefined,
    /^NODE_EXTRA_CA_CERTS names \S+company\.pem, which does not exist: put the authority there/,
  ],
  ['holds something else', 'hello', /company\.pem, which holds no certificate in PEM form: /],
  [
    'is broken',
    '-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----',
    /^Certificate 1 of \S+company\.pem cannot be read/,
  ],
])('says so where the file of NODE_EXTRA_CA_CERTS %s', (_, text, message) => {
  if (text !== undefined) write('company.pem', text);
  expect(() => authorities({ NODE_EXTRA_CA_CERTS: file('company.pem') })).toThrow(message);
});

it('asks no file where NODE_EXTRA_CA_CERTS is empty, and names one that cannot be read', () => {
  expect(authorities({ NODE_EXTRA_CA_CERTS: '' })).toBe(rootCertificates.join('\n'));
  expect(() => authorities({ NODE_EXTRA_CA_CERTS: directory })).toThrow(/cannot read .* \(EISDIR\)/);
});
