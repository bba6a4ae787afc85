import type { Problem } from '../errors';
import type { Context } from './context';
import type { History } from '../sre/history';
import type { Source } from '../sre/sre';
import type { ApplicationStatus } from './contract/system';
import { historySection } from './history';
import { escape, htmlPage, PAGE_POLICY } from './html';
import { send } from './send';

export function sendPage(ctx: Context, status: number, page: string): void {
  ctx.set('Content-Security-Policy', PAGE_POLICY);
  send(ctx, status, 'text/html; charset=utf-8', page);
}

/** The facts of a problem document, for a person. */
export function problemPage(problem: Problem, path: string, requestId: string): string {
  const faults = problem.faults.map(
    ({ pointer, parameter, detail }) => `<li><code>${escape(pointer ?? parameter ?? '')}</code> ${escape(detail)}</li>`,
  );
  const body = `<main>
<h1><small>${problem.status}</small> ${escape(problem.title)}</h1>
<p>${escape(problem.detail)}</p>
${faults.length === 0 ? '' : `<ul>${faults.join('')}</ul>`}
${facts([
  ['Address', escape(path)],
  ['Kind of problem', `<a href="/docs">${escape(problem.type)}</a>`],
  ['Request', `<code>${escape(requestId)}</code>`],
])}
<p>Name the request when you ask somebody about it. <a href="/status">Is the service well?</a></p>
</main>`;
  return htmlPage({ title: `${problem.status} ${problem.title}`, body });
}

const WORDS: Readonly<Record<ApplicationStatus['status'], string>> = {
  ok: 'The service is well',
  degraded: 'The service runs, and its database is not as it should be',
  'shutting-down': 'This instance of the service is shutting down',
};

/** The page that shows how it is and was; its script (browser/status.js) writes new values over those here. */
export function statusPage(status: ApplicationStatus, history: History & Source): string {
  const value = (path: string, text: string | number | null) =>
    `<span data-value="${path}">${escape(String(text ?? 'unknown'))}</span>`;
  const { database } = status;
  const words = Object.entries(WORDS).map(([name, text]) => `data-${name}="${escape(text)}"`);
  const body = `<main>
<h1>Branch Loans: status</h1>
<p class="state ${status.status}" role="status" ${words.join(' ')}>${WORDS[status.status]}</p>
${facts([
  ['Asked at', value('timestamp', status.timestamp)],
  ['Release', `${value('version', status.version)}, commit ${value('commit', status.commit)}`],
  ['Environment', value('environment', status.environment)],
  ['Runs since', value('started_at', status.started_at)],
  ['Runs for', `${value('uptime_seconds', status.uptime_seconds)} seconds`],
  ['Database', value('database.status', database.status)],
  ['Database answers in', `${value('database.latency_ms', database.latency_ms)} ms`],
  [
    'Schema',
    `${value('database.schema_version', database.schema_version)}, this release brings ${value(
      'database.release_schema_version',
      database.release_schema_version,
    )}`,
  ],
])}
<p>The process that answered says this about itself. <a href="/status">Ask again</a>, or read <a href="/docs">how to use the API</a>.</p>
${historySection(history)}
</main>`;
  return htmlPage({ title: 'Branch Loans: status', body, script: '/status/status.js' });
}

/** @param rows names as text, values as HTML */
function facts(rows: readonly (readonly [name: string, html: string])[]): string {
  const lines = rows.map(([name, html]) => `<tr><th scope="row">${name}</th><td>${html}</td></tr>`);
  return `<table><tbody>${lines.join('\n')}</tbody></table>`;
}
