import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  webcrypto,
  X509Certificate,
} from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { basename, dirname, join } from 'node:path';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';

/**
 * Certificates for the HTTPS entrance: an authority of one's own and a leaf that it signs, or a certificate that somebody
 * else issued and the user put in their place.
 *
 * Keys are created once, exclusively, and never replaced; every certificate is made for the key that lies beside it. So a
 * renewal is one rename, a crash leaves a working pair, and two runs at a time arrive at the same authority.
 */
export interface CertificateFiles {
  /** PEM: the leaf, then what is needed up to the authority. */
  readonly certificateFile: string;
  readonly keyFile: string;
}

export interface EnsuredCertificate extends CertificateFiles {
  /** What a client has to trust; undefined where the user's own certificate came without one. */
  readonly caFile: string | undefined;
  readonly notAfter: Date;
  /** True if this call wrote a new leaf. */
  readonly renewed: boolean;
  /** True if this call wrote a new ca.pem, which clients have to trust (again). */
  readonly caRenewed: boolean;
}

export interface CertificatePair {
  readonly certificate: string;
  readonly key: string;
  readonly notAfter: Date;
}

/** A fault of a file, told with the remedy. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError';
}

const DAY = 86_400_000;
const LEAF_LIFE = 90 * DAY;
const AUTHORITY_LIFE = 3650 * DAY;
/** Certificates start an hour early, for clients whose clock is behind. */
const BACKDATED = 3_600_000;
const SIGNATURE = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const AUTHORITY_NAME = 'CN=branchloans certificate authority';
/** Every leaf answers on the machine itself as well. */
const LOCAL_NAMES = ['localhost', '127.0.0.1', '::1'];

/**
 * The pair for `domain` in `directory`: reused while good, made or renewed otherwise. A certificate that our authority did
 * not issue belongs to the user: it is checked and never written.
 * @param options.renew issue a new leaf even if the old one is good
 * @throws CertificateError
 */
export async function ensureCertificate(options: {
  readonly directory: string;
  readonly domain: string;
  readonly now?: Date;
  readonly renew?: boolean;
}): Promise<EnsuredCertificate> {
  const { directory, now = new Date(), renew = false } = options;
  const domain = checkedDomain(options.domain);
  const certificateFile = join(directory, `${domain}.pem`);
  const keyFile = join(directory, `${domain}.key`);
  const caFile = join(directory, 'ca.pem');
  mkdirSync(directory, { recursive: true });

  const leaf = readCertificateFile(certificateFile);
  const authority = readCertificateFile(caFile);
  if (leaf !== undefined && !isOurs(leaf)) {
    const { notAfter } = readCertificate({ certificateFile, keyFile, domain, now });
    const own = { certificateFile, keyFile, notAfter, renewed: false, caRenewed: false };
    // Ours may be there from before; it vouches for nothing of theirs.
    const theirs = authority !== undefined && !authority.subject.includes(AUTHORITY_NAME);
    return { ...own, caFile: theirs ? caFile : undefined };
  }
  if (!renew && leaf !== undefined && authority !== undefined && isGood(leaf, authority, keyFile, domain, now)) {
    return { certificateFile, keyFile, caFile, notAfter: end(leaf), renewed: false, caRenewed: false };
  }
  const signer = await ensureAuthority(directory, domain, now);
  const issued = await issueLeaf(signer, ensureKey(keyFile), domain, now);
  writeAtomically(certificateFile, issued.toString('pem') + '\n' + signer.certificate.toString('pem') + '\n');
  return { certificateFile, keyFile, caFile, notAfter: issued.notAfter, renewed: true, caRenewed: signer.renewed };
}

/**
 * Reads a pair and checks that a server can use it for `domain` now.
 * @throws CertificateError that names the file and the remedy
 */
export function readCertificate(
  options: CertificateFiles & { readonly domain: string; readonly now?: Date },
): CertificatePair {
  const { certificateFile, keyFile, domain, now = new Date() } = options;
  const certificate = readCertificateFile(certificateFile);
  if (certificate === undefined) {
    throw new CertificateError(`${certificateFile} does not exist: run \`make certificate\`, or put your own there`);
  }
  const remedy = isOurs(certificate)
    ? 'run `make certificate`'
    : 'it was not issued by the authority of `make certificate`, so put a newer one there, or move it and its key away';
  const key = readKeyFile(keyFile);
  if (key === undefined) {
    throw new CertificateError(`${keyFile} does not exist: put the private key of ${certificateFile} there`);
  }
  if (!certificate.checkPrivateKey(key)) {
    throw new CertificateError(
      `${keyFile} is not the private key of ${certificateFile}: put both files of one pair there, or ${remedy}`,
    );
  }
  if (now >= end(certificate)) {
    throw new CertificateError(`${certificateFile} expired on ${day(end(certificate))}: ${remedy}`);
  }
  if (now < start(certificate)) {
    throw new CertificateError(
      `${certificateFile} is not valid before ${day(start(certificate))}: check this machine's clock, or ${remedy}`,
    );
  }
  if (!covers(certificate, domain)) {
    const names = certificate.subjectAltName ?? 'no name at all';
    throw new CertificateError(`${certificateFile} does not cover ${domain} but ${names}: ${remedy}`);
  }
  return {
    certificate: readFileSync(certificateFile, 'utf8'),
    key: readFileSync(keyFile, 'utf8'),
    notAfter: end(certificate),
  };
}

interface Authority {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
  readonly renewed: boolean;
}

/** The authority, with a certificate that lets it sign for `domain` and outlives every leaf it signs now. */
async function ensureAuthority(directory: string, domain: string, now: Date): Promise<Authority> {
  const certificateFile = join(directory, 'ca.pem');
  const keyFile = join(directory, 'ca.key');
  const old = readCertificateFile(certificateFile);
  if (old !== undefined && !old.subject.includes(AUTHORITY_NAME)) {
    throw new CertificateError(
      `${certificateFile} is not an authority that \`make certificate\` made, so it cannot sign for ${domain}: ` +
        `put the certificate that it issued in ${join(directory, `${domain}.pem`)} and ${domain}.key, or move ca.pem and ca.key away`,
    );
  }
  const keyObject = ensureKey(keyFile);
  const key = await signingKey(keyObject, keyFile);
  const good =
    old !== undefined &&
    old.checkPrivateKey(keyObject) &&
    start(old) <= now &&
    end(old).getTime() - now.getTime() > 2 * LEAF_LIFE &&
    permits(old, domain);
  if (good) return { certificate: new x509.X509Certificate(old.raw), key, renewed: false };
  // Leaves for other domains, signed before, stay valid: the key stays, and what it may sign for only grows.
  const wanted = [domain, ...LOCAL_NAMES].map(subtree);
  const kept = old === undefined ? [] : permittedSubtrees(old);
  const added = wanted.filter((name, at) => ![...kept, ...wanted.slice(0, at)].some((known) => known.equals(name)));
  const certificate = await issueAuthority(keyObject, key, [...kept, ...added], now);
  writeAtomically(certificateFile, certificate.toString('pem') + '\n');
  return { certificate, key, renewed: true };
}

/** The authority may sign for the names in use and nothing else: its key is no key to a bank's web site. */
async function issueAuthority(
  keyObject: KeyObject,
  signing: webcrypto.CryptoKey,
  permitted: readonly Buffer[],
  now: Date,
): Promise<x509.X509Certificate> {
  const publicKey = publicKeyOf(keyObject);
  const identifier = Buffer.from(await publicKey.getKeyIdentifier()).toString('hex');
  // The name carries the key's identifier: a trust store then tells two authorities of two machines apart.
  const name = `${AUTHORITY_NAME} ${identifier.slice(0, 8)}, O=branchloans`;
  return x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: name,
    issuer: name,
    notBefore: new Date(now.getTime() - BACKDATED),
    notAfter: new Date(now.getTime() - BACKDATED + AUTHORITY_LIFE),
    signingAlgorithm: SIGNATURE,
    publicKey,
    signingKey: signing,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      nameConstraints(permitted),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
}

async function issueLeaf(
  authority: Authority,
  keyObject: KeyObject,
  domain: string,
  now: Date,
): Promise<x509.X509Certificate> {
  const publicKey = publicKeyOf(keyObject);
  return x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${domain}`,
    issuer: authority.certificate.subject,
    notBefore: new Date(now.getTime() - BACKDATED),
    notAfter: new Date(now.getTime() - BACKDATED + LEAF_LIFE),
    signingAlgorithm: SIGNATURE,
    publicKey,
    signingKey: authority.key,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([...new Set([domain, ...LOCAL_NAMES])].map(generalName)),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(authority.certificate),
    ],
  });
}

function isGood(leaf: X509Certificate, authority: X509Certificate, keyFile: string, domain: string, now: Date) {
  const life = end(leaf).getTime() - start(leaf).getTime();
  const key = readKeyFile(keyFile);
  return (
    key !== undefined &&
    leaf.checkPrivateKey(key) &&
    leaf.checkIssued(authority) &&
    leaf.verify(authority.publicKey) &&
    start(leaf) <= now &&
    end(leaf).getTime() - now.getTime() > life / 3 &&
    end(authority) >= end(leaf) &&
    permits(authority, domain) &&
    [domain, ...LOCAL_NAMES].every((name) => covers(leaf, name))
  );
}

/** Whether an authority of `make certificate`, on this machine or another one, issued it. @param certificate PEM */
export function isIssuedHere(certificate: string): boolean {
  return isOurs(new X509Certificate(certificate));
}

const isOurs = (certificate: X509Certificate): boolean => certificate.issuer.includes(AUTHORITY_NAME);
const start = (certificate: X509Certificate): Date => new Date(certificate.validFrom);
const end = (certificate: X509Certificate): Date => new Date(certificate.validTo);
const day = (date: Date): string => date.toISOString().slice(0, 10);

/** As browsers do, by the alternative names alone. */
function covers(certificate: X509Certificate, domain: string): boolean {
  if (certificate.subjectAltName === undefined) return false;
  const match = isIP(domain) === 0 ? certificate.checkHost(domain, { subject: 'never' }) : certificate.checkIP(domain);
  return match !== undefined;
}

const generalName = (name: string): x509.GeneralName => new x509.GeneralName(isIP(name) === 0 ? 'dns' : 'ip', name);

/** The domain becomes a file name and part of a distinguished name: nothing but a host name or an address gets through. */
function checkedDomain(domain: string): string {
  const name = domain.toLowerCase();
  const label = '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?';
  const isHost = name.length <= 64 && new RegExp(`^${label}(\\.${label})*$`).test(name);
  if (isHost || isIP(name) !== 0) return name;
  throw new CertificateError(`"${domain}" is not a domain: give a name such as branchloans.com, or an address`);
}

const serialNumber = (): string => {
  const bytes = randomBytes(16);
  // A positive number whose first byte is not zero: the shortest encoding, as the standard asks.
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString('hex');
};

const publicKeyOf = (key: KeyObject): x509.PublicKey =>
  new x509.PublicKey(createPublicKey(key).export({ type: 'spki', format: 'der' }));

async function signingKey(key: KeyObject, file: string): Promise<webcrypto.CryptoKey> {
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new CertificateError(
      `${file} is not a P-256 key that \`make certificate\` made: move it away and run it again`,
    );
  }
  return webcrypto.subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), SIGNATURE, false, ['sign']);
}

// ---- Name constraints (RFC 5280, 4.2.1.10), which the library does not have

const NAME_CONSTRAINTS = '2.5.29.30';

const der = (tag: number, content: Uint8Array): Buffer => {
  const { length } = content;
  const low = length & 0xff;
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, low] : [0x82, length >> 8, low];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
};

/** A permitted subtree: a host with what is below it, or (with a mask of ones) a single address. */
function subtree(name: string): Buffer {
  const base = Buffer.from(generalName(name).rawData);
  if (isIP(name) === 0) return der(0x30, base);
  const address = base.subarray(2);
  return der(0x30, der(0x87, Buffer.concat([address, Buffer.alloc(address.length, 0xff)])));
}

const nameConstraints = (subtrees: readonly Buffer[]): x509.Extension =>
  new x509.Extension(NAME_CONSTRAINTS, true, der(0x30, der(0xa0, Buffer.concat(subtrees))));

/** The subtrees of an authority of ours: the inverse of nameConstraints(). */
function permittedSubtrees(authority: X509Certificate): Buffer[] {
  const extension = new x509.X509Certificate(authority.raw).getExtension(NAME_CONSTRAINTS);
  if (extension === null) return [];
  const content = (element: Buffer): Buffer => {
    const head = element.readUInt8(1);
    return element.subarray(head < 0x80 ? 2 : 2 + (head & 0x7f));
  };
  const subtrees: Buffer[] = [];
  for (let rest = content(content(Buffer.from(extension.value))); rest.length > 0;) {
    // One name is short, so its length is one byte.
    const size = 2 + rest.readUInt8(1);
    subtrees.push(rest.subarray(0, size));
    rest = rest.subarray(size);
  }
  return subtrees;
}

const permits = (authority: X509Certificate, domain: string): boolean =>
  permittedSubtrees(authority).some((permitted) => permitted.equals(subtree(domain)));

// ---- Files

/** @throws CertificateError where it is there and cannot be read */
export function readIfPresent(file: string): Buffer | undefined {
  try {
    return readFileSync(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new CertificateError(`cannot read ${file} (${code ?? String(error)}): make it readable for this user`);
  }
}

function readCertificateFile(file: string): X509Certificate | undefined {
  const text = readIfPresent(file);
  if (text === undefined) return undefined;
  try {
    return new X509Certificate(text);
  } catch {
    throw new CertificateError(
      `${file} is not a certificate in PEM form: put the right file there, or move it away and run \`make certificate\``,
    );
  }
}

function readKeyFile(file: string): KeyObject | undefined {
  const text = readIfPresent(file);
  if (text === undefined) return undefined;
  try {
    return createPrivateKey(text);
  } catch {
    throw new CertificateError(
      `${file} is not a private key in PEM form without a passphrase: put the right file there, ` +
        'or move it and its certificate away and run `make certificate`',
    );
  }
}

/** The key of the file, made first if there is none; of two runs at a time one makes it and both use it. */
function ensureKey(file: string): KeyObject {
  const present = readKeyFile(file);
  if (present !== undefined) return present;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const temporary = writeTemporary(file, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), 0o600);
  try {
    linkSync(temporary, file);
    return privateKey;
  } catch (error) {
    const winner = (error as NodeJS.ErrnoException).code === 'EEXIST' ? readKeyFile(file) : undefined;
    if (winner === undefined) throw error;
    return winner;
  } finally {
    rmSync(temporary, { force: true });
  }
}

function writeAtomically(file: string, text: string): void {
  const temporary = writeTemporary(file, text, 0o644);
  try {
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** On disk before its name is: the same folder, and an ending that git ignores, too. */
function writeTemporary(file: string, text: string, mode: number): string {
  const temporary = join(dirname(file), `.${randomBytes(6).toString('hex')}-${basename(file)}`);
  writeFileSync(temporary, text, { mode, flag: 'wx', flush: true });
  return temporary;
}
