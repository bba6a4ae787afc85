import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import type { Context } from './context';

/**
 * Two networks: `front` for what the gateway talks to, `data` for the database, without a way out of the host.
 * Neither carries anything that changes with a release: a changed field would replace the network.
 */
export class Network extends pulumi.ComponentResource {
  readonly front: pulumi.Output<string>;
  readonly data: pulumi.Output<string>;

  constructor(name: string, { spec }: Context, opts: pulumi.ComponentResourceOptions) {
    super('branchloans:infra:Network', name, {}, opts);
    const front = new docker.Network(`${spec.prefix}-front`, { name: `${spec.prefix}-front` }, { parent: this });
    const data = new docker.Network(
      `${spec.prefix}-data`,
      { name: `${spec.prefix}-data`, internal: true },
      { parent: this },
    );
    this.front = front.name;
    this.data = data.name;
    this.registerOutputs({ front: this.front, data: this.data });
  }
}
