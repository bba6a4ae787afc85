import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';

/** The files of .github as data: rules and tables are about these, never about text. */

export const ROOT = resolve(__dirname, '../..');

/** For whoever runs the bundle in an environment of its own: where it writes which lines it ran, if anybody asks. */
const written = process.env['NODE_V8_COVERAGE'];
export const coverage: Readonly<Record<string, string>> = written === undefined ? {} : { NODE_V8_COVERAGE: written };

export interface Step {
  readonly id?: string;
  readonly if?: string;
  readonly name?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly shell?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly 'continue-on-error'?: unknown;
}

export interface Job {
  readonly name?: string;
  readonly if?: string;
  readonly needs?: string | readonly string[];
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly secrets?: Readonly<Record<string, string>> | 'inherit';
  readonly steps?: readonly Step[];
  readonly permissions?: Readonly<Record<string, string>> | string;
  readonly environment?: string | { readonly name: string };
  readonly concurrency?: Concurrency;
  readonly 'timeout-minutes'?: number | string;
  readonly outputs?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly services?: Readonly<Record<string, { readonly image?: string }>>;
  readonly 'continue-on-error'?: unknown;
}

export interface Concurrency {
  readonly group: string;
  readonly 'cancel-in-progress'?: unknown;
  readonly queue?: string;
}

export interface Parameter {
  readonly description?: string;
  readonly type?: string;
  readonly required?: boolean;
  readonly default?: unknown;
  readonly value?: string;
}

export type Parameters = Readonly<Record<string, Parameter>>;

export interface Workflow {
  readonly name: string;
  readonly on: Readonly<Record<string, { branches?: string[]; inputs?: Parameters; [key: string]: unknown } | null>>;
  readonly permissions?: unknown;
  readonly concurrency?: Concurrency;
  readonly env?: Readonly<Record<string, string>>;
  readonly jobs: Readonly<Record<string, Job>>;
}

export interface Action {
  readonly name: string;
  readonly description: string;
  readonly inputs?: Parameters;
  readonly outputs?: Parameters;
  readonly runs: { readonly using: string; readonly steps: readonly Step[] };
}

/** Texts of the library, by path below .github. */
export type Files = Readonly<Record<string, string>>;

export function readFiles(root = ROOT): Files {
  const github = join(root, '.github');
  const paths = [
    ...readdirSync(join(github, 'workflows')).map((file) => `workflows/${file}`),
    ...readdirSync(join(github, 'actions')).map((action) => `actions/${action}/action.yml`),
  ].sort();
  return Object.fromEntries(paths.map((path) => [path, readFileSync(join(github, path), 'utf8')]));
}

export interface Library {
  readonly files: Files;
  readonly workflows: Readonly<Record<string, Workflow>>;
  readonly actions: Readonly<Record<string, Action>>;
}

/** @returns by file name: `cd` for workflows/cd.yml, `scan` for actions/scan/action.yml */
export function parseLibrary(files: Files): Library {
  const of = <T>(pattern: RegExp) =>
    Object.fromEntries(
      Object.entries(files).flatMap(([path, text]) => {
        const name = pattern.exec(path)?.[1];
        return name === undefined ? [] : [[name, parse(text) as T]];
      }),
    );
  return {
    files,
    workflows: of<Workflow>(/^workflows\/(.+)\.ya?ml$/),
    actions: of<Action>(/^actions\/(.+)\/action\.yml$/),
  };
}

export const needsOf = ({ needs }: Job): readonly string[] => (typeof needs === 'string' ? [needs] : (needs ?? []));
