import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Document, isMap, parseDocument } from 'yaml';
import { inTurn, placeOf } from './lock';
import { ROOT, waitSeconds } from './operator';

/** Whoever scales, rolls back or tries a canary changes the settings of the stack, as an editor would. */

/** A path below `config` without the program's prefix, such as `['api', 'replicas']` -> its value; undefined removes it. */
export type Changes = readonly (readonly [path: readonly [string, ...string[]], value: unknown])[];

/**
 * Does `work` when nobody else changes the stack, neither by our verbs nor by plain `pulumi`. What a change of settings
 * is decided by is to be read inside: it may be another one after the wait. Calls within `work` do not wait again.
 * @throws StepError when the others are not done after WAIT
 */
export function inTurnOf<T>(stack: string, work: () => Promise<T>): Promise<T> {
  return inTurn(placeOf(ROOT, stack), waitSeconds(), async (turn) => {
    await turn.free();
    return work();
  });
}

/**
 * Changes settings of a stack and deploys them, in turn. When that fails, the settings are put back; so they are when
 * the process is told to end while nothing is under way that ends in order by itself.
 * @param deploy is to end when the process gets SIGINT or SIGTERM, as our `pulumi` does
 * @param whyKept asked after a failure: a sentence on why the new settings are those to keep; undefined puts them back
 * @throws what `deploy` throws
 */
export function withSettings(
  stack: string,
  changes: Changes,
  deploy: () => Promise<void>,
  whyKept: () => Promise<string | undefined> = () => Promise.resolve(undefined),
): Promise<void> {
  return inTurnOf(stack, async () => {
    const putBack = changeSettings(ROOT, stack, changes);
    const undo = () => {
      putBack();
      console.error(`Pulumi.${stack}.yaml is again what it was before.`);
    };
    const end = (signal: NodeJS.Signals) => {
      // Somebody else listens too: then a pulumi runs, and its end is waited for.
      if (process.listenerCount(signal) > 1) return;
      release();
      undo();
      process.kill(process.pid, signal);
    };
    const release = () => process.off('SIGINT', end).off('SIGTERM', end);
    process.on('SIGINT', end).on('SIGTERM', end);
    try {
      await deploy();
    } catch (error) {
      const reason = await whyKept();
      if (reason === undefined) undo();
      else console.error(`Pulumi.${stack}.yaml stays as it was changed: ${reason}`);
      throw error;
    } finally {
      release();
    }
  });
}

/**
 * Changes the file of a stack's settings, comments and order kept; all of it or nothing. Verbs do it by `withSettings`.
 * @param root directory of Pulumi.<stack>.yaml
 * @returns a function that puts the file back as it was
 */
export function changeSettings(root: string, stack: string, changes: Changes): () => void {
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
