import * as command from '@pulumi/command';
import * as pulumi from '@pulumi/pulumi';
import type { Steps } from './deploy/main';

/** Inputs of a step may still be outputs of resources at any depth. */
type Inputs<T> = pulumi.Input<T extends object ? StepInput<T> : T>;
export type StepInput<T> = { readonly [K in keyof T]: Inputs<T[K]> };

export interface StepOptions extends pulumi.CustomResourceOptions {
  /** The step runs again when one of these changes. When only its input changes it runs again too, in place. */
  readonly triggers?: pulumi.Input<unknown>[];
  /** Its input alone does not make it run again. (`ignoreChanges` would hand it an input of earlier, triggered or not.) */
  readonly onlyTriggered?: boolean;
  /** What it returns is text for the operator. */
  readonly speaks?: boolean;
  /** Address of the engine that the step talks to. */
  readonly engine: string;
}

/** One step of a deploy (see deploy/main.ts) as a resource: it fails the update, and is not repeated without need. */
export function createStep<Name extends keyof Steps>(
  name: string,
  step: Name,
  input: Inputs<Steps[Name]>,
  { triggers, onlyTriggered = false, speaks = false, engine, ...opts }: StepOptions,
): command.local.Command {
  return new command.local.Command(
    name,
    {
      // Relative to infra/, where Pulumi runs the program and its commands; an absolute path would stand in the state.
      // The name is for lists of processes: a step outlives a `pulumi` that was killed.
      create: `node --import tsx deploy/main.ts ${name} ${step}`,
      stdin: pulumi.output(input).apply((resolved) => JSON.stringify(resolved)),
      environment: { DOCKER_HOST: engine },
      triggers: triggers ?? [],
      ...(onlyTriggered ? { update: 'exit 0' } : {}),
      logging: speaks ? 'stdout' : 'none',
    },
    opts,
  );
}

/** A random secret of 192 bits, made once and kept encrypted in the state; `configured` wins. */
export function createSecret(
  name: string,
  configured: pulumi.Output<string> | undefined,
  opts: pulumi.CustomResourceOptions,
): pulumi.Output<string> {
  if (configured !== undefined) return configured;
  const made = new command.local.Command(
    name,
    { create: `node -p "require('node:crypto').randomBytes(24).toString('base64url')"`, logging: 'none' },
    { ...opts, additionalSecretOutputs: ['stdout'] },
  );
  return pulumi.secret(made.stdout);
}
