import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Library, type Parameters, ROOT } from './files';

/** What callers of the library rely on, as data: recorded at a release, and compared with what is there now. */
export interface Interface {
  /** Of package.json, when this was recorded. */
  readonly version: string;
  /** `workflow image`, `action scan`: what each takes and gives. */
  readonly parts: Readonly<Record<string, Part>>;
}

export interface Part {
  readonly inputs: Readonly<Record<string, Asked>>;
  readonly secrets: Readonly<Record<string, Asked>>;
  readonly outputs: readonly string[];
  /** Of a workflow: what the calling job must give, `scope: level`. */
  readonly permissions: readonly string[];
}

export interface Asked {
  readonly required: boolean;
  readonly type?: string;
  readonly default?: unknown;
}

export const RECORD = join(ROOT, 'tests/workflows/interface.json');
export const versionNow = () =>
  (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;

/** @param version that it has from now on */
export function interfaceOf({ workflows, actions }: Library, version: string): Interface {
  const asked = (parameters: Parameters = {}) =>
    Object.fromEntries(
      Object.entries(parameters).map(([name, { required = false, type, default: value }]) => [
        name,
        { required, ...(type === undefined ? {} : { type }), ...(value === undefined ? {} : { default: value }) },
      ]),
    );
  const part = (
    { inputs, secrets, outputs }: { inputs?: Parameters; secrets?: Parameters; outputs?: Parameters },
    permissions: readonly string[],
  ): Part => ({
    inputs: asked(inputs),
    secrets: asked(secrets),
    outputs: Object.keys(outputs ?? {}).sort(),
    permissions: [...new Set(permissions)].sort(),
  });
  const called = Object.entries(workflows).flatMap(([name, { on, jobs }]) => {
    const call = on['workflow_call'] as Parameters | undefined;
    if (call === undefined) return [];
    const permissions = Object.values(jobs).flatMap((job) =>
      Object.entries(typeof job.permissions === 'object' ? job.permissions : {}).map((pair) => pair.join(': ')),
    );
    return [[`workflow ${name}`, part(call, permissions)] as const];
  });
  const used = Object.entries(actions).map(([name, action]) => [`action ${name}`, part(action, [])] as const);
  return { version, parts: Object.fromEntries([...called, ...used]) };
}

export interface Changes {
  /** A caller that was right before is wrong, or gets something else, afterwards. */
  readonly breaking: readonly string[];
  readonly added: readonly string[];
}

export function changesBetween(before: Interface, after: Interface): Changes {
  const breaking: string[] = [];
  const added: string[] = [];
  for (const name of Object.keys(after.parts)) if (before.parts[name] === undefined) added.push(`${name} is new`);
  for (const [name, old] of Object.entries(before.parts)) {
    const now = after.parts[name];
    if (now === undefined) {
      breaking.push(`${name} is gone`);
      continue;
    }
    for (const kind of ['inputs', 'secrets'] as const) {
      const what = (parameter: string) => `${name}: ${kind.slice(0, -1)} ${parameter}`;
      for (const [parameter, { required, type, default: value }] of Object.entries(old[kind])) {
        const next = now[kind][parameter];
        if (next === undefined) breaking.push(`${what(parameter)} is gone`);
        else {
          if (next.required && !required) breaking.push(`${what(parameter)} is newly required`);
          if (next.type !== type) breaking.push(`${what(parameter)} is of another type`);
          // Of one that was required everybody gives a value: a default is an addition.
          if (!required && JSON.stringify(next.default) !== JSON.stringify(value)) {
            breaking.push(`${what(parameter)} has another default`);
          }
          if (required && !next.required) added.push(`${what(parameter)} is no longer required`);
        }
      }
      for (const [parameter, { required }] of Object.entries(now[kind])) {
        if (old[kind][parameter] !== undefined) continue;
        (required ? breaking : added).push(`${what(parameter)} is new${required ? ' and required' : ''}`);
      }
    }
    for (const output of old.outputs)
      if (!now.outputs.includes(output)) breaking.push(`${name}: output ${output} is gone`);
    for (const output of now.outputs) if (!old.outputs.includes(output)) added.push(`${name}: output ${output} is new`);
    for (const each of now.permissions) {
      if (!old.permissions.includes(each)) breaking.push(`${name}: callers must give ${each}`);
    }
  }
  return { breaking, added };
}

/** The lowest version that may have these changes, after the one that was released. */
export function versionFor(released: string, { breaking, added }: Changes): string {
  const [major = 0, minor = 0, patch = 0] = released.split('.').map(Number);
  if (breaking.length > 0) return major === 0 ? `0.${minor + 1}.0` : `${major + 1}.0.0`;
  if (added.length > 0) return major === 0 ? `0.${minor}.${patch + 1}` : `${major}.${minor + 1}.0`;
  return released;
}

export function isAtLeast(version: string, lowest: string): boolean {
  const [a, b] = [version, lowest].map((each) => each.split('.').map(Number));
  const differs = [0, 1, 2].find((index) => a![index] !== b![index]);
  return differs === undefined || a![differs]! > b![differs]!;
}
