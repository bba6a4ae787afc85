import { rotate } from './rotate';

const NAME = 'branchloans-staging-database-password';
const URN = `urn:pulumi:staging::branchloans::branchloans:infra:Database$command:local:Command::${NAME}`;
let resources: { urn: string; type: string }[];
const deployed: string[][] = [];

jest.mock('../operator', () => ({
  list: (lines: string[]) => lines.join('\n'),
  missingFor: () => Promise.resolve([]),
  prefixOf: () => 'branchloans-staging',
  requirePassphrase: () => undefined,
  stackExists: () => true,
  pulumiOutput: () => Promise.resolve({ code: 0, stdout: JSON.stringify({ deployment: { resources } }), stderr: '' }),
  pulumiUp: (stack: string, options: string[]) => {
    deployed.push([stack, ...options]);
    return Promise.resolve();
  },
}));

beforeEach(() => {
  deployed.length = 0;
  resources = [
    { urn: `${URN}-of-another`, type: 'command:local:Command' },
    { urn: URN, type: 'command:local:Command' },
  ];
  jest.spyOn(console, 'log').mockReturnValue();
});
afterEach(() => jest.restoreAllMocks());

it('makes that one secret anew, by an ordinary up', async () => {
  await rotate('staging', ['databasePassword']);
  expect(deployed).toEqual([['staging', '--replace', URN]]);
});

it('changes nothing where the secret was set by hand', async () => {
  resources = [];
  await expect(rotate('staging', ['databasePassword'])).rejects.toThrow(
    /did not make its databasePassword, nothing was changed.*pulumi config set --secret databasePassword -s staging/,
  );
  expect(deployed).toEqual([]);
});

it.each([[[]], [['alertWebhook']], [['toString']]])('asks which one: %j', async (args) => {
  await expect(rotate('staging', args)).rejects.toThrow(/SECRET=databasePassword\|/);
  expect(deployed).toEqual([]);
});
