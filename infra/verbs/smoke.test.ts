import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureCertificate } from '../../ssl/certificates';
import { StepError } from '../deploy/engine';
import { authorityOf } from '../load/entrance';
import { ask } from '../load/load';
import { smoke } from './smoke';

/** A stack whose certificate comes from an authority that this machine does not know. ssl/trust.test.ts has the rest. */

let url: string;
let directory: string;
const settings = () => ({
  domain: 'localhost',
  gateway: { certificate: { certificateFile: join(directory, 'own.pem') } },
});

jest.mock('../operator', () => ({
  ...jest.requireActual<object>('../operator'),
  outputsOf: () => ({ url }),
  environmentOf: () => settings(),
}));

const asked: string[] = [];
let server: Server;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'smoke-'));
  const { certificateFile, keyFile } = await ensureCertificate({ directory, domain: 'localhost' });
  const [cert, key] = [certificateFile, keyFile].map((file) => readFileSync(file, 'utf8'));
  server = createServer({ cert: cert!, key: key! }, ({ url: path }, answer) => {
    asked.push(path!);
    answer.end();
  });
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  writeFileSync(join(directory, 'own.pem'), cert!);
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true });
});
beforeEach(() => jest.spyOn(console, 'log').mockImplementation());
afterEach(() => {
  jest.restoreAllMocks();
  delete process.env['NODE_EXTRA_CA_CERTS'];
});

const spec = () => settings() as unknown as Parameters<typeof authorityOf>[0];

it("passes by the issuer in the stack's own file, and so does a load", async () => {
  await smoke('staging');
  expect(asked).toEqual(['/health/live', '/health/ready', '/api/status']);
  expect(await ask(`${url}/health/ready`, authorityOf(spec()))).toMatchObject({ status: 200 });
});

it('trusts no stranger', async () => {
  const elsewhere = { ...spec(), gateway: { certificate: { certificateFile: join(directory, 'none.pem') } } };
  await expect(
    ask(`${url}/health/ready`, authorityOf(elsewhere as unknown as ReturnType<typeof spec>)),
  ).rejects.toThrow(/certificate/);
});

it('tells at once of a file that is wrong', async () => {
  process.env['NODE_EXTRA_CA_CERTS'] = join(directory, 'absent.pem');
  await expect(smoke('staging')).rejects.toThrow(StepError);
  await expect(smoke('staging')).rejects.toThrow(/NODE_EXTRA_CA_CERTS names .*absent\.pem, which does not exist/);
});
