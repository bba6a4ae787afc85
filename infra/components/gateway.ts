import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as pulumi from '@pulumi/pulumi';
import { createContainer } from '../container';
import type { Release } from '../deploy/ledger';
import type { SwitchOutput } from '../deploy/switch';
import { LABEL } from '../labels';
import { withCanary } from '../ops/canary';
import { GATEWAY_METRICS_PORT } from '../ops/exporters';
import { MAINTENANCE_FLAG, renderOperators } from '../ops/maintenance';
import { htpasswd, LEAST_SHUTDOWN_SECONDS, renderGateway, renderUpstream, VERSION_TEXT, WIND_DOWN } from '../ops/nginx';
import { createSecret, createStep } from '../step';
import type { Api } from './api';
import type { Context } from './context';
import { Files } from './files';
import type { Images } from './images';
import { PROMETHEUS_USER } from './monitoring';
import type { Network } from './network';

const USER = { uid: 101, gid: 101 };
const MOUNT = '/etc/branchloans';
const CURRENT = `${MOUNT}/current`;
const COMMAND = ['nginx', '-c', `${CURRENT}/nginx.conf`] as const;
/** When its own container is replaced all others wait outside meanwhile: as long as a usual answer may take, no more. */
const STOP_SECONDS = 10;
/** Inside the container, where no right is needed for them. */
const PORTS = { https: 8443, http: 8080, api: 8000 };
const HEALTH = `http://127.0.0.1:${PORTS.http}/gateway/health`;

/**
 * nginx: the one entrance, and the switch. Its files name the API containers that the gate let through; new files
 * are tested with its own image, become current in one step, and are taken over by a reload that drops nobody.
 */
export class Gateway extends pulumi.ComponentResource {
  readonly url: pulumi.Output<string>;
  /** What has the traffic. */
  readonly release: pulumi.Output<Release>;
  /** Whoever shows it is let through while the gateway is closed for maintenance. */
  readonly operatorToken: pulumi.Output<string>;

  constructor(
    name: string,
    context: Context,
    args: {
      images: Images;
      network: Network;
      certificate: { certificate: string; key: string };
      api: Api;
      /** Where the stack has one: it gets its share. */
      canary: Api | undefined;
      prometheusPassword: pulumi.Output<string>;
    },
    opts: pulumi.ComponentResourceOptions,
  ) {
    super('branchloans:infra:Gateway', name, {}, opts);
    const { spec } = context;
    const { address, ports } = spec.gateway;
    const image = args.images.nginx;

    this.operatorToken = createSecret(`${name}-operator-token`, undefined, { parent: this });
    const configuration = renderGateway({
      domain: spec.domain,
      names: [new URL(spec.url).hostname],
      listen: { https: PORTS.https, http: PORTS.http, ...(ports.api === undefined ? {} : { api: PORTS.api }) },
      publicHttpsPort: ports.https,
      tracing: spec.tracing,
      files: {
        certificate: `${CURRENT}/tls.pem`,
        key: `${CURRENT}/tls.key`,
        htpasswd: `${CURRENT}/htpasswd`,
        upstream: `${CURRENT}/upstream.conf`,
        version: `${CURRENT}/version.conf`,
        // Beside the versions: what an operator closed stays closed, whatever is deployed.
        maintenance: `${MOUNT}/${MAINTENANCE_FLAG}`,
        operators: `${CURRENT}/operators.conf`,
      },
      metrics: { port: GATEWAY_METRICS_PORT, script: `${CURRENT}/gateway.js` },
      // As long as the old API containers, which are told to go only after the reload.
      workerShutdownTimeoutSeconds: Math.max(LEAST_SHUTDOWN_SECONDS, spec.api.drainSeconds + spec.api.shutdownSeconds),
    });
    const way = {
      entrance: {
        container: name,
        port: PORTS.https,
        domain: new URL(spec.url).hostname,
        certificate: `${CURRENT}/tls.pem`,
        operatorToken: this.operatorToken,
      },
      smoke: args.api.smoke,
      server: args.api.active.apply(({ containers }) => containers[0] ?? ''),
      attempt: args.api.attempt,
    };
    const files = new Files(
      `${name}-files`,
      context,
      {
        files: {
          'nginx.conf': configuration,
          'gateway.js': readFileSync(resolve(__dirname, '../exporters/gateway.js'), 'utf8'),
          'upstream.conf': pulumi
            .all([args.api.active, args.canary?.active])
            .apply(([{ containers }, canary]) =>
              renderUpstream(withCanary(containers, canary?.containers ?? [], spec.canary?.percent ?? 0)),
            ),
          'tls.pem': args.certificate.certificate,
          'tls.key': pulumi.secret(args.certificate.key),
          'operators.conf': this.operatorToken.apply(renderOperators),
          htpasswd: args.prometheusPassword.apply((password) => `${htpasswd(PROMETHEUS_USER, password)}\n`),
        },
        owner: USER,
        helperImage: image,
        check: image.apply((resolved) => ({
          image: resolved,
          user: `${USER.uid}:${USER.gid}`,
          mountedAt: MOUNT,
          command: [...COMMAND, '-t', '-q'],
        })),
        reload: {
          container: name,
          signal: 'HUP',
          confirm: { file: 'version.conf', text: VERSION_TEXT, command: ['curl', '--silent', HEALTH] },
        },
        switch: {
          ...way,
          upstream: 'upstream.conf',
          // The canary's names begin so too.
          candidates: { label: `${LABEL}.environment=${spec.prefix}`, prefix: `${spec.prefix}-api-` },
        },
      },
      { parent: this },
    );

    const container = createContainer(
      name,
      spec,
      {
        component: 'gateway',
        // Idle connections would hold up the stop for seconds, while new ones are refused.
        replacement: { engine: context.engine, settle: ['sh', '-c', WIND_DOWN] },
        image,
        user: `${USER.uid}:${USER.gid}`,
        entrypoint: [...COMMAND],
        command: ['-g', 'daemon off;'],
        limits: spec.gateway.limits,
        healthcheck: {
          ...spec.gateway.healthcheck,
          test: [
            'curl',
            '--silent',
            '--fail',
            '--output',
            '/dev/null',
            `http://127.0.0.1:${PORTS.http}/gateway/health`,
          ],
          startPeriodSeconds: 5,
        },
        networks: [{ name: args.network.front, alias: 'gateway' }],
        mounts: [{ source: files.volume, target: MOUNT, readOnly: true }],
        tmpfs: { '/tmp': 64 },
        ports: [
          { internal: PORTS.https, external: ports.https, address },
          ...(ports.http === undefined ? [] : [{ internal: PORTS.http, external: ports.http, address }]),
          ...(ports.api === undefined ? [] : [{ internal: PORTS.api, external: ports.api, address: '127.0.0.1' }]),
        ],
        // Graceful: finish what is in flight.
        stopSignal: 'SIGQUIT',
        stopGraceSeconds: STOP_SECONDS,
      },
      { parent: this, dependsOn: [files] },
    );
    const switched = files.stdout.apply((text) => JSON.parse(text) as SwitchOutput);
    const opened = createStep(
      `${name}-open`,
      'open',
      { ...way, withinSeconds: 60 },
      // Else it is the switch's business.
      {
        parent: this,
        engine: context.engine,
        triggers: [container.id, pulumi.unsecret(switched.apply(({ unopened }) => unopened ?? ''))],
        onlyTriggered: true,
      },
    );
    this.url = opened.id.apply(() => spec.url);
    this.release = switched.apply(({ release }) => release);
    this.registerOutputs({ url: this.url });
  }
}
