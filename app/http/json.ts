import { Problem } from '../errors';

/** A number of a JSON text, as it was written: `JSON.parse` would turn 0.1 into something that is nearly 0.1. */
export class JsonNumber {
  constructor(readonly source: string) {}
}

export const MAX_DEPTH = 32;
/** Four times what the largest request of the contract has; a megabyte of brackets would keep other requests waiting. */
export const MAX_VALUES = 25_000;
/** Twice what the largest request of the contract has. A name that was not seen before costs more than a value. */
export const MAX_PROPERTIES = 10_000;
const MAX_NAME = 100;

/**
 * Reads a JSON text (RFC 8259) with every number as a JsonNumber. Property names are unique, and `__proto__` is one
 * like any other. A text of a megabyte takes some ten milliseconds.
 * @throws Problem malformed-json, also when it nests deeper than 32 levels, has more than 25,000 values or 10,000
 * properties, or repeats the name of a property.
 */
export function parseJson(text: string): unknown {
  if (text.startsWith('\uFEFF')) throw malformed('The body begins with a byte order mark.');
  const reader = new Reader(text);
  reader.skipSpace();
  if (reader.atEnd()) throw malformed('The body is empty.');
  const value = reader.readValue(0);
  reader.skipSpace();
  if (!reader.atEnd()) throw reader.unexpected('the end');
  return value;
}

/** Sticky, so that each looks only where the reader stands. */
const SPACE = /[ \t\n\r]*/y;
const PLAIN_STRING = /"[^"\\\u0000-\u001f]*"/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /true|false|null/y;
const WORDS: Readonly<Record<string, unknown>> = { true: true, false: false, null: null };

/** Goes through a text once, from the left to the right. */
class Reader {
  #at = 0;
  #values = 0;
  #properties = 0;

  constructor(readonly text: string) {}

  atEnd(): boolean {
    return this.#at === this.text.length;
  }

  skipSpace(): void {
    // Most texts have none.
    if (this.text.charCodeAt(this.#at) <= 0x20) this.#match(SPACE);
  }

  /** @param depth how many arrays and objects are open around it. */
  readValue(depth: number): unknown {
    if (++this.#values > MAX_VALUES) throw malformed(`The body has more than ${MAX_VALUES} values.`);
    switch (this.text[this.#at]) {
      case '{':
        return this.#readObject(depth + 1);
      case '[':
        return this.#readArray(depth + 1);
      case '"':
        return this.#readString();
      case 't':
      case 'f':
      case 'n': {
        const word = this.#match(WORD);
        if (word !== undefined) return WORDS[word];
      }
    }
    const number = this.#match(NUMBER);
    if (number === undefined) throw this.unexpected('a value');
    return new JsonNumber(number);
  }

  unexpected(expected: string): Problem {
    const place = this.atEnd() ? 'the text ends' : `there is ${JSON.stringify(this.text[this.#at])}`;
    return malformed(`Expected ${expected} at character ${this.#at + 1}, where ${place}.`);
  }

  #readObject(depth: number): object {
    this.#open(depth);
    const object: Record<string, unknown> = {};
    if (this.#take('}')) return object;
    do {
      if (++this.#properties > MAX_PROPERTIES) throw malformed(`The body has more than ${MAX_PROPERTIES} properties.`);
      this.skipSpace();
      if (this.text[this.#at] !== '"') throw this.unexpected('the name of a property');
      const name = this.#readString();
      if (Object.hasOwn(object, name))
        throw malformed(`The property ${JSON.stringify(name.slice(0, MAX_NAME))} occurs twice.`);
      if (!this.#take(':')) throw this.unexpected('a colon');
      this.skipSpace();
      const value = this.readValue(depth);
      if (name === '__proto__') {
        Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
      } else {
        object[name] = value;
      }
    } while (this.#take(','));
    if (!this.#take('}')) throw this.unexpected('a comma or the end of the object');
    return object;
  }

  #readArray(depth: number): unknown[] {
    this.#open(depth);
    const array: unknown[] = [];
    if (this.#take(']')) return array;
    do {
      this.skipSpace();
      array.push(this.readValue(depth));
    } while (this.#take(','));
    if (!this.#take(']')) throw this.unexpected('a comma or the end of the array');
    return array;
  }

  #open(depth: number): void {
    if (depth > MAX_DEPTH) throw malformed(`The body nests deeper than ${MAX_DEPTH} levels.`);
    this.#at++;
  }

  #readString(): string {
    const plain = this.#match(PLAIN_STRING);
    if (plain !== undefined) return plain.slice(1, -1);
    const from = this.#at;
    const end = this.#endOfString();
    try {
      const value = JSON.parse(this.text.slice(from, end)) as string;
      this.#at = end;
      return value;
    } catch {
      throw malformed(`The string that begins at character ${from + 1} is not well-formed.`);
    }
  }

  /** After the first quotation mark that no backslash escapes. A pattern would take several times as long. */
  #endOfString(): number {
    let quote = this.#at;
    let backslashes: number;
    do {
      quote = this.text.indexOf('"', quote + 1);
      if (quote === -1) return this.text.length;
      backslashes = 0;
      while (this.text[quote - 1 - backslashes] === '\\') backslashes++;
    } while (backslashes % 2 === 1);
    return quote + 1;
  }

  /** Steps over the character, and space before it, if it is the next one. */
  #take(character: string): boolean {
    this.skipSpace();
    if (this.text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.text)) return undefined;
    const matched = this.text.slice(this.#at, pattern.lastIndex);
    this.#at = pattern.lastIndex;
    return matched;
  }
}

function malformed(detail: string): Problem {
  return new Problem('malformed-json', detail);
}
