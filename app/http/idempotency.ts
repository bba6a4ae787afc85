import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Answer, Claim, Conflict, Keys } from '../db/idempotency';
import { Problem } from '../errors';
import type { Events } from '../telemetry/events';
import type { Context } from './context';
import { JsonNumber } from './json';
import { problemAnswer } from './problem';
import { sendAnswer } from './send';
import { createTurns, settledBy } from './turns';

/**
 * A request that others keep from being done is answered within this time: those that change the same loan (rivals), or
 * those with the same key (twins). It ends sooner where another attempt would not be through by then.
 */
const DEADLINE_MS = 2_500;
const FIRST_PAUSE_MS = 5;
const MAX_PAUSE_MS = 200;

const VISIBLE = /^[\x21-\x7e]{1,255}$/;
const QUOTED = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$/;

/**
 * Tries once, and resolves to the answer, or to what kept it from being done: nothing was written then. With a claim,
 * whatever it writes is written together with the answer.
 * @throws Problem for a request that is refused
 */
type Attempt = (claim: Claim | undefined) => Promise<Answer | Conflict>;

interface Request {
  readonly operation: string;
  readonly body: unknown;
  /** Id of the loan that is changed. Of requests that change the same one, each has its turn. */
  readonly loan?: string;
}

/** Does what a request asks for, once for each Idempotency-Key, and answers it. */
export type Once = (ctx: Context, request: Request, attempt: Attempt) => Promise<void>;

/**
 * A repeated request gets the first one's answer, byte by byte, for a day. That holds for refusals too, once the
 * request was looked at in earnest; what failed on our side (5xx) was not done, and is done by the next try.
 */
export function createOnce(keys: Keys, events: Events): Once {
  const inTurn = createTurns();
  /** The requests with a key that this process is doing, each until it has ended. */
  const underWay = new Map<string, Promise<unknown>>();

  return async function once(ctx, request, attempt) {
    const deadline = performance.now() + DEADLINE_MS;
    const claim = readClaim(ctx, request);
    const work = () => untilDone(ctx, claim, request.loan, deadline, attempt);
    if (claim === undefined) return work();

    const name = JSON.stringify([ctx.state.principal, claim.operation, claim.key]);
    for (let twin = underWay.get(name); twin !== undefined; twin = underWay.get(name)) {
      if (!(await settledBy(twin, deadline))) throw inProgress();
      if (await replay(ctx, claim)) return;
    }
    const done = work();
    underWay.set(
      name,
      done.then(ignore, ignore).then(() => underWay.delete(name)),
    );
    return done;
  };

  /** Tries again while other processes are faster, at the same loan or with the same key. */
  async function untilDone(
    ctx: Context,
    claim: Claim | undefined,
    loan: string | undefined,
    deadline: number,
    attempt: Attempt,
  ): Promise<void> {
    let tookMs = 0;
    const tryOnce = async () => {
      const startedAt = performance.now();
      const outcome = await (claim === undefined ? attempt(claim) : attemptOrRefuse(ctx, claim, attempt));
      tookMs = performance.now() - startedAt;
      return outcome;
    };
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS)) {
      const outcome = loan === undefined ? await tryOnce() : await inTurn(loan, deadline, tryOnce);
      if (typeof outcome === 'object') {
        sendAnswer(ctx, outcome);
        return;
      }
      if (outcome === 'twin' && claim !== undefined && (await replay(ctx, claim))) return;
      const isLate = outcome === undefined || performance.now() + pauseMs + tookMs > deadline;
      if (isLate) throw outcome === 'twin' ? inProgress() : contended();
      await sleep(pauseMs * (0.5 + Math.random())); // Without a connection.
    }
  }

  /** A refusal is an answer to keep. */
  async function attemptOrRefuse(ctx: Context, claim: Claim, attempt: Attempt): Promise<Answer | Conflict> {
    try {
      return await attempt(claim);
    } catch (error) {
      if (!(error instanceof Problem) || error.status >= 500) throw error;
      if (!(await keys.store({ ...claim, answer: problemAnswer(error, ctx.path, ctx.state.requestId) }))) return 'twin';
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
function readClaim(ctx: Context, { operation, body }: Request): Claim | undefined {
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

function ignore(): void {}

function contended(): Problem {
  return new Problem(
    'overloaded',
    'Other requests were changing this loan all the time. Nothing was done; try again.',
    {
      headers: { 'Retry-After': '1' },
    },
  );
}

function inProgress(): Problem {
  return new Problem('idempotency-in-progress', 'A request with this key is being done. Ask again for its answer.', {
    headers: { 'Retry-After': '1' },
  });
}
