import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser } from 'playwright-core';
import { PAGE, PAGE_POLICY } from '../../infra/ops/maintenance';
import { describeUnless } from '../skip';
import { noBrowser, openPage, seriousAccessibilityFaults, startBrowser } from './chromium';

jest.setTimeout(60_000);
// As in pages.test.ts: a network of the machine that comes or goes fails what is under way.
jest.retryTimes(3, { waitBeforeRetry: 2_000, logErrorsBeforeRetry: true });

describeUnless(noBrowser, "the gateway's page during maintenance", () => {
  let browser: Browser;
  let server: Server;
  beforeAll(async () => {
    browser = await startBrowser();
    server = createServer((request, response) => {
      const answered = request.url === '/docs' ? 503 : 404;
      response.writeHead(answered, {
        'Content-Type': 'text/html; charset=utf-8',
        'Content-Security-Policy': PAGE_POLICY,
      });
      response.end(answered === 503 ? PAGE.replace('$edge_request_id', 'x'.repeat(128)) : '');
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  });
  afterAll(async () => {
    await browser.close();
    server.close();
  });

  it.each(['light', 'dark'] as const)(
    'by %s: styled, accessible, fits, and asks for nothing else',
    async (colorScheme) => {
      const { page, faults, requested } = await openPage(browser, {
        colorScheme,
        viewport: { width: 360, height: 740 },
      });
      const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/docs`;
      await page.goto(address);
      await page.getByRole('heading', { level: 1, name: 'closed for maintenance' }).waitFor();
      expect(await page.evaluate<string>('getComputedStyle(document.body).maxWidth')).toBe('576px');
      expect(await seriousAccessibilityFaults(page)).toEqual([]);
      expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
      expect(faults.filter((fault) => !/status of (?:503|404)/.test(fault))).toEqual([]);
      expect(requested).toEqual([address]);
      await page.context().close();
    },
  );
});
