import { parse } from 'lossless-json';
import { Problem } from '../errors';

/** A number of a JSON text, as it was written: `JSON.parse` would turn 0.1 into something that is nearly 0.1. */
export class JsonNumber {
  constructor(readonly source: string) {}
}

export const MAX_DEPTH = 32;
/** What gives a JSON text its shape. Up to the first malformed string this sees exactly what the parser sees. */
const STRUCTURE = /"(?:[^"\\]|\\[^])*"|[{}[\]:]/g;

/**
 * Reads a JSON text (RFC 8259) with every number as a JsonNumber. Property names are unique, and `__proto__` is one
 * like any other.
 * @throws Problem malformed-json, also when it nests deeper than 32 levels or repeats a property name.
 */
export function parseJson(text: string): unknown {
  if (text.trim() === '') throw new Problem('malformed-json', 'The body is empty.');
  if (text.startsWith('\uFEFF')) throw new Problem('malformed-json', 'The body begins with a byte order mark.');
  checkStructure(text);
  try {
    return parse(text, undefined, { parseNumber: (source) => new JsonNumber(source) });
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Problem('malformed-json', error.message, { cause: error });
  }
}

/** Before the parser, which is recursive, and which takes a repeated name when both values are equal. */
function checkStructure(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let lastString = '';
  for (const [token] of text.matchAll(STRUCTURE)) {
    if (token === '{' || token === '[') {
      if (open.length === MAX_DEPTH) {
        throw new Problem('malformed-json', `The body nests deeper than ${MAX_DEPTH} levels.`);
      }
      open.push(token === '{' ? new Set() : undefined);
    } else if (token === '}' || token === ']') {
      open.pop();
    } else if (token === ':') {
      const names = open.at(-1);
      if (names?.has(lastString) === true) {
        throw new Problem('malformed-json', `The property ${lastString.slice(0, 100)} occurs twice.`);
      }
      names?.add(lastString);
    } else {
      lastString = token.includes('\\') ? unescaped(token) : token;
    }
  }
}

/** The same spelling for every way to write one name, so that "a" and "\u0061" count as the same. */
function unescaped(token: string): string {
  try {
    return JSON.stringify(JSON.parse(token));
  } catch {
    return token; // Malformed: the parser will say so.
  }
}
