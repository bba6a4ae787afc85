import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import type { Ledger } from '../deploy/ledger';
import type { Context } from './context';
import type { Images } from './images';

/** Where the deploys write down what became of them. It tells of the environment, not of its data: it goes with it. */
export class Releases extends pulumi.ComponentResource {
  readonly ledger: pulumi.Output<Ledger>;

  constructor(name: string, _context: Context, { images }: { images: Images }, opts: pulumi.ComponentResourceOptions) {
    super('branchloans:infra:Releases', name, {}, opts);
    const volume = new docker.Volume(name, { name }, { parent: this });
    this.ledger = pulumi.output({ volume: volume.name, helperImage: images.nginx });
    this.registerOutputs({ ledger: this.ledger });
  }
}
