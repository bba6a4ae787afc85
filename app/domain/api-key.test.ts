import fc from 'fast-check';
import { allows, formatApiKey, ID, parseApiKey, SCOPES, SECRET } from './api-key';

const drawn = ({ alphabet, length }: { alphabet: string; length: number }) =>
  fc.string({ unit: fc.constantFrom(...Array.from(alphabet)), minLength: length, maxLength: length });
const environment = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/);
const key = fc
  .record({ environment, id: drawn(ID), secret: drawn(SECRET) })
  .map(({ secret, ...name }) => ({ name, text: formatApiKey(name, secret) }));

it('reads what it wrote', () => {
  fc.assert(
    fc.property(key, ({ name, text }) => {
      expect(parseApiKey(text)).toEqual(name);
    }),
  );
});

const anyCharacter = fc.oneof(
  fc.constantFrom(...Array.from(SECRET.alphabet), '_', '-'),
  fc.string({ unit: 'grapheme', minLength: 1 }),
);
it.each(['changed', 'added', 'left out'])('refuses a key with one character %s, anywhere', (what) => {
  fc.assert(
    fc.property(key, fc.nat(200), anyCharacter, ({ text }, at, character) => {
      const place = at % text.length;
      const changed =
        text.slice(0, place) +
        (what === 'left out' ? '' : character) +
        text.slice(what === 'added' ? place : place + 1);
      fc.pre(changed !== text);
      expect(parseApiKey(changed)).toBeUndefined();
    }),
    { numRuns: 2_000 },
  );
});

it('refuses every other character at every place of one key', () => {
  const text = formatApiKey({ environment: 'production', id: '0123456789ab' }, 'x'.repeat(32));
  for (let place = 0; place < text.length; place++) {
    for (let code = 0; code < 256; code++) {
      const changed = text.slice(0, place) + String.fromCharCode(code) + text.slice(place + 1);
      expect([changed, parseApiKey(changed) !== undefined]).toEqual([changed, changed === text]);
    }
  }
});

it('has the CRC-32 that everybody else has', () => {
  const text = formatApiKey({ environment: 'staging', id: 'abcdefabcdef' }, 'S'.repeat(32));
  expect(text).toBe('bl_staging_abcdefabcdef_SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS3P0Ri5'); // By zlib.
});

it('admin includes the other scopes, which include nothing but themselves', () => {
  for (const has of SCOPES) {
    for (const needs of SCOPES) expect(allows([has], needs)).toBe(has === needs || has === 'admin');
  }
  expect(allows([], 'loans:read')).toBe(false);
});
