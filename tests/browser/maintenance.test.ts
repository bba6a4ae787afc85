import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser } from 'playwright-core';
import { PAGE_POLICY, PROBLEM_PAGE } from '../../infra/ops/answers';
import { PAGE } from '../../infra/ops/maintenance';
import { describeUnless } from '../skip';
import { noBrowser, openPage, seriousAccessibilityFaults, startBrowser } from './chromium';

jest.setTimeout(60_000);
// As in pages.test.ts: a network of the machine that comes or goes fails what is under way.
jest.retryTimes(3, { waitBeforeRetry: 2_000, logErrorsBeforeRetry: true });

/** As nginx fills them in, with the longest words. */
const PAGES: Readonly<Record<string, readonly [status: number, heading: string, page: string]>> = {
  '/docs': [503, 'closed for maintenance', PAGE],
  '/metrics': [
    502,
    'Word',
    PROBLEM_PAGE.replaceAll('$status', '502')
      .replaceAll('$problem_title', 'Word '.repeat(20))
      .replace('$problem_way_on', '<p><a href="">Try again</a></p>'),
  ],
};

describeUnless(noBrowser, 'a page of the gateway', () => {
  let browser: Browser;
  let server: Server;
  beforeAll(async () => {
    browser = await startBrowser();
    server = createServer((request, response) => {
      const [status, , text] = PAGES[request.url ?? ''] ?? [404, '', ''];
      response.writeHead(status, {
        'Content-Type': 'text/html; charset=utf-8',
        'Content-Security-Policy': PAGE_POLICY,
      });
      response.end(text.replace('$edge_request_id', 'x'.repeat(128)));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  });
  afterAll(async () => {
    await browser.close();
    server.close();
  });

  it.each([
    ['light', '/docs'],
    ['dark', '/docs'],
    ['light', '/metrics'],
    ['dark', '/metrics'],
  ] as const)('by %s at %s: styled, accessible, fits, and asks for nothing else', async (colorScheme, path) => {
    const { page, faults, requested } = await openPage(browser, {
      colorScheme,
      viewport: { width: 360, height: 740 },
    });
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`;
    await page.goto(address);
    await page.getByRole('heading', { level: 1, name: PAGES[path]?.[1] }).waitFor();
    expect(await page.evaluate<string>('getComputedStyle(document.body).maxWidth')).toBe('576px');
    expect(await seriousAccessibilityFaults(page)).toEqual([]);
    expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
    expect(faults.filter((fault) => !/status of (?:50[23]|404)/.test(fault))).toEqual([]);
    expect(requested).toEqual([address]);
    await page.context().close();
  });
});
