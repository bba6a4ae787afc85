import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import { createContainer } from '../container';
import {
  ALERTMANAGER_PATH,
  ALERTMANAGER_PORT,
  alertmanagerArguments,
  renderAlertmanager,
  SECRET_FILES,
} from '../ops/alertmanager';
import type { Context } from './context';
import { Files } from './files';
import type { Images } from './images';
import type { Network } from './network';

const USER = { uid: 65_534, gid: 65_534 };
const MOUNT = '/etc/branchloans';

/** Which of the stack's secrets is in which file. */
const SECRETS = {
  alertWebhook: SECRET_FILES.webhook,
  alertPager: SECRET_FILES.pager,
  alertMailPassword: SECRET_FILES.mailPassword,
  alertWatchdog: SECRET_FILES.watchdog,
} as const;

/**
 * Alertmanager: tells people of Prometheus' alerts. It holds what was sent and what is silenced in a volume of its own,
 * so that a restart repeats nothing and breaks no silence; both go with the stack.
 */
export class Alerting extends pulumi.ComponentResource {
  constructor(
    name: string,
    context: Context,
    { images, network }: { readonly images: Images; readonly network: Network },
    opts: pulumi.ComponentResourceOptions,
  ) {
    super('branchloans:infra:Alerting', name, {}, opts);
    const { spec } = context;
    const container = `${spec.prefix}-alertmanager`;
    const configFile = `${MOUNT}/current/alertmanager.yml`;
    const secrets = Object.entries(SECRETS).flatMap(([key, file]) => {
      const value = context.configuredSecret(key);
      return value === undefined ? [] : [[file, value] as const];
    });
    const files = new Files(
      `${container}-files`,
      context,
      {
        files: {
          'alertmanager.yml': renderAlertmanager(spec.alerts.receivers, `${MOUNT}/current`),
          ...Object.fromEntries(secrets),
        },
        owner: USER,
        helperImage: images.nginx,
        check: images.alertmanager.apply((image) => ({
          image,
          user: `${USER.uid}:${USER.gid}`,
          mountedAt: MOUNT,
          command: ['amtool', 'check-config', configFile],
        })),
        reload: { container, signal: 'HUP' },
      },
      { parent: this },
    );
    const data = new docker.Volume(`${container}-data`, { name: `${container}-data` }, { parent: this });
    createContainer(
      container,
      spec,
      {
        component: 'alertmanager',
        replacement: { engine: context.engine },
        image: images.alertmanager,
        user: `${USER.uid}:${USER.gid}`,
        entrypoint: ['/bin/alertmanager'],
        command: alertmanagerArguments({ configFile, url: spec.url }),
        limits: spec.alertmanager.limits,
        healthcheck: {
          ...spec.alertmanager.healthcheck,
          // The official image has no curl; asked for silences, it must have read its configuration and its volume.
          test: [
            'amtool',
            'silence',
            'query',
            '--quiet',
            `--alertmanager.url=http://127.0.0.1:${ALERTMANAGER_PORT}${ALERTMANAGER_PATH}`,
          ],
          startPeriodSeconds: 30,
        },
        networks: [{ name: network.front, alias: 'alertmanager' }],
        mounts: [
          { source: files.volume, target: MOUNT, readOnly: true },
          { source: data.name, target: '/alertmanager', readOnly: false },
        ],
        stopGraceSeconds: 10,
      },
      { parent: this, dependsOn: [files] },
    );
    this.registerOutputs({});
  }
}
