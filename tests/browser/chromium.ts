import { accessSync, constants, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];

/** Where this machine has a Chromium; CHROMIUM names another one. */
export const executable = process.env['CHROMIUM'] ?? NAMES.flatMap(onPath)[0];

/** Why the tests in a browser can't run here, or undefined. */
export const noBrowser = executable === undefined ? 'no Chromium on this machine: .ci/browser installs it' : undefined;

function onPath(name: string): string[] {
  const files = (process.env['PATH'] ?? '').split(':').map((directory) => join(directory, name));
  return files.filter((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export function startBrowser(): Promise<Browser> {
  // Chromium has no sandbox for root.
  return chromium.launch({ executablePath: executable, chromiumSandbox: process.getuid?.() !== 0 });
}

export interface WatchedPage {
  readonly page: Page;
  /** What the page's console reported as an error, what its policy stopped, and what a script threw. */
  readonly faults: string[];
  /** Everything that the page asked for, by address. */
  readonly requested: string[];
}

/** A page of its own profile, in which nothing goes wrong unseen. */
export async function openPage(browser: Browser, options: BrowserContextOptions = {}): Promise<WatchedPage> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  const faults: string[] = [];
  const requested: string[] = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`thrown: ${error.message}`));
  page.on('request', (request) => requested.push(request.url()));
  await page.exposeFunction('reportViolation', (text: string) => faults.push(`policy: ${text}`));
  await page.addInitScript(`addEventListener('securitypolicyviolation', (event) =>
    reportViolation(event.effectiveDirective + ' stopped ' + event.blockedURI));`);
  return { page, faults, requested };
}

const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** What axe finds of serious or critical impact: rule and place. */
export async function seriousAccessibilityFaults(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate<string[]>(`axe.run().then(({ violations }) => violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) => nodes.map(({ target }) => id + ' at ' + target.join(' '))))`);
}
