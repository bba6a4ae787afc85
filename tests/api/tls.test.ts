import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { get } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type SecureVersion } from 'node:tls';
import { freePort } from '../../infra/embedded/ports';
import { ensureCertificate } from '../../ssl/certificates';
import { startService, type TestService } from './harness';

const directory = mkdtempSync(join(tmpdir(), 'branchloans-tls-'));
let api: TestService;
let ca: string;
let tlsPort: number;
beforeAll(async () => {
  const { certificateFile, keyFile, caFile } = await ensureCertificate({ directory, domain: 'localhost' });
  ca = readFileSync(caFile!, 'utf8');
  tlsPort = await freePort();
  const [certificate, key] = [readFileSync(certificateFile, 'utf8'), readFileSync(keyFile, 'utf8')];
  api = await startService({ tls: { port: tlsPort, certificate, key } });
});
afterAll(async () => {
  await api.stop();
  rmSync(directory, { recursive: true });
});

it('serves the same over TLS and in clear text, and both stop', async () => {
  expect(api.service.ports()).toEqual([api.port, tlsPort]);
  const status = await new Promise((resolve, reject) => {
    get({ host: 'localhost', port: tlsPort, path: '/health/ready', ca }, (response) => {
      expect(response.headers['strict-transport-security']).toBe('max-age=31536000; includeSubDomains');
      resolve(response.resume().statusCode);
    }).once('error', reject);
  });
  expect(status).toBe(200);
  expect((await api.ask('GET', '/health/ready')).status).toBe(200);
});

it.each([
  ['TLSv1.1', false],
  ['TLSv1.2', true],
  ['TLSv1.3', true],
] as const)('speaks %s: %s', async (version: SecureVersion, spoken) => {
  // Our own side must be willing, so that it is the server that refuses.
  const options = {
    port: tlsPort,
    ca,
    servername: 'localhost',
    minVersion: version,
    maxVersion: version,
    ciphers: 'ALL:@SECLEVEL=0',
  };
  const outcome = await new Promise((resolve) => {
    const socket = connect(options, () => {
      resolve(true);
      socket.destroy();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
  });
  expect(outcome).toBe(spoken ? true : 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
});

it('waits for no client that leaves before both sides have shaken hands', async () => {
  const socket = connectTcp(tlsPort, '127.0.0.1', () => socket.end(Buffer.from('16030100a5010000a1', 'hex')));
  socket.resume();
  await new Promise((resolve) => socket.once('close', resolve));
});
