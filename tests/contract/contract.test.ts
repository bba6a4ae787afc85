import { PassThrough } from 'node:stream';
import { createApiKeys } from '../../app/db/api-keys';
import { openDatabase } from '../../app/db/pool';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { CONFIG, startService, type TestService } from '../api/harness';
import { describeUnless } from '../skip';
import { installTool } from './tool';

/**
 * Requests that are generated from the OpenAPI document, good and bad ones, also in sequences that use what an earlier
 * answer gave; every answer is held to the document. See schemathesis.toml and hooks.py.
 *
 * CONTRACT_SEED chooses other requests than CI's, CONTRACT_EXAMPLES more of them.
 */
const SEED = Number(process.env.CONTRACT_SEED ?? 1);
const EXAMPLES = Number(process.env.CONTRACT_EXAMPLES ?? 150);

const tool = installTool();

describeUnless(typeof tool === 'string' ? tool : undefined, 'requests made from the OpenAPI document', () => {
  if (typeof tool === 'string') return;
  let api: TestService;
  let key: string;
  beforeAll(async () => {
    api = await startService({ logLevel: 'warn', apiKeys: 'required' });
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough()) };
    const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
    const wanted = { name: 'the contract', scopes: ['admin'], expiresAt: null } as const;
    ({ text: key } = await createApiKeys(database, CONFIG.environment).create(wanted, new Date()));
    await database.close();
  });
  afterAll(() => api.stop());

  it.each([
    ['with a key', EXAMPLES, () => ['--header', `Authorization: Bearer ${key}`]],
    ['without a key', Math.ceil(EXAMPLES / 5), () => []],
  ] as const)(
    '%s are all answered as it says, and none with 500',
    async (name, examples, args) => {
      const url = `http://127.0.0.1:${api.port}/openapi.json`;
      const options = ['--seed', String(SEED), '--max-examples', String(examples), ...args()];
      const { code, output } = await tool.run(url, options);
      const cases = Number(/(\d+) generated/.exec(output)?.[1]);
      console.log(`contract: ${JSON.stringify({ name, seed: SEED, cases, code })}`);
      if (code !== 0) throw new Error(`schemathesis found something:\n${output.slice(-20_000)}`);
      expect(cases).toBeGreaterThan(examples * 10);
      const [row] = await api.database.sql<{ some: boolean }>('SELECT count(*) > 10 AS some FROM loans');
      expect(row?.some).toBe(true); // The key lets it in; it comes first.
      expect(api.logs().filter((line) => line.level === 'error')).toEqual([]);
    },
    400_000,
  );
});
