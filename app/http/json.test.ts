import fc from 'fast-check';
import { JsonNumber, parseJson } from './json';

/** What JSON.parse would have made of it. */
function withFloats(value: unknown): unknown {
  if (value instanceof JsonNumber) return Number(value.source);
  if (Array.isArray(value)) return value.map(withFloats);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withFloats(inner)]));
}

it('reads what JSON.parse reads, with every number as it was written', () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 8, noUnicodeString: false }), (text) => {
      expect(withFloats(parseJson(text))).toEqual(JSON.parse(text));
    }),
    { numRuns: 1_000 },
  );
  expect(parseJson('{"a":[1.10,-0,1E400]}')).toEqual({
    a: ['1.10', '-0', '1E400'].map((source) => new JsonNumber(source)),
  });
});

it('refuses what JSON.parse refuses, and does not lose its way in broken text', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...Array.from('{}[]:,"\\u0a1e-. \n')) }), (text) => {
      let valid = true;
      try {
        JSON.parse(text);
      } catch {
        valid = false;
      }
      if (!valid) expect(() => parseJson(text)).toThrow('malformed-json');
    }),
    { numRuns: 20_000 },
  );
});

it('takes __proto__ as the name of a property', () => {
  const value = parseJson('{"__proto__":{"polluted":true}}') as object;
  expect(Object.keys(value)).toEqual(['__proto__']);
  expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
});

it('takes 32 levels and not 33', () => {
  expect(() => parseJson('['.repeat(32) + ']'.repeat(32))).not.toThrow();
  expect(() => parseJson('['.repeat(33) + ']'.repeat(33))).toThrow('deeper than 32');
  expect(() => parseJson(`"${'['.repeat(100)}"`)).not.toThrow();
});

it('takes one name in different objects, and not twice in one', () => {
  expect(() => parseJson('{"a":{"a":1},"b":[{"a":1},{"a":1}]}')).not.toThrow();
  expect(() => parseJson('{"a":{"b":1},"a":2}')).toThrow('occurs twice');
  expect(() => parseJson('{"a":":","b":"a"}')).not.toThrow();
});

it('takes 25,000 values and not one more', () => {
  const list = (count: number) => `[${Array(count).fill('0').join(',')}]`;
  expect(parseJson(list(24_999))).toHaveLength(24_999);
  expect(() => parseJson(list(25_000))).toThrow('more than 25000 values');
});

it('takes 10,000 properties and not one more', () => {
  const objects = (count: number) => `[${Array(count).fill('{"a":0,"b":0}').join(',')}]`;
  expect(parseJson(objects(5_000))).toHaveLength(5_000);
  expect(() => parseJson(objects(5_001))).toThrow('more than 10000 properties');
});

it('says where a text is broken, and what was expected there', () => {
  expect(() => parseJson('{"a": 01}')).toThrow(
    'Expected a comma or the end of the object at character 8, where there is "1".',
  );
  expect(() => parseJson('[1, 2')).toThrow(
    'Expected a comma or the end of the array at character 6, where the text ends.',
  );
  expect(() => parseJson('{"a":"\u0001"}')).toThrow('The string that begins at character 6 is not well-formed.');
});
