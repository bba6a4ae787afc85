import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type Job, type Parameters, parseLibrary, readFiles, ROOT } from './files';

/** The examples of the document name only what the library has, and all that it asks for. */
const library = parseLibrary(readFiles());
const examples = [...readFileSync(join(ROOT, 'docs/PIPELINE.md'), 'utf8').matchAll(/```yaml\n([\s\S]*?)```/g)]
  .map(([, text]) => parse(text!) as Record<string, unknown>)
  .flatMap((example) => Object.entries((example['jobs'] ?? example) as Record<string, Job>))
  .filter(([, job]) => typeof job === 'object' && ('uses' in job || 'steps' in job));

const calls = examples.flatMap(([name, job]) =>
  [job, ...(job.steps ?? [])].flatMap((each) => {
    const [, kind, called] =
      /^OWNER\/branchloans\/\.github\/(workflows|actions)\/([a-z-]+)/.exec(each.uses ?? '') ?? [];
    if (kind === undefined || called === undefined) return [];
    const workflow = library.workflows[called]?.on['workflow_call'] as Record<string, Parameters> | undefined;
    const { inputs = {} } = kind === 'workflows' ? workflow! : library.actions[called]!;
    return [{ name, called, inputs, given: Object.keys(each.with ?? {}) }];
  }),
);

it('there are examples of a workflow and of an action', () => {
  expect(calls.map(({ called }) => called)).toEqual(['image', 'node', 'deploy']);
});

it.each(calls)('$name calls $called as it wants to be called', ({ inputs, given }) => {
  expect(given.filter((input) => !Object.hasOwn(inputs, input))).toEqual([]);
  const required = Object.entries(inputs).flatMap(([input, { required: must }]) => (must === true ? [input] : []));
  expect(required.filter((input) => !given.includes(input))).toEqual([]);
});
