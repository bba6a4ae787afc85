import type * as pulumi from '@pulumi/pulumi';
import type { EnvironmentSpec } from '../environment';

/** What every component gets: the environment, the address of the engine, and secrets that the stack set itself. */
export interface Context {
  readonly spec: EnvironmentSpec;
  readonly engine: string;
  /** Undefined where the stack leaves it to the program to make one. */
  readonly configuredSecret: (key: string) => pulumi.Output<string> | undefined;
}
