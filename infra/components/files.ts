import { createHash } from 'node:crypto';
import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import type { Check, PublishInput, Reload } from '../deploy/publish';
import type { SwitchInput } from '../deploy/switch';
import { createStep, type StepInput } from '../step';
import type { Context } from './context';

export interface FilesArgs {
  /** Relative path -> text. Changing it switches the whole set at once; see `reload` for who notices. */
  readonly files: pulumi.Input<Record<string, pulumi.Input<string>>>;
  /** Numeric user and group of the reader; nobody else can read the files. */
  readonly owner: { readonly uid: number; readonly gid: number };
  /** An image with `sh` and `tar`. */
  readonly helperImage: pulumi.Input<string>;
  /** Run on the new files before they become current; a failure leaves the old ones. */
  readonly check?: pulumi.Input<Check>;
  /** The container to signal when the files changed and it runs. */
  readonly reload?: Reload;
  /** Where the files give a release its traffic: what the step must know for it. Wants `reload`. */
  readonly switch?: StepInput<Omit<SwitchInput, keyof PublishInput>>;
}

/**
 * Files for a container, in a volume instead of bind mounts of this machine: it works on a remote engine, and
 * secrets appear in no environment. A reader mounts `volume` and finds the files under `<mount>/current/`.
 */
export class Files extends pulumi.ComponentResource {
  readonly volume: pulumi.Output<string>;
  /** Hash of the files. Known once they are in place: depending on it is depending on them. */
  readonly version: pulumi.Output<string>;
  /** What the step said: of a switch, a SwitchOutput. */
  readonly stdout: pulumi.Output<string>;

  constructor(name: string, context: Context, args: FilesArgs, opts: pulumi.ComponentResourceOptions) {
    super('branchloans:infra:Files', name, {}, opts);
    const volume = new docker.Volume(name, { name }, { parent: this });
    const files = pulumi.output(args.files) as pulumi.Output<Record<string, string>>;
    // Names a directory and stands in labels: no secret, although files may be.
    const version = pulumi.unsecret(files.apply(hashOf));
    const input = {
      volume: volume.name,
      version,
      files,
      owner: args.owner,
      helperImage: args.helperImage,
      ...(args.check ? { check: args.check } : {}),
      ...(args.reload ? { reload: args.reload } : {}),
    };
    // A volume made anew is empty.
    const options = { parent: this, engine: context.engine, triggers: [volume.id] };
    const published =
      args.switch === undefined
        ? createStep(`${name}-publish`, 'publish', input, options)
        : createStep(`${name}-switch`, 'switch', { ...input, ...args.switch } as StepInput<SwitchInput>, options);
    this.stdout = published.stdout;
    this.volume = volume.name;
    this.version = pulumi.all([version, published.id]).apply(([hash]) => hash);
    this.registerOutputs({ volume: this.volume, version: this.version });
  }
}

function hashOf(files: Record<string, string>): string {
  const hash = createHash('sha256');
  for (const path of Object.keys(files).sort()) hash.update(`${path}\0${files[path] ?? ''}\0`);
  return hash.digest('hex').slice(0, 16);
}
