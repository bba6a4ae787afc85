// @ts-check

/**
 * Fills the page of operations and keeps it current. Cells are changed where they stand: who reads with a screen reader
 * or has opened a table keeps the place. Every cell with data-figure shows the member of the answer that it names.
 *
 * The API key stays in its field: no storage, no address holds it, and it goes with the page.
 *
 * @typedef {number | null} Figure
 * @typedef {{ source: string, as_of: string, note: string | null }} Source
 * @typedef {{ from: string, step_seconds: number, requests_per_second: Figure[], error_ratio: Figure[],
 *   p95_seconds: Figure[] }} Recent
 * @typedef {{ name: string, meaning: string, objective: number, window_days: number, measured: Figure,
 *   error_budget_remaining: Figure, burn_rate: Figure, budget_gone_in_hours: Figure, measured_by: string }} Objective
 * @typedef {{ name: string, state: string, open_since: string | null, refused: Figure, failures_to_open: number,
 *   fallback: string }} Breaker
 * @typedef {Source & { status: string, environment: string, version: string, reasons: string[],
 *   traffic: Record<string, Figure>, resources: Record<string, Figure>, recent: Recent | null,
 *   objectives: Objective[], circuit_breakers: Breaker[], alerts: { firing: number, pending: number } }} Dashboard
 * @typedef {{ name: string, unit: string, used: Figure, limit: Figure, utilisation: Figure,
 *   growth: { per_day: number, low_per_day: Figure, high_per_day: Figure, confidence: number } | null,
 *   days_until_limit: Figure, note: string | null }} Resource
 * @typedef {Source & { containers: number, resources: Resource[],
 *   recommendation: { action: string, containers: number, reason: string, further: string[] } }} Capacity
 * @typedef {{ name: string, severity: string, state: string, active_since: string, summary: string,
 *   description: string | null, runbook_url: string | null, labels: Record<string, string> }} Alert
 * @typedef {Source & { watchdog: boolean | null, alerts: Alert[] }} Alerts
 *
 * @typedef {{ text: string, figure?: string, node?: () => Node }} Cell
 */

const EVERY_MS = 10_000;
const SVG = 'http://www.w3.org/2000/svg';
const WORDS = /** @type {Record<string, string>} */ ({
  ok: 'All is as it should be',
  attention: 'Something needs attention',
  critical: 'Something is wrong',
});

const state = /** @type {HTMLElement} */ (document.querySelector('.state'));
const form = /** @type {HTMLFormElement} */ (document.querySelector('form'));
const field = /** @type {HTMLInputElement} */ (document.querySelector('#key'));
const origin = /** @type {HTMLElement} */ (document.querySelector('#origin'));
const reasons = /** @type {HTMLElement} */ (document.querySelector('#reasons'));

class Refused extends Error {
  /** @param {number} status */
  constructor(status) {
    super(`It answered ${status}`);
    this.status = status;
  }
}

/**
 * @template T
 * @param {string} name
 * @returns {Promise<T>}
 */
async function ask(name) {
  const key = field.value.trim();
  const response = await fetch(`/sre/${name}`, {
    credentials: 'omit',
    headers: key === '' ? {} : { Authorization: `Bearer ${key}` },
    signal: AbortSignal.timeout(EVERY_MS),
  });
  if (!response.ok) throw new Refused(response.status);
  /** @type {unknown} */
  const answer = await response.json();
  return /** @type {T} */ (answer);
}

// ---- Numbers in words

/** @param {Figure | undefined} value @param {(value: number) => string} write */
const or = (value, write) => (value === null || value === undefined ? 'no data' : write(value));
/** Three digits, without an exponent. @param {number} value */
const plain = (value) =>
  value === 0
    ? '0'
    : new Intl.NumberFormat('en', { maximumSignificantDigits: Math.abs(value) >= 100 ? 4 : 3 }).format(value);
/** Never rounded up to a whole that it was not. @param {number} share */
const percent = (share) => `${Math.trunc(share * 10_000 + Math.sign(share) * 1e-6) / 100} %`;
/** @param {number} seconds */
const duration = (seconds) => (seconds < 1 ? `${plain(seconds * 1_000)} ms` : `${plain(seconds)} s`);
/** @param {number} bytes */
const size = (bytes) =>
  Math.abs(bytes) >= 2 ** 30 ? `${plain(bytes / 2 ** 30)} GiB` : `${plain(bytes / 2 ** 20)} MiB`;
/** @param {string} time */
const clock = (time) => `${time.slice(0, 19).replace('T', ' ')} UTC`;
/** @param {string} unit @param {number} value */
const measure = (unit, value) =>
  unit === 'bytes' ? size(value) : `${plain(value)} ${unit === 'requests per second' ? '/s' : unit}`;

// ---- Pictures; what they show stands beside them in words

/** @param {string} name @param {Record<string, string>} attributes */
function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

/** A line with gaps where nothing is known. @param {Figure[]} values @param {string} what */
function sparkline(values, what) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known, 0);
  const svg = drawn('svg', {
    class: 'spark',
    viewBox: '0 0 120 24',
    preserveAspectRatio: 'none',
    role: 'img',
    'aria-label': `${what}, the last hour${known.length === 0 ? ': no data' : ''}`,
  });
  let line = '';
  let pen = 'M';
  for (const [index, value] of values.entries()) {
    if (value === null) {
      pen = 'M';
      continue;
    }
    const x = (index / Math.max(1, values.length - 1)) * 120;
    const y = 23 - (most === 0 ? 0 : (value / most) * 22);
    // A single point is a dot, not nothing.
    line += `${pen}${x.toFixed(1)} ${y.toFixed(1)}${pen === 'M' ? 'h0.1' : ''}`;
    pen = 'L';
  }
  if (line !== '') svg.append(drawn('path', { d: line }));
  return svg;
}

/** @param {number} share of what is full at 1 @param {'good' | 'poor' | 'bad'} kind */
function meter(share, kind) {
  const svg = drawn('svg', {
    class: 'meter',
    viewBox: '0 0 100 8',
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  });
  const width = String(100 * Math.min(1, Math.max(0, share)));
  svg.append(
    drawn('rect', { class: 'unknown', width: '100', height: '8' }),
    drawn('rect', { class: kind, width, height: '8' }),
  );
  return svg;
}

// ---- Tables

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * Makes a table, or changes the cells of the one that is there.
 * @param {Element} place
 * @param {string[]} headings
 * @param {Cell[][]} rows
 */
function table(place, headings, rows) {
  let body = /** @type {HTMLTableSectionElement | null} */ (place.querySelector(':scope > table > tbody'));
  if (body === null) {
    const head = element('tr', {}, ...headings.map((heading) => element('th', { scope: 'col' }, heading)));
    body = element('tbody');
    place.append(element('table', {}, element('thead', {}, head), body));
  }
  while (body.rows.length > rows.length) body.deleteRow(-1);
  for (const [index, cells] of rows.entries()) {
    const row = body.rows[index] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    for (const [column, { text, figure, node }] of cells.entries()) {
      const cell = row.cells[column] ?? row.appendChild(column === 0 ? element('th', { scope: 'row' }) : element('td'));
      if (figure !== undefined) cell.dataset['figure'] = figure;
      if (node !== undefined) cell.replaceChildren(...(text === '' ? [] : [text, ' ']), node());
      else if (cell.textContent !== text) cell.replaceChildren(text);
    }
  }
}

/** @param {string} id */
function place(id) {
  const section = /** @type {HTMLElement} */ (document.querySelector(`#${id}`));
  section.hidden = false;
  return /** @type {HTMLElement} */ (section.querySelector('.scroll'));
}

/** A paragraph before or after a table, made once. @param {Element} beside @param {string} text @param {string} figure */
function paragraph(beside, text, figure) {
  const last = beside.parentElement?.querySelector(`p[data-figure="${figure}"]`);
  if (last) last.textContent = text;
  else beside.before(element('p', { 'data-figure': figure }, text));
}

// ---- The page

/** @param {Dashboard} dashboard */
function showTraffic({ traffic, recent }) {
  const where = place('traffic');
  const figures = /** @type {[string, string, (value: number) => string, Figure[] | undefined][]} */ ([
    ['Requests', 'requests_per_second', (value) => `${plain(value)} /s`, recent?.requests_per_second],
    ['Failed', 'error_ratio', percent, recent?.error_ratio],
    ['95 % within', 'p95_seconds', duration, recent?.p95_seconds],
    ['Half within', 'p50_seconds', duration, undefined],
    ['99 % within', 'p99_seconds', duration, undefined],
    ['In flight', 'in_flight', plain, undefined],
  ]);
  const over = traffic['window_seconds'] ?? 0;
  paragraph(
    where,
    `Of users, over ${over >= 120 ? `${plain(over / 60)} minutes` : `${plain(over)} s`}.`,
    'traffic.window',
  );
  table(
    where,
    ['Figure', 'Now', 'The last hour'],
    figures.map(([name, member, write, line]) => [
      { text: name },
      { text: or(traffic[member], write), figure: `dashboard.traffic.${member}` },
      line === undefined ? { text: '' } : { text: '', node: () => sparkline(line, name) },
    ]),
  );
  const behind = where.parentElement?.querySelector('details');
  if (recent === null) {
    behind?.remove();
    return;
  }
  const inside =
    behind?.querySelector('.scroll') ??
    element('div', { class: 'scroll', role: 'group', 'aria-label': 'The last hour', tabindex: '0' });
  if (!behind) where.after(element('details', {}, element('summary', {}, 'The last hour, as a table'), inside));
  const from = Date.parse(recent.from);
  const rows = recent.requests_per_second.map((requests, index) => [
    { text: new Date(from + index * recent.step_seconds * 1_000).toISOString().slice(11, 16) },
    { text: or(requests, plain) },
    { text: or(recent.error_ratio[index], percent) },
    { text: or(recent.p95_seconds[index], duration) },
  ]);
  table(inside, ['Time (UTC)', 'Requests /s', 'Failed', '95 % within'], rows.reverse());
}

/** @param {Dashboard} dashboard */
function showObjectives({ objectives }) {
  table(
    place('objectives'),
    ['Objective', 'Aim', 'Kept', 'Budget left', 'Burn rate', 'Over'],
    objectives.map((one, index) => {
      const at = `dashboard.objectives.${index}`;
      const left = one.error_budget_remaining;
      const kind = left === null || left > 0.25 ? 'good' : left > 0 ? 'poor' : 'bad';
      const gone = one.budget_gone_in_hours;
      const soon =
        gone !== null && gone > 0 && gone < 24 * one.window_days
          ? `, gone in ${gone < 48 ? `${plain(gone)} h` : `${plain(gone / 24)} days`}`
          : '';
      return [
        { text: `${one.name}: ${one.meaning}` },
        { text: percent(one.objective), figure: `${at}.objective` },
        { text: or(one.measured, percent), figure: `${at}.measured` },
        {
          text: or(left, percent),
          figure: `${at}.error_budget_remaining`,
          ...(left !== null && { node: () => meter(left, kind) }),
        },
        { text: or(one.burn_rate, plain) + soon, figure: `${at}.burn_rate` },
        { text: one.window_days < 1 ? `${plain(one.window_days * 24)} h` : `${plain(one.window_days)} days` },
      ];
    }),
  );
}

/** @param {number} share */
const fullness = (share) => (share < 0.7 ? 'good' : share < 0.9 ? 'poor' : 'bad');

/** @param {Dashboard} dashboard */
function showResources({ resources }) {
  const rows = /** @type {[string, string, string, (value: number) => string][]} */ ([
    ['Containers', 'containers_answering', 'containers_known', plain],
    ['CPU', 'cpu_cores', 'cpu_limit_cores', (value) => `${plain(value)} cores`],
    ['Memory', 'memory_bytes', 'memory_limit_bytes', size],
    ['Database connections', 'database_connections', 'database_connections_limit', plain],
    ['Waiting for one', 'database_waiting', '', plain],
    ['Event loop lag, 99 %', 'event_loop_lag_p99_seconds', '', duration],
  ]);
  table(
    place('resources'),
    ['Resource', 'Now', 'Of'],
    rows.map(([name, used, limit, write]) => {
      const [value, of] = [resources[used], resources[limit]];
      return [
        { text: name },
        { text: or(value, write), figure: `dashboard.resources.${used}` },
        limit === ''
          ? { text: '' }
          : {
              text: or(of, write),
              figure: `dashboard.resources.${limit}`,
              ...(value != null &&
                of &&
                name !== 'Containers' && { node: () => meter(value / of, fullness(value / of)) }),
            },
      ];
    }),
  );
}

/** @param {Capacity} capacity */
function showCapacity({ resources, recommendation, containers }) {
  const where = place('capacity');
  const { action, reason, further } = recommendation;
  const words = { keep: 'Keep', add: 'Go to', remove: 'Go to', unknown: 'Unknown whether to keep' }[action] ?? action;
  const list = [`${words} ${recommendation.containers} of now ${containers} containers. ${reason}.`, ...further];
  paragraph(where, list.join(' '), 'capacity.recommendation');
  table(
    where,
    ['Resource', 'Now', 'Of', 'Share', 'Growth a day', 'Full in'],
    resources.map(({ name, unit, used, limit, utilisation, growth, days_until_limit, note }, index) => {
      const at = `capacity.resources.${index}`;
      const interval =
        growth?.low_per_day == null || growth.high_per_day === null
          ? ''
          : ` (${measure(unit, growth.low_per_day)} to ${measure(unit, growth.high_per_day)})`;
      return [
        { text: `${name.replaceAll('_', ' ')}${note === null ? '' : `. ${note}`}` },
        { text: or(used, (value) => measure(unit, value)), figure: `${at}.used` },
        { text: limit === null ? 'no limit known' : measure(unit, limit), figure: `${at}.limit` },
        {
          text: or(utilisation, percent),
          figure: `${at}.utilisation`,
          ...(utilisation !== null && { node: () => meter(utilisation, fullness(utilisation)) }),
        },
        {
          text: growth === null ? 'no trend' : measure(unit, growth.per_day) + interval,
          figure: `${at}.growth.per_day`,
        },
        {
          text: days_until_limit === null ? 'not foreseen' : `${plain(days_until_limit)} days`,
          figure: `${at}.days_until_limit`,
        },
      ];
    }),
  );
}

/** @param {Dashboard} dashboard */
function showBreakers({ circuit_breakers }) {
  table(
    place('breakers'),
    ['Before', 'State', 'Refused', 'Opens after', 'Meanwhile'],
    circuit_breakers.map(({ name, state: how, open_since, refused, failures_to_open, fallback }, index) => [
      { text: name },
      {
        text: how.replace('-', ' ') + (open_since === null ? '' : ` since ${clock(open_since)}`),
        figure: `dashboard.circuit_breakers.${index}.state`,
      },
      { text: or(refused, plain), figure: `dashboard.circuit_breakers.${index}.refused` },
      { text: failures_to_open === 1 ? '1 failure' : `${failures_to_open} failures in a row` },
      { text: fallback },
    ]),
  );
}

/** @param {Alerts} found */
function showAlerts({ alerts, watchdog, source }) {
  const where = place('alerts');
  const nothing = alerts.length === 0 ? 'Nothing fires.' : '';
  const rules =
    source === 'process'
      ? 'Without Prometheus there are no rules: only what this container sees itself.'
      : watchdog === false
        ? 'The watchdog does not fire: no rules are evaluated.'
        : '';
  paragraph(where, [nothing, rules].filter((text) => text !== '').join(' '), 'alerts.watchdog');
  table(
    where,
    ['Alert', 'Severity', 'State', 'Since', 'What it says'],
    alerts.map(({ name, severity, state: how, active_since, summary, description, runbook_url }, index) => {
      const address = runbook_url !== null && /^https?:\/\//.test(runbook_url) ? runbook_url : undefined;
      const text = [summary, description].filter((part) => part !== null).join('. ');
      return [
        { text: name, figure: `alerts.alerts.${index}.name` },
        { text: severity },
        { text: how },
        { text: clock(active_since) },
        address === undefined
          ? { text }
          : { text, node: () => element('a', { href: address, rel: 'noreferrer' }, 'Runbook') },
      ];
    }),
  );
}

/** @param {string} kind @param {string} text */
function say(kind, text) {
  if (state.textContent === text) return;
  state.className = `state ${kind}`;
  state.textContent = text;
}

let lastAlerts = '';

async function refresh() {
  try {
    const [dashboard, capacity, alerts] = await Promise.all([
      /** @type {Promise<Dashboard>} */ (ask('dashboard')),
      /** @type {Promise<Capacity>} */ (ask('capacity')),
      /** @type {Promise<Alerts>} */ (ask('alerts')),
    ]);
    form.hidden = true;
    say(dashboard.status, WORDS[dashboard.status] ?? dashboard.status);
    origin.hidden = false;
    origin.textContent =
      `${dashboard.environment}, release ${dashboard.version}. ` +
      (dashboard.source === 'prometheus'
        ? 'Of all containers, from Prometheus'
        : `Of this container alone: ${dashboard.note}`) +
      `${dashboard.source === 'prometheus' ? '.' : ''} As of ${clock(dashboard.as_of)}.`;
    reasons.hidden = dashboard.reasons.length === 0;
    reasons.replaceChildren(...dashboard.reasons.map((reason) => element('li', {}, reason)));
    showTraffic(dashboard);
    showObjectives(dashboard);
    showResources(dashboard);
    showCapacity(capacity);
    showBreakers(dashboard);
    // Its links keep the focus.
    if (lastAlerts !== JSON.stringify(alerts.alerts)) showAlerts(alerts);
    lastAlerts = JSON.stringify(alerts.alerts);
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      form.hidden = false;
      say('attention', field.value === '' ? 'An API key is needed' : 'This API key may not see the figures');
    } else {
      say('attention', 'The service does not answer; what stands below is what it said last');
    }
  }
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  void refresh();
});

await refresh();
for (;;) {
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  // Without a key there is nothing to ask for.
  if (!document.hidden && form.hidden) await refresh();
}
