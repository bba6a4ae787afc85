import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import { CertificateError, ensureCertificate, readCertificate } from '../ssl/certificates';
import { Alerting } from './components/alerting';
import { Api } from './components/api';
import type { Context } from './components/context';
import { Database } from './components/database';
import { Exporters } from './components/exporters';
import { Gateway } from './components/gateway';
import { Images } from './components/images';
import { Monitoring } from './components/monitoring';
import { Network } from './components/network';
import { Releases } from './components/releases';
import { StepError } from './deploy/engine';
import { EnvironmentError, readEnvironment, type EnvironmentSpec } from './environment';
import { preflight } from './preflight';

/** Everything is checked first; a fault ends the program before the first resource, with a message and no trace. */
async function checked() {
  try {
    const project = pulumi.getProject();
    const settings = pulumi.runtime.allConfig();
    const spec = readEnvironment(project, pulumi.getStack(), settings, isSecret);
    const certificate = await certificateOf(spec);
    const host = await preflight(spec, new pulumi.Config('docker').get('host'));
    return { spec, certificate, host };
  } catch (error) {
    const readable = [EnvironmentError, StepError, CertificateError].some((kind) => error instanceof kind);
    throw readable ? new pulumi.RunError((error as Error).message) : error;
  }
}

/** The SDK knows which settings are encrypted, but leaves the question out of its public types. */
function isSecret(key: string): boolean {
  return (pulumi.runtime as unknown as { isConfigSecret(key: string): boolean }).isConfigSecret(key);
}

async function certificateOf({ domain, gateway, url }: EnvironmentSpec) {
  const root = resolve(__dirname, '..');
  const own = gateway.certificate;
  const files = own
    ? { certificateFile: resolve(root, own.certificateFile), keyFile: resolve(root, own.keyFile), caFile: undefined }
    : await ensureCertificate({ directory: resolve(root, 'ssl'), domain });
  const pair = readCertificate({ ...files, domain: own ? new URL(url).hostname : domain });
  // Where nothing is known of who issued it, it vouches for itself; its names and dates count all the same.
  return { ...pair, authority: files.caFile === undefined ? pair.certificate : readFileSync(files.caFile, 'utf8') };
}

export = async () => {
  const { spec, certificate, host } = await checked();
  for (const warning of host.warnings) await pulumi.log.warn(warning);

  const config = new pulumi.Config();
  const context: Context = { spec, engine: host.engine, configuredSecret: (key) => config.getSecret(key) };
  const provider = new docker.Provider('engine', { host: host.engine });
  const opts = { providers: { docker: provider } };
  const named = (component: string) => `${spec.prefix}-${component}`;

  const images = new Images(named('images'), context, opts);
  const network = new Network(named('network'), context, opts);
  const database = new Database(named('database'), context, { images, network }, opts);
  const { ledger } = new Releases(named('releases'), context, { images }, opts);
  const api = new Api(named('api'), context, { images, network, database: database.connection, ledger }, opts);
  const canary =
    spec.canary &&
    new Api(
      named('api-canary'),
      context,
      { images, network, database: database.connection, ledger, track: 'canary' },
      // The migrations of the older release come first.
      { ...opts, dependsOn: api },
    );
  const monitoring = new Monitoring(named('monitoring'), context, { images, network }, opts);
  const gateway = new Gateway(
    named('gateway'),
    context,
    { images, network, certificate, api, canary, prometheusPassword: monitoring.prometheusPassword },
    opts,
  );
  // After the switch: whatever is wrong with them, users are on the new release by then.
  const afterwards = { ...opts, dependsOn: gateway };
  new Exporters(
    named('exporters'),
    context,
    { images, network, database: database.connection, authority: certificate.authority },
    afterwards,
  );
  new Alerting(named('alerting'), context, { images, network }, afterwards);

  return {
    url: gateway.url,
    image: gateway.release.apply(({ image }) => image),
    release: gateway.release,
    ...(canary ? { canary: canary.attempt.apply(({ release }) => release) } : {}),
    prometheusUser: monitoring.prometheusUser,
    prometheusPassword: monitoring.prometheusPassword,
    grafanaUser: monitoring.grafanaUser,
    grafanaPassword: monitoring.grafanaPassword,
    operatorToken: gateway.operatorToken,
  };
};
