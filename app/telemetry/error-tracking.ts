import { isNativeError } from 'node:util/types';
import {
  createEventEnvelope,
  createStackParser,
  createTransport,
  type DsnComponents,
  type ErrorEvent,
  getEnvelopeEndpointWithUrlEncodedAuth,
  makeDsn,
  uuid4,
} from '@sentry/core';
import { nodeStackLineParser } from '@sentry/core/server';

/** Reports unexpected errors to a project of Sentry, or of what speaks its protocol. */
export interface ErrorTracking {
  /** Sends it, sooner or never: waits for nothing, never throws, and keeps a bounded number. */
  capture(error: unknown, where: Where): void;
  /** Resolves when all are sent, or after this time. */
  flush(timeoutMs: number): Promise<void>;
}

interface Where {
  readonly requestId?: string;
  readonly method?: string;
  /** A pattern of ours. */
  readonly route?: string;
  readonly traceId?: string | undefined;
  readonly spanId?: string | undefined;
}

interface Release {
  readonly environment: string;
  readonly version: string;
  readonly commit: string;
}

const SEND_TIMEOUT_MS = 3_000;
/** Reports on their way; what comes beyond is dropped. */
const MAX_UNDER_WAY = 20;
const SEE_LOG = 'see the log of this request';
const CLIENT = { name: 'branchloans', version: '1' };

/** @throws Error when the DSN is none */
export function createErrorTracking(dsn: string, release: Release): ErrorTracking {
  const project = makeDsn(dsn);
  if (project === undefined) throw new Error('the DSN of the error tracking is not valid');
  // The library keeps the bound, and the pauses that the other side asks for.
  const transport = createTransport({ bufferSize: MAX_UNDER_WAY, recordDroppedEvent: () => undefined }, ({ body }) =>
    post(project, body),
  );
  const parse = createStackParser(nodeStackLineParser());

  const eventOf = (error: unknown, { requestId, method, route, traceId, spanId }: Where): ErrorEvent => {
    const { name, stack = '' } = isNativeError(error) ? error : { name: typeof error };
    // The first lines are the message.
    const calls = stack.split('\n').filter((line) => /^\s+at /.test(line));
    const frames = parse(calls.join('\n')).map((frame) => ({ ...frame, in_app: isOurs(frame.filename) }));
    return {
      type: undefined,
      event_id: uuid4(),
      timestamp: Date.now() / 1_000,
      platform: 'node',
      level: 'error',
      environment: release.environment,
      release: `branchloans@${release.version}+${release.commit}`,
      ...(route !== undefined && { transaction: `${method ?? ''} ${route}`.trim() }),
      ...(requestId !== undefined && { tags: { request_id: requestId } }),
      ...(traceId !== undefined && {
        contexts: { trace: { trace_id: traceId, span_id: spanId ?? uuid4().slice(16) } },
      }),
      exception: {
        values: [{ type: name, value: wordsOf(error), mechanism: mechanismOf(route), stacktrace: { frames } }],
      },
    };
  };

  return {
    capture(error, where) {
      const envelope = createEventEnvelope(eventOf(error, where), project, { sdk: CLIENT });
      void Promise.resolve(transport.send(envelope)).catch(() => undefined);
    },
    async flush(timeoutMs) {
      await transport.flush(timeoutMs);
    },
  };
}

async function post(project: DsnComponents, body: string | Uint8Array) {
  const url = getEnvelopeEndpointWithUrlEncodedAuth(project, undefined, CLIENT);
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/x-sentry-envelope' },
    body: body as string,
    signal: AbortSignal.timeout(SEND_TIMEOUT_MS),
  });
  await answer.arrayBuffer(); // Else the connection would not be free for the next one.
  const header = (name: string) => answer.headers.get(name);
  return {
    statusCode: answer.status,
    headers: { 'x-sentry-rate-limits': header('x-sentry-rate-limits'), 'retry-after': header('retry-after') },
  };
}

/**
 * What V8 says of a mistake in the code, without the name that it gives: that may be a client's, a key that was looked up
 * or a text that was called. The stack says where.
 */
const MISTAKE =
  /^Cannot (?:read|set) properties of (?:undefined|null)|is not (?:a function|a constructor|iterable|defined)$|^Assignment to constant variable/;

/**
 * What may be said of an error to others: its code, where it has one. The words of most may repeat what a client sent:
 * "Cannot convert … to a BigInt", "Cannot create property 'x' on string '…'". The log has them.
 */
function wordsOf(error: unknown): string {
  if (!isNativeError(error)) return SEE_LOG;
  const { code, message } = error as NodeJS.ErrnoException;
  if (typeof code === 'string') return code;
  return MISTAKE.exec(message)?.[0] ?? SEE_LOG;
}

function isOurs(file: string | undefined): boolean {
  return file !== undefined && !/^node:|node_modules/.test(file);
}

const mechanismOf = (route: string | undefined) =>
  route === undefined ? { type: 'unhandled', handled: false } : { type: 'problem', handled: true };
