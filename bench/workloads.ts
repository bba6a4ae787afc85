import { randomUUID } from 'node:crypto';
import { type Contender, type ContenderName, type Endpoint, HEADERS } from './contenders';
import { loanId } from './data';
import { askOnce, get, type NextRequest, post } from './load';

/** What is asked of every contender, in the same words. */
export const WORKLOADS = ['get', 'list', 'pages', 'post', 'stats'] as const;
export type WorkloadName = (typeof WORKLOADS)[number];

export const TITLES: Readonly<Record<WorkloadName, string>> = {
  get: 'GET by id, any of all loans',
  list: 'list of 50, first page',
  pages: 'list of 50, any page by cursor',
  post: 'POST with a fresh idempotency key',
  stats: 'stats',
};

/** Where a page starts. */
export interface Page {
  /** The target of ours, as its Link header has it. */
  readonly link: string;
  /** The last loan of the page before. */
  readonly after: { readonly created_at: string; readonly id: string };
}

const LOAN = JSON.stringify({
  borrower_id: 'usr_kenya_006',
  amount: '950.50',
  currency: 'KES',
  term_months: 6,
  interest_rate_apr: '28.00',
});

export function endpointOf(contender: Contender, workload: WorkloadName): Endpoint {
  return workload === 'list' ? contender.lists : contender.main;
}

/** The Flask original has no cursors. */
export function takesPart(name: ContenderName, workload: WorkloadName): boolean {
  return !(name === 'flask' && workload === 'pages');
}

/**
 * An endless source of requests.
 * @param rows the loans that there are at least
 */
export function requestsOf(
  workload: WorkloadName,
  name: ContenderName,
  rows: number,
  pages: readonly Page[],
): NextRequest {
  switch (workload) {
    case 'get':
      return () => get(`/api/loans/${loanId(1 + Math.floor(Math.random() * rows))}`, HEADERS);
    case 'list': {
      const text = get('/api/loans', HEADERS);
      return () => text;
    }
    case 'pages': {
      const texts = pages.map((page) => get(name === 'ours' ? page.link : linkToNext(page), HEADERS));
      return () => texts[Math.floor(Math.random() * texts.length)] ?? '';
    }
    case 'post':
      return () => post('/api/loans', LOAN, `${HEADERS}Idempotency-Key: ${randomUUID()}\r\n`);
    case 'stats': {
      const text = get('/api/stats', HEADERS);
      return () => text;
    }
  }
}

/** What a day brings, roughly: 7 of 10 look at a loan, 2 at the list, 1 asks for a loan. */
export function mixedRequests(rows: number): NextRequest {
  const sources = (['get', 'list', 'post'] as const).map((workload) => requestsOf(workload, 'ours', rows, []));
  const order = [0, 0, 1, 0, 0, 2, 0, 1, 0, 0];
  let turn = 0;
  return () => sources[order[turn++ % order.length] ?? 0]?.() ?? '';
}

function linkToNext({ after }: Page): string {
  return `/api/loans?${new URLSearchParams(after).toString()}`;
}

/** Follows the list of ours from its beginning. @returns where each of the pages after the first starts, in order */
export async function walkPages(port: number, count: number, first = '/api/loans'): Promise<Page[]> {
  const pages: Page[] = [];
  for (let target: string | undefined = first; target !== undefined && pages.length < count;) {
    const { status, head, body } = await askOnce(port, get(target, HEADERS));
    if (status !== 200) throw new Error(`The list answers ${status} for ${target}: ${body}`);
    const last = (JSON.parse(body) as Page['after'][]).at(-1);
    const link = /\r\nlink: [^\r]*?<([^>]+)>; rel="?next"?/i.exec(head)?.[1];
    target = link;
    if (link === undefined || last === undefined) break;
    pages.push({ link, after: { created_at: last.created_at, id: last.id } });
  }
  return pages;
}

/** One answer to each workload is what it has to be. @throws Error that names the contender */
export async function checkAnswers(contender: Contender, rows: number, pages: readonly Page[]): Promise<void> {
  for (const workload of WORKLOADS) {
    if (!takesPart(contender.name, workload)) continue;
    const text = requestsOf(workload, contender.name, rows, pages)();
    const { status, body } = await askOnce(endpointOf(contender, workload).port, text);
    const fault = status < 200 || status > 299 ? `status ${status}` : faultOf(workload, JSON.parse(body), text, rows);
    if (fault !== undefined) throw new Error(`${contender.name}, ${TITLES[workload]}: ${fault}: ${body.slice(0, 300)}`);
  }
}

interface LoanAnswer {
  readonly id?: string;
  readonly amount?: string;
  readonly borrower_id?: string;
  readonly status?: string;
}

function faultOf(workload: WorkloadName, answer: unknown, text: string, rows: number): string | undefined {
  const loan = answer as LoanAnswer;
  const list = answer as LoanAnswer[];
  switch (workload) {
    case 'get':
      return text.includes(`/${loan.id} `) && loan.borrower_id !== undefined ? undefined : 'not the loan asked for';
    case 'list':
    case 'pages':
      return list.length === Math.min(50, rows) && list[0]?.amount !== undefined ? undefined : 'not a page of loans';
    case 'post':
      return Number(loan.amount) === 950.5 && loan.status === 'pending' ? undefined : 'not the loan asked for';
    case 'stats':
      return (answer as { total_loans: number }).total_loans >= rows ? undefined : 'too few loans';
  }
}
