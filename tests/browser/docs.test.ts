import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { freePort } from '../../infra/embedded/ports';
import { ensureCertificate } from '../../ssl/certificates';
import { LOAN, startService, type TestService } from '../api/harness';
import { describeUnless } from '../skip';
import { noBrowser, openPage, seriousAccessibilityFaults, startBrowser } from './chromium';

/** /docs in a real browser, over TLS, under the policy that ships. */

jest.setTimeout(60_000);

const KEY = 'blk_test_Zm9vYmFyYmF6cXV4';
const FOCUSED = `(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()`;

describeUnless(noBrowser, 'the page /docs in a browser', () => {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-docs-'));
  /** What the service received over the wire. */
  const arrived: { method: string; url: string; authorization: string | undefined }[] = [];
  const note = (message: unknown) => {
    const { method = '', url = '', headers } = (message as { request: IncomingMessage }).request;
    arrived.push({ method, url, authorization: headers.authorization });
  };
  let api: TestService;
  let browser: Browser;
  let origin: string;

  beforeAll(async () => {
    const { certificateFile, keyFile } = await ensureCertificate({ directory, domain: 'localhost' });
    const [certificate, key] = [readFileSync(certificateFile, 'utf8'), readFileSync(keyFile, 'utf8')];
    const port = await freePort();
    origin = `https://localhost:${port}`;
    api = await startService({ tls: { port, certificate, key } });
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

  /** Presses Tab until something with this label or text has the focus, as a person without a mouse does. */
  async function tabTo(page: Page, name: RegExp): Promise<void> {
    for (let presses = 0; presses < 200; presses++) {
      await page.keyboard.press('Tab');
      const focused = await page.evaluate<string>(FOCUSED);
      if (name.test(focused)) return;
    }
    throw new Error(`Tab never led to ${String(name)}`);
  }

  it('creates a loan with a key and reads it again, by keyboard alone', async () => {
    const { page, faults, requested } = await openPage(browser);
    await page.goto(`${origin}/docs`);
    await page.getByLabel('API key').waitFor();
    await tabTo(page, /^API key$/);
    await page.keyboard.type(KEY);

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
      .getByText(/^201 Created in \d+ ms$/)
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
    await reading
      .getByRole('status')
      .getByText(/^200 OK/)
      .waitFor();
    const read = await reading.getByRole('region', { name: 'Body' }).textContent();
    expect(JSON.parse(read!)).toMatchObject({ id, borrower_id: "o'neill", amount: '950.50' });

    const calls = arrived.filter(({ url }) => url.startsWith('/api/'));
    expect(calls).toEqual([
      { method: 'POST', url: '/api/v1/loans', authorization: `Bearer ${KEY}` },
      { method: 'GET', url: `/api/v1/loans/${id}`, authorization: `Bearer ${KEY}` },
    ]);
    expect(arrived.filter(({ authorization }) => authorization !== undefined)).toEqual(calls);
    expect(arrived.filter(({ url }) => url.includes(KEY))).toEqual([]);
    expect(requested.filter((url) => !url.startsWith(`${origin}/`))).toEqual([]);
    expect(faults).toEqual([]);
  });

  it('keeps the key nowhere', async () => {
    const { page } = await openPage(browser);
    await page.goto(`${origin}/docs`);
    await page.getByLabel('API key').fill(KEY);
    await page.getByLabel('API key').press('Enter');
    await page.locator('#health > summary').click();
    await page.locator('#health').getByRole('button').click();
    await page
      .locator('#health')
      .getByText(/^200 OK/)
      .waitFor();
    expect(page.url()).toBe(`${origin}/docs`);
    expect(await page.content()).not.toContain(KEY);
    const stores = `JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, history.state, name])`;
    expect(await page.evaluate(stores)).toBe('[{},{},"",null,""]');
    for (const leave of [() => page.reload(), () => page.goto(`${origin}/health`).then(() => page.goBack())]) {
      await leave();
      expect(await page.getByLabel('API key').inputValue()).toBe('');
      await page.getByLabel('API key').fill(KEY);
    }
  });

  it('shows refusals as they come, and an answer that does not come', async () => {
    const { page } = await openPage(browser);
    await page.goto(`${origin}/docs`);
    const list = page.locator('#listLoans');
    await list.locator('summary').click();
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
    expect(await page.getByRole('heading', { name: 'NewLoan' }).isVisible()).toBe(true);
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
