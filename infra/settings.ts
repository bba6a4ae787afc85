import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Document, isMap, parseDocument } from 'yaml';

/** Whoever scales, rolls back or tries a canary changes the settings of the stack, as an editor would. */

/**
 * Changes the file of a stack's settings, comments and order kept; all of it or nothing.
 * @param root directory of Pulumi.<stack>.yaml
 * @param changes path below `config` without the program's prefix, such as `['api', 'replicas']` -> its value;
 * undefined removes the setting
 * @returns a function that puts the file back as it was
 */
export function changeSettings(
  root: string,
  stack: string,
  changes: readonly (readonly [path: readonly [string, ...string[]], value: unknown])[],
): () => void {
  const file = resolve(root, `Pulumi.${stack}.yaml`);
  const before = readFileSync(file, 'utf8');
  const document = parseDocument(before);
  for (const [[name, ...rest], value] of changes) set(document, ['config', `branchloans:${name}`, ...rest], value);
  write(file, document.toString({ lineWidth: 0, flowCollectionPadding: true }));
  return () => write(file, before);
}

function set(document: Document, path: readonly string[], value: unknown): void {
  if (value === undefined) {
    document.deleteIn(path);
    const above = path.slice(0, -1);
    const left = document.getIn(above);
    if (isMap(left) && left.items.length === 0) document.deleteIn(above);
  } else {
    // A plain value goes into the node that is there, and its comment stays.
    document.setIn(path, typeof value === 'object' ? document.createNode(value) : value);
  }
}

function write(file: string, text: string): void {
  const beside = `${file}.new`;
  writeFileSync(beside, text);
  renameSync(beside, file);
}
