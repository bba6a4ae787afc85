import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { IncomingMessage } from 'node:http';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import type { Config } from '../../app/config';
import { PAGE_POLICY } from '../../app/http/html';
import { freePort } from '../../infra/embedded/ports';
import { ensureCertificate } from '../../ssl/certificates';
import { LOAN, newKey, startService, type TestService, until } from '../api/harness';
import { missingForContainers } from '../ops/binaries';
import { Stage } from '../ops/stage';
import { describeUnless } from '../skip';
import { noBrowser, openPage, seriousAccessibilityFaults, startBrowser } from './chromium';

/** /docs in a real browser, over TLS, under the policy that ships. */

jest.setTimeout(60_000);
// Chromium fails what is under way (ERR_NETWORK_CHANGED) when a network of the machine comes or goes, as with containers
// of other tests.
jest.retryTimes(3, { waitBeforeRetry: 2_000, logErrorsBeforeRetry: true });

const FOCUSED = `(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()`;

/** A service that wants keys, and one that may read and write loans. */
async function startGuarded(changes: Partial<Config> = {}): Promise<{ api: TestService; key: string }> {
  const api = await startService({ apiKeys: 'required', ...changes });
  const key = await newKey(api, ['loans:read', 'loans:write']);
  return { api, key };
}

/** What the service received over the wire. */
const arrived: { method: string; url: string; authorization: string | undefined }[] = [];
const note = (message: unknown) => {
  const { method = '', url = '', headers } = (message as { request: IncomingMessage }).request;
  arrived.push({ method, url, authorization: headers.authorization });
};

/** Presses Tab until something with this label or text has the focus, as a person without a mouse does. */
async function tabTo(page: Page, name: RegExp): Promise<void> {
  for (let presses = 0; presses < 200; presses++) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate<string>(FOCUSED);
    if (name.test(focused)) return;
  }
  throw new Error(`Tab never led to ${String(name)}`);
}

const callsFor = (id: string, key: string) => [
  { method: 'POST', url: '/api/v1/loans', authorization: `Bearer ${key}` },
  { method: 'GET', url: `/api/v1/loans/${id}`, authorization: `Bearer ${key}` },
];

/** Creates a loan with the key, and reads it again, by keyboard alone. HTTP/2 has no words for a status. @returns its id */
async function createAndRead(page: Page, origin: string, key: string): Promise<string> {
  await page.goto(`${origin}/docs`);
  await page.getByLabel('API key').waitFor();
  await tabTo(page, /^API key$/);
  await page.keyboard.type(key);

  await tabTo(page, /^POST \/api\/v1\/loans Ask/);
  await page.keyboard.press('Enter');
  await tabTo(page, /^Idempotency-Key$/);
  await page.keyboard.type('it"s-the-first');
  await tabTo(page, /^Body$/);
  const example = JSON.parse(await page.locator(':focus').inputValue()) as object;
  expect(example).toEqual(LOAN);
  await page.keyboard.press('Control+A');
  await page.keyboard.type(`{"borrower_id": "o'neill", "amount": 950.50, "currency": "KES"}`);
  await tabTo(page, /^Send$/);
  const outline = await page.evaluate<string>(`getComputedStyle(document.activeElement).outlineStyle`);
  expect(outline).toBe('solid');
  await page.keyboard.press('Enter');
  const creation = page.getByRole('form', { name: 'Try POST /api/v1/loans', exact: true });
  await creation
    .getByRole('status')
    .getByText(/^201 (Created )?in \d+ ms$/)
    .waitFor();
  const headers = await creation.getByRole('region', { name: 'Header fields' }).textContent();
  const id = /^location: \/api\/v1\/loans\/(\S+)$/m.exec(headers!)![1]!;
  expect(await creation.getByRole('region', { name: 'Body' }).textContent()).toContain('\n  "amount": "950.50",\n');
  expect(await creation.getByRole('region', { name: 'As a command' }).textContent()).toBe(
    [
      `curl -i -X POST '${origin}/api/v1/loans'`,
      `-H 'Idempotency-Key: it"s-the-first'`,
      `-H 'Content-Type: application/json'`,
      '-H "Authorization: Bearer $API_KEY"',
      `--data-binary '{"borrower_id": "o'\\''neill", "amount": 950.50, "currency": "KES"}'`,
    ].join(' \\\n  '),
  );

  await tabTo(page, /^GET \/api\/v1\/loans\/{id} One loan/);
  await page.keyboard.press('Enter');
  await tabTo(page, /^id$/);
  await page.keyboard.type(id);
  await page.keyboard.press('Enter');
  const reading = page.getByRole('form', { name: 'Try GET /api/v1/loans/{id}', exact: true });
  await reading.getByRole('status').getByText(/^200 /).waitFor();
  const read = await reading.getByRole('region', { name: 'Body' }).textContent();
  expect(JSON.parse(read!)).toMatchObject({ id, borrower_id: "o'neill", amount: '950.50' });
  return id;
}

describeUnless(noBrowser, 'the page /docs in a browser', () => {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-docs-'));
  let api: TestService;
  let key: string;
  let browser: Browser;
  let origin: string;

  beforeAll(async () => {
    const { certificateFile, keyFile } = await ensureCertificate({ directory, domain: 'localhost' });
    const [certificate, privateKey] = [readFileSync(certificateFile, 'utf8'), readFileSync(keyFile, 'utf8')];
    const port = await freePort();
    origin = `https://localhost:${port}`;
    ({ api, key } = await startGuarded({ tls: { port, certificate, key: privateKey } }));
    subscribe('http.server.request.start', note);
    browser = await startBrowser();
  });
  beforeEach(() => void arrived.splice(0));
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
  afterAll(async () => {
    unsubscribe('http.server.request.start', note);
    await browser.close();
    await api.stop();
    rmSync(directory, { recursive: true });
  });

  it('creates a loan with a key and reads it again, by keyboard alone', async () => {
    const { page, faults, requested } = await openPage(browser);
    const id = await createAndRead(page, origin, key);

    expect(arrived.filter(({ authorization }) => authorization !== undefined)).toEqual(callsFor(id, key));
    expect(arrived.filter(({ url }) => url.includes(key))).toEqual([]);
    expect(requested.filter((url) => !url.startsWith(`${origin}/`))).toEqual([]);
    expect(faults).toEqual([]);
  });

  it('keeps the key nowhere', async () => {
    const { page } = await openPage(browser);
    await page.goto(`${origin}/docs`);
    await page.getByLabel('API key').fill(key);
    await page.getByLabel('API key').press('Enter');
    await page.locator('#health > summary').click();
    await page.locator('#health').getByRole('button').click();
    await page
      .locator('#health')
      .getByText(/^200 OK/)
      .waitFor();
    expect(page.url()).toBe(`${origin}/docs`);
    expect(await page.content()).not.toContain(key);
    // Object.keys, since a spread of a storage has nothing in it.
    const stores =
      'JSON.stringify([localStorage, sessionStorage].map(Object.keys).concat(document.cookie, history.state, name))';
    expect(await page.evaluate(stores)).toBe('[[],[],"",null,""]');
    for (const leave of [() => page.reload(), () => page.goto(`${origin}/health`).then(() => page.goBack())]) {
      await leave();
      expect(await page.getByLabel('API key').inputValue()).toBe('');
      await page.getByLabel('API key').fill(key);
    }
  });

  it('shows refusals as they come, and an answer that does not come', async () => {
    const { page } = await openPage(browser);
    await page.goto(`${origin}/docs`);
    const list = page.locator('#listLoans');
    await list.locator('summary').click();
    await list.getByRole('button').click();
    await list.getByText(/^401 /).waitFor();
    await page.getByLabel('API key').fill(key);
    await list.getByLabel('limit').fill('0&x=<b>');
    await list.getByRole('button').click();
    await list.getByText(/^422 /).waitFor();
    expect(arrived.at(-1)!.url).toBe('/api/v1/loans?limit=0%26x%3D%3Cb%3E');
    expect(await list.getByRole('region', { name: 'Body' }).textContent()).toContain('urn:problem:invalid-parameter');
    await page.context().setOffline(true);
    await list.getByRole('button').click();
    await list.getByText(/^No answer: /).waitFor();
  });

  it.each([
    ['light', { width: 1280, height: 800 }],
    ['dark', { width: 360, height: 740 }],
  ] as const)('has no serious accessibility fault by %s, on %j', async (colorScheme, viewport) => {
    const { page, faults } = await openPage(browser, { colorScheme, viewport });
    await page.goto(`${origin}/docs`);
    await page.getByLabel('API key').waitFor();
    await page.getByLabel('API key').fill(key);
    const all = await page.locator('summary').all();
    for (const summary of all) await summary.click();
    await page.locator('#statistics').getByRole('button').click();
    await page
      .locator('#statistics')
      .getByText(/^200 OK/)
      .waitFor();
    expect(await page.getByRole('button', { name: 'Send' }).count()).toBe(all.length);
    expect(await seriousAccessibilityFaults(page)).toEqual([]);
    expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
    expect(faults).toEqual([]);
  });

  it('is complete without JavaScript', async () => {
    const { page, faults } = await openPage(browser, { javaScriptEnabled: false });
    await page.goto(`${origin}/docs`);
    await page.locator('#createLoan > summary').click();
    await page.locator('#createLoan').getByText('Body: ').waitFor();
    expect(await page.getByRole('heading', { name: 'NewLoan', exact: true }).isVisible()).toBe(true);
    expect(await page.locator('noscript p').isVisible()).toBe(true);
    expect(await page.locator('form').count()).toBe(0);
    expect(faults).toEqual([]);
  });

  it.each([
    ['an inline script', '<script>document.title = "changed"</script>', /policy: script-src-elem stopped inline/],
    ['an inline style', '<p style="color: red">', /policy: style-src-attr stopped inline/],
    ['an image from elsewhere', '<img src="https://elsewhere.example/x.png">', /policy: img-src stopped https:/],
  ])('would report %s', async (_name, addition, report) => {
    const { page, faults } = await openPage(browser);
    await page.route('**/docs', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: (await response.text()).replace('</main>', `${addition}</main>`) });
    });
    await page.goto(`${origin}/docs`);
    await page.getByLabel('API key').waitFor();
    expect(faults.join('\n')).toMatch(report);
    expect(await page.title()).not.toBe('changed');
  });
});

describeUnless(noBrowser ?? missingForContainers(['nginx', 'node']), 'the page /docs behind the real gateway', () => {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-docs-'));
  const socket = join(directory, 'api.sock');
  let api: TestService;
  let key: string;
  let entrance: Server;
  let stage: Stage;
  let browser: Browser;

  beforeAll(async () => {
    ({ api, key } = await startGuarded());
    entrance = createServer((client) => {
      const service = connect(api.port, '127.0.0.1');
      client.pipe(service).pipe(client);
      for (const end of [client, service]) end.on('error', () => (client.destroy(), service.destroy()));
    }).listen(socket);
    const { certificateFile, keyFile } = await ensureCertificate({ directory, domain: 'localhost' });
    stage = new Stage({ certificate: readFileSync(certificateFile, 'utf8'), key: readFileSync(keyFile, 'utf8') });
    stage.startForwarder('api-1', socket);
    await stage.startGateway(['api-1']);
    await until(async () => (await stage.request('/health/ready')).status === 200);
    subscribe('http.server.request.start', note);
    browser = await startBrowser();
  });
  beforeEach(() => void arrived.splice(0));
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
  afterAll(async () => {
    unsubscribe('http.server.request.start', note);
    await browser.close();
    stage.close();
    entrance.close();
    await api.stop();
    rmSync(directory, { recursive: true });
  });

  it('tries calls under the policy that the gateway passes on', async () => {
    const { page, faults, requested } = await openPage(browser);
    const origin = `https://localhost:${stage.port('https')}`;
    const id = await createAndRead(page, origin, key);
    expect(arrived.filter(({ authorization }) => authorization !== undefined)).toEqual(callsFor(id, key));
    expect(requested.filter((url) => !url.startsWith(`${origin}/`))).toEqual([]);
    expect(faults).toEqual([]);
    const { headers } = await stage.request('/docs');
    expect(headers['content-security-policy']).toEqual([PAGE_POLICY]);
    expect(headers['cache-control']).toEqual(['no-cache']);
    expect(stage.logs()).not.toContain(key);
  });
});
