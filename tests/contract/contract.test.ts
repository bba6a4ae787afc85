import { describeUnless } from '../skip';
import { newKey, startService, type TestService } from '../api/harness';
import { installTool } from './tool';

/**
 * Requests that are generated from the OpenAPI document, good and bad ones, also in sequences that use what an earlier
 * answer gave; every answer is held to the document. See schemathesis.toml and hooks.py.
 *
 * CONTRACT_SEED chooses other requests than CI's, CONTRACT_EXAMPLES more of them.
 */
const SEED = Number(process.env.CONTRACT_SEED ?? 1);
const EXAMPLES = Number(process.env.CONTRACT_EXAMPLES ?? 100);

const tool = installTool();

describeUnless(typeof tool === 'string' ? tool : undefined, 'requests made from the OpenAPI document', () => {
  if (typeof tool === 'string') return;
  let api: TestService;
  let key: string;
  beforeAll(async () => {
    api = await startService({ logLevel: 'warn', apiKeys: 'required' });
    key = await newKey(api, ['admin']);
  });
  afterAll(() => api.stop());

  it.each([
    // The tool itself also leaves the key out, and makes up others: those requests must be refused.
    ['with a key', EXAMPLES, () => ['--header', `Authorization: Bearer ${key}`]],
    ['without a key', Math.ceil(EXAMPLES / 5), () => []],
  ] as const)(
    '(%s) are all answered as it says, and none with 500',
    async (name, examples, header) => {
      const url = `http://127.0.0.1:${api.port}/openapi.json`;
      const amount = ['--seed', String(SEED), '--max-examples', String(examples)];
      const { code, output } = await tool.run(url, [...header(), ...amount]);
      const cases = Number(/(\d+) generated/.exec(output)?.[1]);
      console.log(`contract: ${JSON.stringify({ name, seed: SEED, cases, code })}`);
      if (code !== 0) throw new Error(`schemathesis found something:\n${output.slice(-20_000)}`);
      expect(cases).toBeGreaterThan(examples * 10);
      expect(api.logs().filter((line) => line.level === 'error')).toEqual([]);
    },
    300_000,
  );
});
