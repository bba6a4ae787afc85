import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Answer, Claim, Keys } from '../db/idempotency';
import { Problem } from '../errors';
import type { Events } from '../telemetry/events';
import type { Context } from './context';
import { JsonNumber } from './json';
import { problemAnswer } from './problem';
import { sendAnswer } from './send';

/** How long a request waits for a twin with the same key that is being done, and how often it looks. */
const WAIT_MS = 2_000;
const FIRST_PAUSE_MS = 5;
const MAX_PAUSE_MS = 200;

const VISIBLE = /^[\x21-\x7e]{1,255}$/;
const QUOTED = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$/;

/**
 * Tries once, and resolves to the answer; to undefined if nothing was written because somebody else was faster, at
 * the same loan or with the same key. With a claim, whatever it writes is written together with the answer.
 * @throws Problem for a request that is refused
 */
type Attempt = (claim: Claim | undefined) => Promise<Answer | undefined>;

/** Does what a request asks for, once for each Idempotency-Key, and answers it. */
export type Once = (ctx: Context, operation: string, body: unknown, attempt: Attempt) => Promise<void>;

/**
 * A repeated request gets the first one's answer, byte by byte, for a day. That holds for refusals too, once the
 * request was looked at in earnest; what failed on our side (5xx) was not done, and is done by the next try.
 */
export function createOnce(keys: Keys, events: Events): Once {
  return async function once(ctx, operation, body, attempt) {
    const claim = readClaim(ctx, operation, body);
    const deadline = performance.now() + WAIT_MS;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS)) {
      const answer = await (claim === undefined ? attempt(claim) : attemptOrRefuse(ctx, claim, attempt));
      if (answer !== undefined) {
        sendAnswer(ctx, answer);
        return;
      }
      if (claim !== undefined && (await replay(ctx, claim))) return;
      if (claim !== undefined && performance.now() > deadline) throw inProgress();
      await sleep(pauseMs * (0.5 + Math.random())); // Without a connection.
    }
  };

  /** A refusal is an answer to keep. */
  async function attemptOrRefuse(ctx: Context, claim: Claim, attempt: Attempt): Promise<Answer | undefined> {
    try {
      return await attempt(claim);
    } catch (error) {
      if (!(error instanceof Problem) || error.status >= 500) throw error;
      if (!(await keys.store({ ...claim, answer: problemAnswer(error, ctx.path, ctx.state.requestId) })))
        return undefined;
      throw error;
    }
  }

  async function replay(ctx: Context, claim: Claim): Promise<boolean> {
    const stored = await keys.find(claim);
    if (stored === undefined) return false;
    if (stored.fingerprint !== claim.fingerprint) {
      throw new Problem('idempotency-key-reused', 'This key belongs to another request. Take a new one for this one.');
    }
    ctx.set('Idempotent-Replayed', 'true');
    sendAnswer(ctx, stored.answer);
    events.answerReplayed(claim.operation, ctx.state.requestId);
    return true;
  }
}

/**
 * The key is a string of structured fields (RFC 9651), that is in quotes, or the same without them, as most clients
 * send it.
 * @throws Problem idempotency-key-invalid
 */
function readClaim(ctx: Context, operation: string, body: unknown): Claim | undefined {
  const field = ctx.req.headers['idempotency-key'];
  if (field === undefined) return undefined;
  const text = String(field);
  const key = text.startsWith('"') ? QUOTED.exec(text)?.[1]?.replace(/\\(.)/g, '$1') : text;
  if (key === undefined || !VISIBLE.test(key)) {
    throw new Problem(
      'idempotency-key-invalid',
      'A key has 1 to 255 visible ASCII characters, with or without quotes.',
    );
  }
  return { principals: ctx.state.principals, operation, key, fingerprint: fingerprintOf(ctx, body) };
}

/** Of the body as it was sent, but for space and order: what a release makes of it may differ from the next one's. */
function fingerprintOf(ctx: Context, body: unknown): string {
  const request = [ctx.path, ctx.req.headers['if-match'] ?? null, body];
  return createHash('sha256').update(JSON.stringify(request, canonical)).digest('hex');
}

function canonical(_name: string, value: unknown): unknown {
  if (value instanceof JsonNumber) return { number: value.source };
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function inProgress(): Problem {
  return new Problem('idempotency-in-progress', 'A request with this key is being done. Ask again for its answer.', {
    headers: { 'Retry-After': '1' },
  });
}
