import fc from 'fast-check';
import { server } from './answers';
import { MAINTENANCE_PROBLEM, renderClosed, renderOperators } from './maintenance';

test('pages and documents stand in nginx as they are', () => {
  // Within single quotes: these end the text, and $ begins a variable.
  const texts = [...`${renderClosed()}${server('')}`.matchAll(/^ *return 200 '([^]*?)';\n *\}$/gm)].map(
    ([, text = '']) => text,
  );
  expect(texts.map((text) => text.slice(0, 15))).toEqual([
    '{"type":"urn:pr',
    '<!doctype html>',
    '{"type":"urn:pr',
    '<!doctype html>',
  ]);
  for (const text of texts)
    expect(text.replace(/\$(?:edge_request_id|problem_\w+|status)\b/g, '')).not.toMatch(/['$\\]/);
  expect(Object.values(MAINTENANCE_PROBLEM).join('')).toMatch(/^[A-Za-z0-9 .,:;_/-]+$/);
});

test('a token of letters, digits, - and _ becomes a pattern that fits it alone', () => {
  const word = fc.string({ minLength: 16, maxLength: 64, unit: fc.constantFrom(...Array.from('abcXYZ019-_')) });
  fc.assert(
    fc.property(word, word, (token, other) => {
      const [, pattern = ''] = /"~(.*)" 1;/.exec(renderOperators(token)) ?? [];
      expect(new RegExp(pattern).test(token)).toBe(true);
      expect(new RegExp(pattern).test(other)).toBe(token === other);
    }),
  );
});

test.each([
  '',
  'short',
  '.*................',
  'a-good-one-but-with"quotes',
  'a good one but with spaces',
  'a'.repeat(20) + '\n',
])('refuses the token "%s", without repeating it', (token) =>
  expect(() => renderOperators(token)).toThrow(/^This is not an operators' token$/),
);
