import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import { version } from '../../package.json';
import type { ImageName } from '../environment';
import type { Context } from './context';

/**
 * The images of the stack, on the engine before any container is touched: one that cannot be pulled or built
 * ends the update while everything old still runs. Containers get ids, so that they run exactly this image.
 */
export class Images extends pulumi.ComponentResource {
  readonly postgres: pulumi.Output<string>;
  readonly nginx: pulumi.Output<string>;
  readonly prometheus: pulumi.Output<string>;
  readonly grafana: pulumi.Output<string>;
  /** @returns the image of an exporter, on the engine only where the stack has that exporter */
  readonly exporter: (
    image: 'postgres-exporter' | 'blackbox-exporter' | 'node-exporter' | 'node',
  ) => pulumi.Output<string>;
  readonly alertmanager: pulumi.Output<string>;
  readonly api: pulumi.Output<string>;
  /** What the API's image is called outside this engine; its digest where it came from a registry. */
  readonly apiReference: pulumi.Output<string>;
  /** The same two of the canary's image, where the stack has a canary. */
  readonly canary: { readonly id: pulumi.Output<string>; readonly reference: pulumi.Output<string> } | undefined;

  constructor(name: string, { spec }: Context, opts: pulumi.ComponentResourceOptions) {
    super('branchloans:infra:Images', name, {}, opts);
    const pull = (image: ImageName | 'api' | 'api-canary', reference: string) =>
      // Kept on the engine when the stack no longer needs it: going back must not depend on a registry.
      new docker.RemoteImage(`${name}-${image}`, { name: reference, keepLocally: true }, { parent: this });
    this.postgres = pull('postgres', spec.images.postgres).imageId;
    this.nginx = pull('nginx', spec.images.nginx).imageId;
    this.prometheus = pull('prometheus', spec.images.prometheus).imageId;
    this.grafana = pull('grafana', spec.images.grafana).imageId;
    this.exporter = (image) => pull(image, spec.images[image]).imageId;
    this.alertmanager = pull('alertmanager', spec.images.alertmanager).imageId;

    if (spec.api.image !== undefined) {
      const image = pull('api', spec.api.image);
      this.api = image.imageId;
      this.apiReference = referenceOf(image);
    } else {
      const { intervalSeconds, timeoutSeconds, retries } = spec.api.healthcheck;
      const image = new docker.Image(
        `${name}-api`,
        {
          imageName: `${spec.prefix}-api:build`,
          skipPush: true,
          build: {
            context: resolve(__dirname, '../..'),
            dockerfile: resolve(__dirname, '../../app/Dockerfile'),
            ...(spec.api.buildNetwork === 'default' ? {} : { network: spec.api.buildNetwork }),
            args: {
              NODE_IMAGE: spec.images.node,
              ENVIRONMENT: spec.stack,
              VERSION: version,
              COMMIT: spec.commit || commitOf(resolve(__dirname, '../..')) || 'unknown',
              HEALTHCHECK_INTERVAL: `${intervalSeconds}s`,
              HEALTHCHECK_TIMEOUT: `${timeoutSeconds}s`,
              HEALTHCHECK_RETRIES: String(retries),
            },
          },
        },
        { parent: this },
      );
      this.api = image.repoDigest;
      this.apiReference = image.repoDigest;
    }
    const canary = spec.canary && pull('api-canary', spec.canary.image);
    this.canary = canary && { id: canary.imageId, reference: referenceOf(canary) };
    this.registerOutputs({ apiReference: this.apiReference });
  }
}

/** What the API's image is made of, as .dockerignore says. */
const SOURCES = ['package.json', 'package-lock.json', 'app', ':(exclude,glob)app/**/*.test.ts'];

/**
 * The last commit that changed what the API's image is made of, so that any other commit makes no other image.
 * @param root of the repository
 * @returns 40 hexadecimal digits; empty with changes that are not committed, and where git knows no history
 */
export function commitOf(root: string): string {
  const git = (...args: string[]) => spawnSync('git', ['-C', root, ...args, '--', ...SOURCES], { encoding: 'utf8' });
  const changes = git('status', '--porcelain');
  if (changes.status !== 0 || changes.stdout !== '') return '';
  const last = git('log', '-1', '--format=%H');
  return last.status === 0 ? last.stdout.trim() : '';
}

function referenceOf(image: docker.RemoteImage): pulumi.Output<string> {
  return pulumi.all([image.repoDigest, image.imageId]).apply(([digest, id]) => digest || id);
}
