import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { historySchema } from '../../app/http/contract/sre';
import { freePort } from '../../infra/embedded/ports';
import { LOAN, newKey, startService, type TestService } from '../api/harness';
import { addressOf, noPrometheus, Past, startPrometheus, type TestPrometheus } from '../api/prometheus';
import { describeUnless } from '../skip';
import { noBrowser, openPage, seriousAccessibilityFaults, startBrowser } from './chromium';

/**
 * /sre/dashboard-ui and /status in a real browser, with figures of a real Prometheus; UPDATE_SCREENSHOTS=1 writes the
 * pictures of the documents (make screenshots).
 */

jest.setTimeout(120_000);
// Chromium fails what is under way (ERR_NETWORK_CHANGED) when a network of the machine comes or goes, as with containers
// of other tests.
jest.retryTimes(3, { waitBeforeRetry: 2_000, logErrorsBeforeRetry: true });

const IMAGES = join(__dirname, '..', '..', 'docs', 'images');
const HOUR = 3_600;
const DAY = 24 * HOUR;

const REQUESTS = (part: string) => `http_request_duration_seconds_${part}`;

/** Thirty days at work: a bad hour, a day that nobody knows of, more requests with every day. */
function past(now: number): Past {
  const midnight = Math.floor(now / DAY) * DAY;
  const made = new Past();
  for (let at = midnight - 29 * DAY; at < now - 60; at += 240) {
    if (at >= midnight - 12 * DAY && at < midnight - 11 * DAY) continue;
    const away = at >= midnight - 5 * DAY + 9 * HOUR && at < midnight - 5 * DAY + 10 * HOUR;
    made.add('probe_success', { job: 'probe', probe: 'api', env: 'test' }, away ? 0 : 1, at);
    const alert = { alertname: 'ApiDown', alertstate: 'firing', severity: 'critical', env: 'test' };
    if (away) made.add('ALERTS', alert, 1, at);
    const disk = { job: 'host', env: 'test', mountpoint: '/' };
    made.add('node_filesystem_size_bytes', disk, 2e11, at);
    made.add('node_filesystem_avail_bytes', disk, 9e10 - ((at - midnight) / DAY) * 8e8, at);
  }
  // Two hours of requests: some more in the middle, one in two hundred of them slow.
  for (let at = now - 2 * HOUR, count = 0; at < now - 60; at += 15) {
    count += 15 * (6 + 4 * Math.sin((at - now) / 900));
    const api = { job: 'api', env: 'test', instance: 'before', method: 'GET', route: '/api/loans', status_code: '200' };
    for (const [le, part] of [
      ['0.005', 0.6],
      ['0.01', 0.93],
      ['0.2', 0.995],
      ['+Inf', 1],
    ] as const) {
      made.add(REQUESTS('bucket'), { ...api, le }, count * part, at);
    }
    made.add(REQUESTS('count'), api, count, at);
  }
  return made;
}

const recorded = (record: string, slo: string, value: number) => ({
  record,
  expr: `vector(${value})`,
  labels: { slo, env: 'test' },
});
const RULES = [
  { alert: 'Watchdog', expr: 'vector(1)', labels: { severity: 'none' } },
  {
    alert: 'FilesystemFillingUp',
    expr: 'vector(1)',
    labels: { severity: 'warning' },
    annotations: {
      summary: 'The disk of the host is full in less than 60 days',
      runbook_url: 'https://example.org/runbook',
    },
  },
  ...(
    [
      ['availability', 0.999, 0.0004, 0.2],
      ['success', 0.99, 0.0021, 0.1],
      ['latency', 0.95, 0.004, 0.05],
      ['freshness', 0.995, 0.006, 1.4],
    ] as const
  ).flatMap(([slo, objective, errors, burn]) => [
    recorded('slo:objective:ratio', slo, objective),
    recorded('slo:period_error:ratio', slo, errors),
    recorded('slo:current_burn_rate:ratio', slo, burn),
  ]),
];

/** What the page shows of each figure: its name -> the text of its cell. */
const shown = (page: Page) =>
  page.evaluate<Record<string, string>>(`Object.fromEntries([...document.querySelectorAll('td[data-figure]')]
    .map((cell) => [cell.dataset.figure, cell.textContent.trim()]))`);

const member = (value: unknown, path: readonly string[]): unknown =>
  path.reduce<unknown>((at, name) => (at as Record<string, unknown> | null)?.[name], value);

describeUnless(noBrowser ?? noPrometheus, 'pages of operations in a browser', () => {
  let api: TestService;
  let prometheus: TestPrometheus;
  let browser: Browser;
  let origin: string;
  beforeAll(async () => {
    const port = await freePort();
    api = await startService({ prometheusUrl: addressOf(port), capacityRps: 40, version: '1.4.0' });
    origin = `http://localhost:${api.port}`;
    prometheus = await startPrometheus({
      port,
      api: [api.port],
      environment: 'test',
      rules: RULES,
      past: past(Date.now() / 1_000),
    });
    browser = await startBrowser();
    for (let second = 0; second < 5; second++) {
      for (let request = 0; request < 30; request++)
        await api.ask('GET', request % 3 === 0 ? '/api/stats' : '/api/loans');
      await api.post(LOAN);
      await new Promise((done) => setTimeout(done, 1_000));
    }
  });
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
  afterAll(async () => {
    await browser.close();
    await prometheus.stop();
    await api.stop();
  });

  const filled = (page: Page) => page.locator('#alerts td').first().waitFor();

  it.each(['light', 'dark'] as const)(
    'both pages, %s, on a phone: no fault, nothing from elsewhere',
    async (colorScheme) => {
      for (const path of ['/sre/dashboard-ui', '/status']) {
        const { page, faults, requested } = await openPage(browser, {
          colorScheme,
          viewport: { width: 360, height: 740 },
        });
        await page.goto(`${origin}${path}`);
        if (path !== '/status') await filled(page);
        for (const summary of await page.locator('summary').all()) await summary.click();
        expect(await seriousAccessibilityFaults(page)).toEqual([]);
        expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
        expect(faults).toEqual([]);
        expect(requested.filter((url) => !url.startsWith(`${origin}/`))).toEqual([]);
      }
    },
  );

  it('every figure of the page is the one that the API answers', async () => {
    const { page, faults } = await openPage(browser, { viewport: { width: 1_000, height: 900 } });
    const answers: Record<string, unknown> = {};
    page.on('response', (response) => {
      const [, name] = /\/sre\/(dashboard|capacity|alerts)$/.exec(response.url()) ?? [];
      if (name !== undefined) void response.json().then((body: unknown) => (answers[name] = body));
    });
    await page.goto(`${origin}/sre/dashboard-ui`);
    await filled(page);
    const cells = await shown(page);
    expect(Object.keys(cells).length).toBeGreaterThan(50);
    // What a number of that kind looks like is for the page to choose; three digits of it must be there.
    for (const [figure, text] of Object.entries(cells)) {
      const [answer = '', ...path] = figure.split('.');
      const value = member(answers[answer], path);
      const last = path.at(-1)!;
      const number = Number(/-?[\d,]+(?:\.\d+)?/.exec(text)?.[0].replaceAll(',', ''));
      if (typeof value === 'string') expect([figure, text.startsWith(value)]).toEqual([figure, true]);
      else if (typeof value !== 'number')
        expect([figure, text]).toEqual([figure, expect.stringMatching(/^no |not foreseen/)]);
      else {
        const percent = text.includes('%');
        const unit = percent
          ? 100
          : / ms/.test(text)
            ? 1_000
            : / GiB/.test(text)
              ? 2 ** -30
              : / MiB/.test(text)
                ? 2 ** -20
                : 1;
        const close = Math.abs(number - value * unit) <= (percent ? 0.0101 : 0.006 * Math.abs(value * unit));
        expect([figure, last, text, value, close]).toEqual([figure, last, text, value, true]);
      }
    }
    const dashboard = answers['dashboard'] as { as_of: string; source: string };
    expect(dashboard.source).toBe('prometheus');
    const origins = await page.locator('#origin').textContent();
    expect(origins).toContain(
      `Of all containers, from Prometheus. As of ${dashboard.as_of.slice(0, 19).replace('T', ' ')}`,
    );
    expect(await page.getByRole('status').textContent()).toBe('Something needs attention');
    expect(await page.locator('svg.spark path').count()).toBeGreaterThan(0);
    expect(faults).toEqual([]);
  });

  it('the status page shows the past as /api/status/history tells it', async () => {
    const history = historySchema.parse((await api.ask('GET', '/api/status/history')).json());
    const { page } = await openPage(browser);
    await page.goto(`${origin}/status`);
    const cells = (index: number) =>
      page.evaluate<string[][]>(`[...document.querySelectorAll('section tbody')[${index}].rows]
        .map((row) => [row.querySelector('time').dateTime, row.cells[1].textContent])`);
    for (const [index, periods] of [history.days, history.hours].entries()) {
      const rows = await cells(index);
      expect(rows.map(([from]) => from)).toEqual(periods.map(({ from }) => from).reverse());
      for (const [row, { availability }] of [...periods].reverse().entries()) {
        const text = rows[row]![1]!;
        if (availability === null) expect(text).toBe('no data');
        else expect(Math.abs(Number.parseFloat(text) - 100 * availability)).toBeLessThanOrEqual(0.0101);
      }
    }
    expect(await page.locator('svg.bars g').count()).toBe(78);
    const unknown = history.days.filter(({ availability }) => availability === null);
    expect(unknown.length).toBeGreaterThan(0);
    expect(await page.locator('svg.bars').first().locator('.unknown[height="40"]').count()).toBe(unknown.length);
    expect(await page.locator('.incidents li').allTextContents()).toEqual([
      expect.stringMatching(/^The service could not be reached: \d{4}-\d\d-\d\d 09:\d\d to /),
    ]);
  });

  it('everything is reached by keyboard: the tables, what scrolls, and the links', async () => {
    const { page } = await openPage(browser, { viewport: { width: 360, height: 740 } });
    await page.goto(`${origin}/sre/dashboard-ui`);
    await filled(page);
    const reached = new Set<string>();
    for (let presses = 0; presses < 30; presses++) {
      await page.keyboard.press('Tab');
      reached.add(
        await page.evaluate<string>(`(() => { const e = document.activeElement;
        return e.tagName + ' ' + (e.closest('section')?.id ?? '') + ' ' + (e.tagName === 'DIV' ? '' : e.textContent); })()`),
      );
    }
    for (const id of ['traffic', 'objectives', 'resources', 'capacity', 'breakers', 'alerts'])
      expect([...reached]).toContain(`DIV ${id} `);
    expect([...reached]).toEqual(
      expect.arrayContaining(['SUMMARY traffic The last hour, as a table', 'A alerts Runbook', 'A  Grafana']),
    );
    await page.locator('summary').focus();
    await page.keyboard.press('Enter');
    expect(await page.locator('details tbody tr').count()).toBe(61);
  });

  it('keeps itself current, and what was opened open; says when nobody answers', async () => {
    const { page } = await openPage(browser);
    await page.clock.install();
    await page.goto(`${origin}/sre/dashboard-ui`);
    await filled(page);
    await page.locator('summary').click();
    const before = await page.locator('#origin').textContent();
    for (let attempt = 0; attempt < 10; attempt++) {
      await page.clock.runFor(10_100);
      await new Promise((done) => setTimeout(done, 800));
      if ((await page.locator('#origin').textContent()) !== before) break;
    }
    expect(await page.locator('#origin').textContent()).not.toBe(before);
    expect(await page.evaluate('document.querySelector("details").open')).toBe(true);
    await page.context().setOffline(true);
    await page.clock.runFor(10_100);
    await page.getByRole('status').getByText('does not answer').waitFor();
    expect(await page.locator('#traffic td').count()).toBeGreaterThan(0);
  });

  it('asks for a key where one is needed, and keeps it to itself', async () => {
    const guarded = await startService({ apiKeys: 'required' });
    const [viewer, desk] = [await newKey(guarded, ['sre:read']), await newKey(guarded, ['loans:read'])];
    const { page, requested } = await openPage(browser);
    const address = `http://localhost:${guarded.port}/sre/dashboard-ui`;
    await page.goto(address);
    await page.getByRole('status').getByText('An API key is needed').waitFor();
    expect(await seriousAccessibilityFaults(page)).toEqual([]);
    await page.getByLabel('API key').fill(desk);
    await page.keyboard.press('Enter');
    await page.getByRole('status').getByText('may not see the figures').waitFor();
    await page.getByLabel('API key').fill(viewer);
    await page.getByRole('button', { name: 'Show' }).click();
    await page.getByText('Of this container alone').waitFor();
    expect(await page.locator('form').isHidden()).toBe(true);
    expect(page.url()).toBe(address);
    expect(requested.join()).not.toContain(viewer);
    expect(await page.evaluate('JSON.stringify([localStorage, sessionStorage, document.cookie])')).toBe('[{},{},""]');
    await guarded.stop();
  });

  const pictures = process.env['UPDATE_SCREENSHOTS'] === '1' ? it : it.skip;
  pictures('are in the documents as they look', async () => {
    mkdirSync(IMAGES, { recursive: true });
    for (const [file, path, colorScheme, width] of [
      ['sre-dashboard.png', '/sre/dashboard-ui', 'light', 900],
      ['sre-dashboard-dark-phone.png', '/sre/dashboard-ui', 'dark', 360],
      ['status.png', '/status', 'light', 900],
    ] as const) {
      const { page } = await openPage(browser, { colorScheme, viewport: { width, height: 740 } });
      await page.goto(`${origin}${path}`);
      if (path !== '/status') await filled(page);
      await page.screenshot({ path: join(IMAGES, file), fullPage: width > 400 });
    }
  });
});
