import { parseLibrary, type Parameters, readFiles } from './files';

/** What others rely on: the inputs, secrets, outputs and permissions of the library, as tables made from its files. */

const LIBRARY_WORKFLOWS = ['node', 'image', 'deploy'];
const HEAD =
  '# Reference of the pipeline library\n\nMade from the files of `.github` by `make pipeline`; what it is for is in [PIPELINE.md](PIPELINE.md).';
/** Text of docs/PIPELINE-REFERENCE.md. */
export function reference(): string {
  const { workflows, actions } = parseLibrary(readFiles());
  const ofWorkflows = LIBRARY_WORKFLOWS.map((name) => {
    const { workflow_call: call } = workflows[name]!.on as { workflow_call: Record<string, Parameters> };
    const permissions = Object.values(workflows[name]!.jobs).flatMap((job) => Object.entries(job.permissions ?? {}));
    const needed = [...new Set(permissions.map(([scope, level]) => `\`${scope}: ${level}\``))];
    return [
      `### Workflow \`${name}.yml\``,
      `Permissions that the calling job gives: ${needed.join(', ')}.`,
      ...section(call),
    ].join('\n\n');
  });
  const ofActions = Object.entries(actions).map(([name, { description, inputs, outputs }]) =>
    [`### Action \`${name}\``, description.trim(), ...section({ inputs, outputs })].join('\n\n'),
  );
  return `${HEAD}\n\n${[...ofWorkflows, ...ofActions].join('\n\n')}\n`;
}

function section(parts: Readonly<Record<string, Parameters | undefined>>): string[] {
  return ['inputs', 'secrets', 'outputs'].flatMap((kind) => {
    const parameters = Object.entries(parts[kind] ?? {});
    if (parameters.length === 0) return [];
    const rows = parameters.map(([name, { description = '', required, default: value }]) =>
      kind === 'outputs'
        ? `| \`${name}\` | ${description} |`
        : `| \`${name}\` | ${required === true ? 'required' : value === undefined || value === '' ? '' : `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``} | ${description} |`,
    );
    const head =
      kind === 'outputs' ? ['| outputs | |', '| --- | --- |'] : [`| ${kind} | default | |`, '| --- | --- | --- |'];
    return [[...head, ...rows].join('\n')];
  });
}
