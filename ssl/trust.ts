import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { rootCertificates, type SecureContextOptions } from 'node:tls';
import { CertificateError, readIfPresent } from './certificates';

/**
 * Whom a client on this machine believes who answers at the public entrance of a stack: what Node comes with, the
 * project's own authority, the file that NODE_EXTRA_CA_CERTS names (Node itself leaves it out once a client is given
 * authorities), and the issuers in the stack's own certificate file, since a company's authority is in no list of Node's.
 * @param options.certificateFile of the stack; may be absent on this machine
 * @returns certificates in PEM form
 * @throws CertificateError where a file cannot be read or holds no certificate
 */
export function trustedAuthorities(options: {
  /** Of the project's own authority. */
  readonly directory: string;
  readonly certificateFile: string;
  readonly environment?: Readonly<Record<string, string | undefined>>;
}): string {
  const { directory, certificateFile, environment = process.env } = options;
  const extra = environment['NODE_EXTRA_CA_CERTS'] ?? '';
  // The first is the server's own. Whatever else may not sign for others vouches for nobody either.
  const issuers = certificatesOf(certificateFile).slice(1);
  return [
    ...rootCertificates,
    ...certificatesOf(join(directory, 'ca.pem')),
    ...(extra === '' ? [] : extraCertificates(extra)),
    ...issuers.filter((each) => new X509Certificate(each).ca),
  ].join('\n');
}

/** An issuer from a chain is seldom the root: it must be enough that the way of signatures leads to it. */
export function trusting(authorities: string): SecureContextOptions {
  return { ca: authorities, allowPartialTrustChain: true };
}

/** What was wrong with a request, with the remedy where nobody vouches for who answered. */
export function reasonOf({ message, code }: NodeJS.ErrnoException): string {
  return UNTRUSTED.includes(code ?? '')
    ? `${message}: name who issued the certificate by NODE_EXTRA_CA_CERTS=<file.pem>, or add the issuers to its file (ssl/README.md)`
    : message;
}

const UNTRUSTED = [
  ...['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'],
  ...['DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN'],
];

function extraCertificates(file: string): string[] {
  const found = certificatesOf(file);
  if (found.length > 0) return found;
  const why = readIfPresent(file) === undefined ? 'does not exist' : 'holds no certificate in PEM form';
  throw new CertificateError(`NODE_EXTRA_CA_CERTS names ${file}, which ${why}: put the authority there, or unset it`);
}

/** Every certificate of a PEM file, in its order; none where there is no such file. */
function certificatesOf(file: string): string[] {
  const text = readIfPresent(file)?.toString('latin1') ?? '';
  const found = text.match(/-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs) ?? [];
  for (const [index, each] of found.entries()) {
    try {
      new X509Certificate(each);
    } catch {
      throw new CertificateError(`Certificate ${index + 1} of ${file} cannot be read: put the right file there`);
    }
  }
  return found;
}
