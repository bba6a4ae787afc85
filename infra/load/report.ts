import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type ChartSpec, escapeText } from './chart';
import { type Figures, type Moment, type Outcome, type Span, timelineOf } from './figures';

/** Reports of loads and experiments: one HTML page that needs nothing else, and the same as JSON. */

/** No more points in a picture than can be told apart. */
const POINTS = 300;

/** @returns in steps of whole seconds */
export function timelineFor(outcomes: readonly Outcome[], span: Span): Moment[] {
  return timelineOf(outcomes, span, stepOf(span));
}

function stepOf([from, to]: Span): number {
  return 1_000 * Math.max(1, Math.ceil((to - from) / 1_000 / POINTS));
}

/** The two pictures of every load: what was answered, and how soon. */
export function chartsOf(
  timeline: readonly Moment[],
  span: Span,
  more: Pick<ChartSpec, 'bands' | 'threshold'> = {},
): readonly [rates: ChartSpec, latencies: ChartSpec] {
  const seconds = stepOf(span) / 1_000;
  const points = (value: (moment: Moment) => number) => timeline.map((moment) => [moment.at, value(moment)] as const);
  const { bands } = more;
  return [
    {
      ...{ title: 'Requests', unit: 'per second', span },
      ...(bands && { bands }),
      series: [
        { name: 'answered', tone: 'good', points: points(({ requests, failed }) => (requests - failed) / seconds) },
        { name: 'failed', tone: 'bad', points: points(({ failed }) => failed / seconds) },
      ],
    },
    {
      ...{ title: 'Latency from when a request was due', unit: 'ms', span, scale: 'log', ...more },
      series: [
        { name: 'p50', tone: 'calm', points: points(({ p50Ms }) => p50Ms) },
        { name: 'p95', tone: 'good', points: points(({ p95Ms }) => p95Ms) },
        { name: 'p99', tone: 'warm', points: points(({ p99Ms }) => p99Ms) },
        { name: 'p95 with failures', tone: 'bad', points: points(({ anyP95Ms }) => anyP95Ms) },
      ],
    },
  ];
}

/** A part of a page, escaped already; what was rendered elsewhere, such as a picture, becomes one by `new`. */
export class Html {
  constructor(private readonly text: string) {}

  toString(): string {
    return this.text;
  }
}

/** Text goes in escaped, parts as they are. */
export function html(
  parts: TemplateStringsArray,
  ...values: readonly (string | number | Html | readonly Html[])[]
): Html {
  const text = (value: (typeof values)[number]) => {
    if (value instanceof Html) return value.toString();
    return typeof value === 'object' ? value.join('') : escapeText(String(value));
  };
  return new Html(parts.map((part, index) => part + (index < values.length ? text(values[index] ?? '') : '')).join(''));
}

const STYLE = `:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
svg{max-width:100%;height:auto}table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left;padding-left:0}.pass{color:#1a7f37}.fail{color:#c62828}.skip{color:#8a5a00}
@media(prefers-color-scheme:dark){.pass{color:#5fd07c}.fail{color:#ff7b72}.skip{color:#e3b341}}code{overflow-wrap:anywhere}`;

export function renderPage(title: string, body: readonly Html[]): string {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
        <title>${title}</title>
        <style>
          ${new Html(STYLE)}
        </style>
      </head>
      <body>
        <h1>${title}</h1>
        ${body}
      </body>
    </html> `.toString();
}

/** A table of figures, a row for each. */
export function figuresTable(rows: readonly (readonly [name: string, figures: Figures])[]): Html {
  const cells = rows.map(
    ([name, figures]) =>
      html`<tr>
        <td>${name}</td>
        ${figureCells(figures).map((cell) => html`<td>${cell}</td>`)}
      </tr>`,
  );
  return html`<table>
    <thead>
      <tr>
        <th></th>
        ${FIGURES.map((name) => html`<th>${name}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${cells}
    </tbody>
  </table>`;
}

export const FIGURES = ['requests', 'failed', 'failed twice', 'p50', 'p95', 'p99', 'slowest'] as const;

export function figureCells({ requests, failed, failedTwice, p50Ms, p95Ms, p99Ms, maxMs }: Figures): string[] {
  return [String(requests), String(failed), String(failedTwice), ...[p50Ms, p95Ms, p99Ms, maxMs].map(milliseconds)];
}

/** `12 ms`, `1.4 s`; a dash for none. */
export function milliseconds(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return value < 1_000 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : `${(value / 1_000).toFixed(1)} s`;
}

/** NaN is not in JSON. */
export function renderJson(value: unknown): string {
  return `${JSON.stringify(value, (_, each: unknown) => (typeof each === 'number' && !Number.isFinite(each) ? null : each), 2)}\n`;
}

/**
 * Writes files into a directory of their own, which git ignores.
 * @param name such as `load-staging`
 * @returns the directory
 */
export function writeReport(
  root: string,
  name: string,
  startedAt: number,
  files: Readonly<Record<string, string>>,
): string {
  const moment = new Date(startedAt)
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '');
  const directory = resolve(root, '.local/reports', `${name}-${moment}`);
  mkdirSync(directory, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, file), text);
  return directory;
}
