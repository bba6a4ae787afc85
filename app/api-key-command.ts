import { parseArgs } from 'node:util';
import type { ApiKeys, ClientKey, NewKey, StoredKey } from './db/api-keys';
import { isScope, type Scope, SCOPES } from './domain/api-key';
import { KEY_CACHE_MS } from './http/known-keys';

/** The command that makes, lists, revokes and rotates API keys. It reads arguments and returns text; main.ts does the rest. */
export const API_KEY_USAGE = `  api-key create --name N --scopes A,B [--expires-days D]
                                 make an API key; scopes: ${SCOPES.join(', ')}
  api-key list                   all keys, without their secrets, which are not stored
  api-key revoke --id I          refuse it, in all processes within seconds
  api-key rotate --id I [--overlap-hours H]
                                 make its successor for the same client; the old one works for another H hours (24)
`;

export type ApiKeyCommand =
  | { readonly verb: 'create'; readonly name: string; readonly scopes: readonly Scope[]; readonly days: number | null }
  | { readonly verb: 'list' }
  | { readonly verb: 'revoke'; readonly id: string }
  | { readonly verb: 'rotate'; readonly id: string; readonly overlapHours: number };

/** What a command has to say: the result alone on standard output, for a program that takes it from there. */
export interface Said {
  readonly stdout: string;
  readonly stderr: string;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const DEFAULT_OVERLAP_HOURS = '24';
/** Printable, so that a list of keys is one line for each. */
const NAME = /^[^\p{C}\p{Z}](?:[^\p{C}]{0,98}[^\p{C}\p{Z}])?$/u;

/** @param args after the command's own name. Undefined if they are not well-formed */
export function readApiKeyCommand(args: readonly string[]): ApiKeyCommand | undefined {
  const [verb, ...rest] = args;
  const text = { type: 'string' } as const;
  try {
    switch (verb) {
      case 'create': {
        const options = { name: text, scopes: text, 'expires-days': text };
        const { name = '', scopes = '', 'expires-days': days } = parseArgs({ args: rest, options }).values;
        const wanted = scopes.split(',').map((scope) => scope.trim());
        if (!NAME.test(name) || !wanted.every(isScope) || !isWhole(days ?? '1', 1, 3_650)) return undefined;
        return {
          verb,
          name,
          scopes: SCOPES.filter((scope) => wanted.includes(scope)),
          days: days === undefined ? null : Number(days),
        };
      }
      case 'list':
        parseArgs({ args: rest, options: {} });
        return { verb };
      case 'revoke': {
        const { id } = parseArgs({ args: rest, options: { id: text } }).values;
        return id === undefined ? undefined : { verb, id };
      }
      case 'rotate': {
        const options = { id: text, 'overlap-hours': text };
        const { id, 'overlap-hours': hours = DEFAULT_OVERLAP_HOURS } = parseArgs({ args: rest, options }).values;
        return id !== undefined && isWhole(hours, 0, 8_760) ? { verb, id, overlapHours: Number(hours) } : undefined;
      }
      default:
        return undefined;
    }
  } catch {
    return undefined; // An option that does not exist.
  }
}

function isWhole(text: string, min: number, max: number): boolean {
  return /^\d{1,6}$/.test(text) && Number(text) >= min && Number(text) <= max;
}

/** @throws ApiKeyError for a key that does not exist or cannot be rotated, Problem where the database is away */
export async function runApiKeyCommand(command: ApiKeyCommand, keys: ApiKeys, now: Date): Promise<Said> {
  switch (command.verb) {
    case 'create': {
      const expiresAt = command.days === null ? null : new Date(now.getTime() + command.days * DAY_MS);
      return sayNew(await keys.create({ name: command.name, scopes: command.scopes, expiresAt }, now), '');
    }
    case 'list':
      return { stdout: table((await keys.list()).map((key) => columns(key, now))), stderr: '' };
    case 'revoke': {
      const { id, name, revokedAt } = await keys.revoke(command.id, now);
      return {
        stdout: '',
        stderr: `The key ${id} "${name}" is revoked since ${revokedAt ?? ''}. Running processes refuse it within ${KEY_CACHE_MS / 1_000} s.\n`,
      };
    }
    case 'rotate': {
      const next = await keys.rotate(command.id, command.overlapHours * HOUR_MS, now);
      return sayNew(
        next,
        `It follows ${command.id}, which works for another ${command.overlapHours} h at most. Both belong to one client.\n`,
      );
    }
  }
}

function sayNew({ text, stored }: NewKey, remark: string): Said {
  const { id, name, scopes, expiresAt } = stored;
  const end = expiresAt === null ? 'does not expire' : `expires at ${expiresAt}`;
  return {
    stdout: `${text}\n`,
    stderr: `The key ${id} "${name}" may ${scopes.join(', ')} and ${end}.\n${remark}It is shown now and never again: keep it like a password.\n`,
  };
}

const HEADINGS = ['id', 'name', 'scopes', 'state', 'created', 'expires', 'last used', 'client'];

function columns(key: ClientKey, now: Date): string[] {
  return [
    key.id,
    key.name,
    key.scopes.join(','),
    stateOf(key, now),
    key.createdAt,
    key.expiresAt ?? 'never',
    key.lastUsedAt ?? 'never',
    // The name of the client in logs and the audit trail, where it is not that of this key.
    key.client === key.id ? '' : `key:${key.client}`,
  ];
}

function stateOf({ revokedAt, expiresAt, replacedBy }: StoredKey, now: Date): string {
  if (revokedAt !== null) return 'revoked';
  if (expiresAt !== null && Date.parse(expiresAt) <= now.getTime()) return 'expired';
  return replacedBy === null ? 'valid' : `valid until ${replacedBy} takes over`;
}

function table(rows: readonly string[][]): string {
  const lines = [HEADINGS, ...rows];
  const widths = HEADINGS.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
