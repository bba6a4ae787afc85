import type { Browser } from 'playwright-core';
import { startService, type TestService } from '../api/harness';
import { describeUnless } from '../skip';
import { noBrowser, openPage, seriousAccessibilityFaults, startBrowser } from './chromium';

jest.setTimeout(60_000);
// Chromium fails what is under way (ERR_NETWORK_CHANGED) when a network of the machine comes or goes, as with containers
// of other tests.
jest.retryTimes(3, { waitBeforeRetry: 2_000, logErrorsBeforeRetry: true });

describeUnless(noBrowser, 'pages for people in a browser', () => {
  let api: TestService;
  let browser: Browser;
  let origin: string;
  beforeAll(async () => {
    api = await startService();
    origin = `http://localhost:${api.port}`;
    browser = await startBrowser();
  });
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
  afterAll(async () => {
    await browser.close();
    await api.stop();
  });

  it.each([
    ['/status', 'light'],
    ['/status', 'dark'],
    ['/nowhere?<b>', 'light'],
    ['/nowhere?<b>', 'dark'],
  ] as const)('%s by %s: styled, accessible, and nothing that the policy stops', async (path, colorScheme) => {
    const { page, faults, requested } = await openPage(browser, { colorScheme, viewport: { width: 360, height: 740 } });
    await page.goto(`${origin}${path}`);
    await page.getByRole('heading', { level: 1 }).waitFor();
    expect(await page.evaluate<string>('getComputedStyle(document.body).maxWidth')).toBe('960px');
    expect(await seriousAccessibilityFaults(page)).toEqual([]);
    expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
    expect(faults.filter((fault) => !fault.includes('status of 404'))).toEqual([]);
    expect(requested.filter((url) => !url.startsWith(`${origin}/`))).toEqual([]);
  });

  it('the status page keeps itself current, and says when nobody answers', async () => {
    const { page, faults } = await openPage(browser);
    await page.clock.install();
    await page.goto(`${origin}/status`);
    const first = await page.locator('[data-value=uptime_seconds]').textContent();
    const answered = page.waitForResponse('**/api/status');
    await page.clock.runFor(11_000);
    await answered;
    await expectSoon(async () => (await page.locator('[data-value=uptime_seconds]').textContent()) !== first);
    expect(await page.getByRole('status').textContent()).toBe('The service is well');

    await page.route('**/api/status', (route) =>
      route.fulfill({ json: { status: 'degraded', database: { status: 'down', latency_ms: null } } }),
    );
    await page.clock.runFor(11_000);
    await page.getByRole('status').getByText('its database is not as it should be').waitFor();
    expect(await page.locator('[data-value="database.latency_ms"]').textContent()).toBe('unknown');
    expect(faults).toEqual([]);

    await page.context().setOffline(true);
    await page.unroute('**/api/status');
    await page.clock.runFor(11_000);
    await page.getByRole('status').getByText('does not answer').waitFor();
  });
});

async function expectSoon(condition: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 100 && !(await condition()); attempt++)
    await new Promise((done) => setTimeout(done, 50));
  expect(await condition()).toBe(true);
}
