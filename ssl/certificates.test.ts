import { createPrivateKey, createPublicKey, generateKeyPairSync, webcrypto, X509Certificate } from 'node:crypto';
import fs from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tls from 'node:tls';
import { CertificateError, ensureCertificate, readCertificate } from './certificates';
import * as x509 from '@peculiar/x509';

const DAY = 86_400_000;
const domain = 'branchloans.com';
const started = new Date();
const after = (days: number): Date => new Date(started.getTime() + days * DAY);

let directory: string;
const file = (name: string): string => join(directory, name);
const text = (name: string): string => fs.readFileSync(file(name), 'utf8');
const ensure = (options: { now?: Date; renew?: boolean; domain?: string } = {}) =>
  ensureCertificate({ directory, domain, ...options });

beforeEach(() => {
  directory = fs.mkdtempSync(join(tmpdir(), 'certificates-'));
});

afterEach(() => {
  jest.restoreAllMocks();
  fs.rmSync(directory, { recursive: true, force: true });
});

/** Greets a TLS server that presents `pair`; resolves with the error of the client, if any. */
async function greet(pair: { certificate: string; key: string }, ca: string, client: tls.ConnectionOptions) {
  const server = tls.createServer({ cert: pair.certificate, key: pair.key }, (socket) => socket.resume());
  server.on('tlsClientError', () => undefined);
  server.on('secureConnection', (socket) => socket.on('error', () => undefined));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await new Promise<string | undefined>((resolve) => {
      const { port } = server.address() as AddressInfo;
      const socket = tls.connect({ host: '127.0.0.1', port, ca, ...client });
      const finish = (fault?: string) => {
        socket.destroy();
        resolve(fault);
      };
      socket.once('error', (error: NodeJS.ErrnoException) => finish(`${error.code ?? ''} ${error.message}`));
      socket.once('secureConnect', () => finish());
    });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Signs a leaf with any key, as somebody else's authority (or a thief of ours) would. */
async function signLeaf(names: string[], options: { issuer: string; signer: string; days?: number }) {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pkcs8 = createPrivateKey(options.signer).export({ type: 'pkcs8', format: 'der' });
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '4a',
    subject: 'CN=somebody',
    issuer: options.issuer,
    notBefore: after(-2),
    notAfter: after(options.days ?? 30),
    signingAlgorithm: algorithm,
    publicKey: new x509.PublicKey(createPublicKey(privateKey).export({ type: 'spki', format: 'der' })),
    signingKey: await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
    extensions: [
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value }))),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ],
  });
  return {
    certificate: certificate.toString('pem'),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

/** Puts the user's own certificate where ours would be. */
async function ownCertificate(names: string[], days?: number) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signer = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const own = await signLeaf(names, { issuer: 'CN=Another Authority', signer, days });
  fs.writeFileSync(file(`${domain}.pem`), own.certificate);
  fs.writeFileSync(file(`${domain}.key`), own.key);
  return own;
}

describe('our own authority', () => {
  it('makes a pair that a client with ca.pem trusts for the domain, localhost and 127.0.0.1, and for nothing else', async () => {
    const made = await ensure();
    const pair = readCertificate({ ...made, domain });
    const ca = text('ca.pem');

    expect(await greet(pair, ca, {})).toBeUndefined();
    expect(await greet(pair, ca, { servername: 'localhost' })).toBeUndefined();
    expect(await greet(pair, ca, { servername: domain })).toBeUndefined();
    expect(await greet(pair, ca, { servername: 'example.com' })).toContain('ERR_TLS_CERT_ALTNAME_INVALID');
    expect(await greet(pair, tls.rootCertificates[0]!, {})).toContain('SELF_SIGNED_CERT_IN_CHAIN');
  });

  it('issues an authority for ten years, a leaf for at most 90 days with the leaf first in its file', async () => {
    const made = await ensure();
    const leaf = new X509Certificate(text(`${domain}.pem`));
    const authority = new X509Certificate(text('ca.pem'));

    expect(leaf.ca).toBe(false);
    expect(leaf.subjectAltName).toBe(
      'DNS:branchloans.com, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
    );
    expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
    expect(made.notAfter.getTime() - Date.parse(leaf.validFrom)).toBeLessThanOrEqual(90 * DAY);
    expect(authority.ca).toBe(true);
    expect(leaf.verify(authority.publicKey)).toBe(true);
    expect(text(`${domain}.pem`).match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    expect(Date.parse(authority.validTo)).toBeGreaterThan(after(3640).getTime());
  });

  it('cannot be used for a name it was not made for, even by a thief of its key', async () => {
    await ensure();
    const { subject } = new x509.X509Certificate(text('ca.pem'));
    const stolen = await signLeaf(['bank.example'], { issuer: subject, signer: text('ca.key') });
    expect(await greet(stolen, text('ca.pem'), { servername: 'bank.example' })).toContain(
      'permitted subtree violation',
    );
  });

  it('keeps keys to their owner', async () => {
    await ensure();
    for (const name of ['ca.key', `${domain}.key`]) expect(fs.statSync(file(name)).mode & 0o777).toBe(0o600);
  });

  it('makes a certificate for a host that has only an address', async () => {
    const made = await ensure({ domain: '192.0.2.7' });
    const pair = readCertificate({ ...made, domain: '192.0.2.7' });
    const check = {
      checkServerIdentity: (_: string, peer: tls.PeerCertificate) => tls.checkServerIdentity('192.0.2.7', peer),
    };
    expect(await greet(pair, text('ca.pem'), check)).toBeUndefined();
  });

  it.each(['', '../ca', 'a b', '*.branchloans.com', 'x,O=y', `${'a'.repeat(64)}.com`])(
    'refuses "%s" as a domain',
    async (name) => {
      await expect(ensure({ domain: name })).rejects.toThrow(CertificateError);
      expect(fs.readdirSync(directory)).toEqual([]);
    },
  );
});

describe('renewal', () => {
  it('reuses the pair while more than a third of its life is left and renews it then, under the same authority', async () => {
    const first = await ensure({ now: started });
    expect(first).toMatchObject({ renewed: true, caRenewed: true });
    const before = text(`${domain}.pem`);

    expect(await ensure({ now: after(59) })).toMatchObject({
      renewed: false,
      caRenewed: false,
      notAfter: first.notAfter,
    });
    expect(text(`${domain}.pem`)).toBe(before);

    const ca = text('ca.pem');
    const second = await ensure({ now: after(61) });
    expect(second).toMatchObject({ renewed: true, caRenewed: false });
    expect(second.notAfter.getTime()).toBeGreaterThan(first.notAfter.getTime());
    expect(text('ca.pem')).toBe(ca);
    expect(readCertificate({ ...second, domain, now: after(61) }).notAfter).toEqual(second.notAfter);
  });

  it('renews at once when asked', async () => {
    await ensure();
    expect(await ensure({ renew: true })).toMatchObject({ renewed: true, caRenewed: false });
  });

  it('renews an authority that would not outlive its leaves', async () => {
    await ensure();
    expect(await ensure({ now: after(3600) })).toMatchObject({ renewed: true, caRenewed: true });
  });

  it('lets the authority sign for a second domain, and the pair of the first stays good', async () => {
    await ensure();
    const other = await ensure({ domain: 'loans.example' });
    expect(other).toMatchObject({ renewed: true, caRenewed: true });
    const ca = text('ca.pem');
    expect(
      await greet(readCertificate({ ...other, domain: 'loans.example' }), ca, { servername: 'loans.example' }),
    ).toBe(undefined);
    const first = await ensure();
    expect(first).toMatchObject({ renewed: false, caRenewed: false });
    expect(await greet(readCertificate({ ...first, domain }), ca, { servername: domain })).toBe(undefined);
  });

  it('issues a new leaf when the authority was lost', async () => {
    await ensure();
    fs.rmSync(file('ca.pem'));
    fs.rmSync(file('ca.key'));
    const made = await ensure();
    expect(made).toMatchObject({ renewed: true, caRenewed: true });
    expect(await greet(readCertificate({ ...made, domain }), text('ca.pem'), {})).toBeUndefined();
  });

  it('needs no key of the authority while the pair is good, so that key can be kept elsewhere', async () => {
    await ensure();
    fs.rmSync(file('ca.key'));
    expect(await ensure()).toMatchObject({ renewed: false });
  });
});

describe('a crash or two runs at a time', () => {
  it('leaves the old pair whole when the new one cannot be put in place', async () => {
    const made = await ensure();
    const before = text(`${domain}.pem`);
    jest.spyOn(fs, 'renameSync').mockImplementation(() => {
      throw new Error('the machine stops here');
    });
    await expect(ensure({ renew: true })).rejects.toThrow('the machine stops here');
    expect(text(`${domain}.pem`)).toBe(before);
    expect(readCertificate({ ...made, domain }).certificate).toBe(before);
    expect(fs.readdirSync(directory)).toHaveLength(4);
  });

  it.each(['ca.pem', 'branchloans.com.pem'])('goes on where the first run stopped, before %s', async (name) => {
    await ensure();
    const keys = [text('ca.key'), text(`${domain}.key`)];
    fs.rmSync(file(name));
    const made = await ensure();
    expect(made.renewed).toBe(true);
    expect([text('ca.key'), text(`${domain}.key`)]).toEqual(keys);
    expect(await greet(readCertificate({ ...made, domain }), text('ca.pem'), {})).toBeUndefined();
  });

  it('arrives at one authority', async () => {
    const made = await Promise.all([ensure(), ensure(), ensure()]);
    expect(await greet(readCertificate({ ...made[0], domain }), text('ca.pem'), {})).toBeUndefined();
    expect(await ensure()).toMatchObject({ renewed: false });
  });
});

describe("the user's own certificate", () => {
  it('is used as it is, and never written', async () => {
    const own = await ownCertificate([domain], 5);
    expect(await ensure({ renew: true })).toMatchObject({ renewed: false, caFile: undefined });
    expect([text(`${domain}.pem`), text(`${domain}.key`)]).toEqual([own.certificate, own.key]);
    expect(fs.readdirSync(directory)).toHaveLength(2);
  });

  it('is not vouched for by the authority that was here before it', async () => {
    await ensure();
    const own = await ownCertificate([domain]);
    expect(await ensure()).toMatchObject({ caFile: undefined });
    fs.writeFileSync(file('ca.pem'), own.certificate);
    expect(await ensure()).toMatchObject({ caFile: file('ca.pem') });
  });

  it.each([
    ['expired', [domain], -1, /branchloans\.com\.pem expired on .*put a newer one there/],
    ['for another name', ['example.com'], 30, /does not cover branchloans\.com but DNS:example\.com/],
  ])('is refused when it is %s, and never written', async (_, names, days, message) => {
    const own = await ownCertificate(names, days);
    await expect(ensure()).rejects.toThrow(message);
    expect([text(`${domain}.pem`), text(`${domain}.key`)]).toEqual([own.certificate, own.key]);
  });

  it('is refused when the key is of another pair', async () => {
    await ownCertificate([domain]);
    const { key } = await signLeaf([domain], { issuer: 'CN=x', signer: text(`${domain}.key`) });
    fs.writeFileSync(file(`${domain}.key`), key);
    await expect(ensure()).rejects.toThrow(/\.key is not the private key of .*\.pem/);
    expect(text(`${domain}.key`)).toBe(key);
  });

  it('keeps an authority of the user from being replaced', async () => {
    const own = await ownCertificate([domain]);
    fs.rmSync(file(`${domain}.pem`));
    fs.writeFileSync(file('ca.pem'), own.certificate);
    await expect(ensure()).rejects.toThrow(/ca\.pem is not an authority that `make certificate` made/);
    expect(text('ca.pem')).toBe(own.certificate);
  });
});

describe('readCertificate', () => {
  const read = (now?: Date) =>
    readCertificate({ certificateFile: file(`${domain}.pem`), keyFile: file(`${domain}.key`), domain, now });

  it.each<[string, () => void, RegExp]>([
    ['no certificate', () => fs.rmSync(file(`${domain}.pem`)), /\.pem does not exist: run `make certificate`/],
    ['no key', () => fs.rmSync(file(`${domain}.key`)), /\.key does not exist/],
    ['no PEM', () => fs.writeFileSync(file(`${domain}.pem`), 'hello'), /\.pem is not a certificate in PEM form/],
    ['no PEM key', () => fs.writeFileSync(file(`${domain}.key`), 'hello'), /\.key is not a private key in PEM form/],
  ])('names the file and the remedy: %s', async (_, breakIt, message) => {
    await ensure();
    breakIt();
    expect(() => read()).toThrow(message);
  });

  it('refuses a pair out of its time', async () => {
    await ensure();
    expect(() => read(after(91))).toThrow(/expired on .*: run `make certificate`/);
    expect(() => read(after(-1))).toThrow(/is not valid before .*clock/);
  });

  it('says what cannot be read', async () => {
    fs.mkdirSync(file(`${domain}.pem`));
    expect(() => read()).toThrow(/cannot read .*\.pem \(EISDIR\)/);
    await expect(ensure()).rejects.toThrow(CertificateError);
  });
});
