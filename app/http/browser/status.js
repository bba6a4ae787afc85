// @ts-check

/**
 * Keeps the status page current without reloading it: a reload would take the place of who reads it with a screen
 * reader or a magnifier. Every element with data-value shows the member of /api/status that it names.
 */

const EVERY_MS = 10_000;

const state = document.querySelector('.state');

/**
 * @param {unknown} value
 * @param {string} path names, with points between them
 */
function member(value, path) {
  for (const name of path.split('.')) value = /** @type {Record<string, unknown>} */ (value)[name];
  return typeof value === 'string' || typeof value === 'number' ? String(value) : 'unknown';
}

/**
 * @param {string} name
 * @param {string} text
 */
function show(name, text) {
  if (state === null || state.textContent === text) return;
  state.className = `state ${name}`;
  state.textContent = text;
}

async function refresh() {
  try {
    const response = await fetch('/api/status', { credentials: 'omit', signal: AbortSignal.timeout(EVERY_MS) });
    if (!response.ok) throw new Error(`It answered ${response.status}`);
    /** @type {unknown} */
    const status = await response.json();
    for (const element of document.querySelectorAll('[data-value]')) {
      element.textContent = member(status, element.getAttribute('data-value') ?? '');
    }
    const name = member(status, 'status');
    show(name, state?.getAttribute(`data-${name}`) ?? name);
  } catch {
    show('degraded', 'The service does not answer; what stands below is what it said last');
  }
}

for (;;) {
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  if (!document.hidden) await refresh();
}
