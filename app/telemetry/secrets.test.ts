import fc from 'fast-check';
import { formatApiKey, ID, SECRET } from '../domain/api-key';
import { hasSecret, pathWithoutSecrets, withoutSecrets } from './secrets';

const characters = (alphabet: string, length: number) =>
  fc.string({ unit: fc.constantFrom(...Array.from(alphabet)), minLength: length, maxLength: length });
const parts = fc.record({
  environment: fc.constantFrom('test', 'production', 'a-b-9'),
  id: characters(ID.alphabet, ID.length),
  secret: characters(SECRET.alphabet, SECRET.length),
});
const encoded = (text: string) => Array.from(text, (character) => `%${character.charCodeAt(0).toString(16)}`).join('');

it('leaves of an API key what it says openly, wherever it stands and however it is written', () => {
  fc.assert(
    fc.property(parts, fc.string(), fc.string(), ({ environment, id, secret }, before, after) => {
      const key = formatApiKey({ environment, id }, secret);
      const shown = `bl_${environment}_${id}_***`;
      for (const text of [`${before}${key}`, `${before} ${key} ${after}`, JSON.stringify({ a: `${before}\n${key}` })]) {
        expect(withoutSecrets(text)).toContain(shown);
        expect(withoutSecrets(text)).not.toContain(secret);
      }
      for (const path of [key, encoded(key), encoded(encoded(key)), key.replaceAll('_', '%5F')]) {
        expect(pathWithoutSecrets(`/api/loans/${path}/events`)).toBe(`/api/loans/${shown}/events`);
      }
      // Cut off, with a character too many, without what comes before the secret.
      expect(withoutSecrets(`/x/${key.slice(0, -10)}`)).not.toContain(secret.slice(0, 12));
      expect(withoutSecrets(`/x/${key.replace(`_${id}`, '')}`)).not.toContain(secret.slice(0, 12));
    }),
  );
});

it.each([
  ['/x?access_token=abcdef&limit=1', '/x?access_token=***&limit=1'],
  ['/x;password=a b', '/x;password=*** b'],
  ['Authorization: Bearer abc.def-ghi', 'Authorization: Bearer***'],
  ['/Basic%20dXNlcjpwYXNz', '/Basic***'],
  ['/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln', '/***'],
  ['bl_', 'bl_***'],
])('%s becomes %s', (text, masked) => {
  expect(withoutSecrets(text)).toBe(masked);
  expect(hasSecret(text)).toBe(true);
});

it('takes any long word of a path for a secret, and leaves ids and words as they are', () => {
  expect(pathWithoutSecrets(`/api/${'a1'.repeat(19)}`)).toBe('/api/***');
  for (const path of [
    '/api/v1/loans/8c3b5d0e-58a8-4f7e-9d35-0f4d1f4ad6c1/repayments/8c3b5d0e-58a8-4f7e-9d35-0f4d1f4ad6c1/reversal',
    '/api/v1/loans/%2e%2E/a%20b%00%ff',
    '/tbl_loans/token/basic',
    `/${'x'.repeat(300)}`,
  ]) {
    expect(pathWithoutSecrets(path)).toBe(path);
  }
});

it('takes time in proportion to the length', () => {
  const patterns = ['bl_', 'bl_a_', 'bearer ', 'a1', '%25', 'eyJaaaaaaaa.', 'token=', '_', 'basic++'];
  const cpuOf = (text: string) => {
    const before = process.cpuUsage();
    for (let time = 0; time < 20; time++) pathWithoutSecrets(text);
    return process.cpuUsage(before).user / 20_000;
  };
  // 16 kB are some milliseconds at most; quadratic would be hundreds.
  for (const pattern of patterns) expect(cpuOf(pattern.repeat(16_384 / pattern.length))).toBeLessThan(50);
});
