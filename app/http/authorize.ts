import { timingSafeEqual } from 'node:crypto';
import type { Config } from '../config';
import { type ClientKey, digestOf } from '../db/api-keys';
import { allows, parseApiKey, type Scope } from '../domain/api-key';
import { Problem } from '../errors';
import type { Events } from '../telemetry/events';
import type { AuthFailure } from '../telemetry/metrics';
import type { Context } from './context';
import type { Access } from './contract/operation';
import type { KnownKeys } from './known-keys';

/**
 * Lets a request through to an operation, and says in its state who asks. Resolves, or returns, once it may go on.
 * @throws Problem unauthorized or forbidden, or that of the database where it has to be asked and does not answer
 */
export type Authorize = (ctx: Context, access: Access) => Promise<void> | undefined;

interface Parts {
  readonly keys: KnownKeys;
  readonly events: Events;
  readonly now: () => Date;
  readonly environment: string;
  readonly apiKeys: Config['apiKeys'];
}

const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;

export function createAuthorize({ keys, events, now, environment, apiKeys }: Parts): Authorize {
  return function authorize(ctx, access) {
    if (access === 'public') return undefined;
    const field = ctx.req.headers.authorization;
    if (field === undefined) {
      if (apiKeys === 'optional') return undefined;
      events.authFailed('missing', undefined, ctx.state.requestId);
      throw unauthorized('Send an API key, as Authorization: Bearer <key>.', 'Bearer');
    }
    const text = BEARER.exec(field)?.[1] ?? '';
    const name = parseApiKey(text);
    if (name === undefined) throw refused(ctx, 'malformed');
    if (name.environment !== environment) throw refused(ctx, 'environment', name.id);
    const key = keys.find(name.id);
    if (key instanceof Promise) return key.then((read) => admit(ctx, access, text, name.id, read));
    admit(ctx, access, text, name.id, key);
    return undefined;
  };

  function admit(ctx: Context, scope: Scope, text: string, id: string, key: ClientKey | undefined): void {
    if (key === undefined) throw refused(ctx, 'unknown', id);
    if (!timingSafeEqual(digestOf(text), key.digest)) throw refused(ctx, 'secret', id);
    if (key.revokedAt !== null) throw refused(ctx, 'revoked', id);
    const at = now().getTime();
    if (key.expiresAt !== null && Date.parse(key.expiresAt) <= at) throw refused(ctx, 'expired', id);
    ctx.state.keyId = id;
    ctx.state.principal = principalOf(key.client);
    // Before decision 45 each key was a principal of its own.
    ctx.state.principals = [...new Set([id, key.client, ...key.recent])].map(principalOf);
    keys.used(id, at);
    if (allows(key.scopes, scope)) return;
    events.authFailed('scope', id, ctx.state.requestId);
    throw new Problem('forbidden', `The API key lacks the scope ${scope}.`, {
      headers: { 'WWW-Authenticate': `Bearer error="insufficient_scope", scope="${scope}"` },
      extensions: { scope },
    });
  }

  /** One answer, whatever is wrong with a key: only the log knows. */
  function refused(ctx: Context, reason: AuthFailure, id?: string): Problem {
    events.authFailed(reason, id, ctx.state.requestId);
    return unauthorized('The API key is not valid here.', 'Bearer error="invalid_token"');
  }
}

const principalOf = (id: string) => `key:${id}`;

/** @param challenge RFC 6750, 3 */
function unauthorized(detail: string, challenge: string): Problem {
  return new Problem('unauthorized', detail, { headers: { 'WWW-Authenticate': challenge } });
}
