import { parseArgs } from 'node:util';
import { CertificateError, ensureCertificate } from './certificates';

const HELP = `Makes the certificate of the HTTPS entrance with an authority of one's own, or checks the one that is there.

  node --import tsx ssl/main.ts [--domain branchloans.com] [--renew] [--directory ssl]`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      domain: { type: 'string', default: 'branchloans.com' },
      directory: { type: 'string', default: __dirname },
      renew: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const made = await ensureCertificate(values);
  const verb = made.renewed ? 'Made' : 'Good';
  console.log(`${verb}: ${made.certificateFile}, valid until ${made.notAfter.toISOString().slice(0, 10)}`);
  if (made.caRenewed && made.caFile !== undefined) {
    console.log(`New authority: ${made.caFile}. Browsers and clients have to trust it once: see ssl/README.md`);
  }
}

main().catch((error: unknown) => {
  const known =
    error instanceof CertificateError || (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  console.error(known === true ? (error as Error).message : error);
  process.exitCode = 1;
});
