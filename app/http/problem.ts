import { STATUS_CODES } from 'node:http';
import { isNativeError } from 'node:util/types';
import type { Answer } from '../db/idempotency';
import { Problem } from '../errors';
import type { Logger } from '../telemetry/logger';
import { pathWithoutSecrets } from '../telemetry/secrets';
import type { Context, Step } from './context';
import { problemPage, sendPage } from './pages';
import { sendAnswer } from './send';

const PROBLEM_TYPE = 'application/problem+json; charset=utf-8';

/** Turns every failure below it into one problem document. An error that is no Problem is masked and logged. */
export function problemDocuments(logger: Logger): Step {
  return async function problemDocuments(ctx, next) {
    try {
      await next();
    } catch (error) {
      const problem = asKnownProblem(error);
      ctx.state.failure = problem;
      if (problem.status >= 500) logFailure(logger, ctx.state.requestId, problem);
      sendAnswer(ctx, problemAnswer(problem, ctx.path, ctx.state.requestId));
      // A browser that is to show something. Stored and other answers to a change are the same for everybody.
      if (ctx.method !== 'GET' && ctx.method !== 'HEAD') return;
      ctx.vary('Accept');
      if (wantsPage(ctx))
        sendPage(ctx, problem.status, problemPage(problem, pathWithoutSecrets(ctx.path), ctx.state.requestId));
    }
  };
}

/** A browser's has some 150 characters. The library that reads the field takes quadratic time for hostile ones. */
export const MAX_ACCEPT = 1_000;

/** Only a client that names HTML, and prefers nothing of JSON, gets a page. A field beyond the limit names nothing. */
function wantsPage(ctx: Context): boolean {
  const { accept = '' } = ctx.req.headers;
  if (accept.length > MAX_ACCEPT || !/text\/html/i.test(accept)) return false;
  return ctx.accepts('application/problem+json', 'application/json', 'text/html') === 'text/html';
}

export function problemAnswer(problem: Problem, instance: string, requestId: string): Answer {
  const headers = { ...problem.headers, 'Content-Type': PROBLEM_TYPE };
  return { status: problem.status, headers, body: problemBody(problem, instance, requestId) };
}

function problemBody(problem: Problem, instance: string | undefined, requestId: string): string {
  return JSON.stringify({
    type: problem.type,
    title: problem.title,
    status: problem.status,
    detail: problem.detail,
    instance: instance && pathWithoutSecrets(instance),
    request_id: requestId,
    errors: problem.faults.length > 0 ? problem.faults : undefined,
    ...problem.extensions,
  });
}

/** A whole HTTP answer, for a socket whose request never became one. The connection ends with it. */
export function rawProblemAnswer(problem: Problem, requestId: string): string {
  const body = problemBody(problem, undefined, requestId);
  const headers = {
    ...SECURITY_HEADERS,
    ...problem.headers,
    'Content-Type': PROBLEM_TYPE,
    'Content-Length': Buffer.byteLength(body),
    'X-Request-ID': requestId,
    Connection: 'close',
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? ''}\r\n${lines.join('')}\r\n${body}`;
}

/** On every answer; a page widens the content policy for itself (PAGE_POLICY). */
export const SECURITY_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'strict-origin-when-cross-origin',
  'Strict-Transport-Security': 'max-age=31536000; includeSubDomains',
  'Cache-Control': 'no-store',
} as const;

const SECURITY_HEADER_LIST = Object.entries(SECURITY_HEADERS);

export const securityHeaders: Step = function securityHeaders(ctx, next) {
  for (const [name, value] of SECURITY_HEADER_LIST) ctx.res.setHeader(name, value);
  return next();
};

export function asKnownProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem('internal', 'The failure was recorded under this request_id.', { cause: error });
}

/** Names and codes only: the text of a database error may repeat a client's data. */
export function logFailure(logger: Logger, requestId: string, problem: Problem): void {
  const cause = isNativeError(problem.cause) ? problem.cause : undefined;
  const masked = problem.slug === 'internal';
  logger.log(masked ? 'error' : 'warn', 'request failed', {
    request_id: requestId,
    problem: problem.slug,
    reason: cause?.message,
    code: cause !== undefined && 'code' in cause ? cause.code : undefined,
    stack: masked ? cause?.stack : undefined,
  });
}
