import { isNativeError } from 'node:util/types';
import { Problem } from '../errors';

/** SQLSTATE of a statement that may succeed when it is simply tried again: a lost race, not a fault of the data. */
const LOST_RACE = new Set(['40001', '40P01']);
/** The server closed or refused the connection. */
const AWAY = /^(08...|57P0[1-5]|28...|3D000)$/;
/**
 * The server is a copy that can't write, or has no tables yet, since the migrations have not run: another try later
 * may succeed. A column that does not exist is a fault of ours, and none of these.
 */
const NOT_YET = new Set(['25006', '42P01']);
/** Too many connections, or a lock or statement that took longer than its budget. */
const OVERLOADED = new Set(['53200', '53300', '53400', '55P03', '57014']);
const STORAGE_FULL = new Set(['53100', '58030']);
/** Messages of the client library, which gives these no code. The first one: all connections are taken. */
const POOL_EXHAUSTED = 'timeout exceeded when trying to connect';
const CLIENT_FAULT =
  /^(Query read timeout|Connection terminated|Client (was closed|has encountered a connection error))/;
/** The operating system's names, such as ECONNREFUSED and EAI_AGAIN; those of Node itself begin with ERR_. */
const NETWORK = /^E(?!RR_)[A-Z_]+$/;

/** SQLSTATE, or the operating system's name of a connection fault. */
export function codeOf(error: unknown): string | undefined {
  const code: unknown = isNativeError(error) && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

export function isLostRace(error: unknown): boolean {
  return LOST_RACE.has(codeOf(error) ?? '');
}

/**
 * Whether it is a fault of the data at hand: what the domain says of it (its faults are RangeErrors), or a value or
 * constraint that the database refuses. It says nothing about the data beside it.
 */
export function isFaultOfOne(error: unknown): error is Error {
  return error instanceof RangeError || /^2[23]/.test(codeOf(error) ?? '');
}

/** Whether the connection can't be trusted with a next statement. */
export function breaksConnection(error: unknown): boolean {
  const code = codeOf(error);
  return code === undefined || !/^[0-9A-Z]{5}$/.test(code) || /^(08|57P)/.test(code);
}

/** Whether the database could not be reached or did not answer at all, which holds for whatever is asked of it. */
export function isAway(error: unknown): boolean {
  if (!isNativeError(error)) return false;
  const code = codeOf(error) ?? '';
  return NETWORK.test(code) || AWAY.test(code) || CLIENT_FAULT.test(error.message);
}

/** A failure of the database as a problem that a client may be told about; any other error as it is. */
export function asProblem(error: unknown): unknown {
  if (!isNativeError(error)) return error;
  const code = codeOf(error) ?? '';
  if (STORAGE_FULL.has(code)) return unavailable('storage-full', error);
  if (OVERLOADED.has(code) || isLostRace(error) || error.message === POOL_EXHAUSTED) {
    return unavailable('overloaded', error);
  }
  return isAway(error) || NOT_YET.has(code) ? unavailable('db-unavailable', error) : error;
}

/** What a client is told, and after how many seconds it should try again. */
const ANSWERS = {
  'db-unavailable': ['The database is not available at the moment. Try again.', '1'],
  overloaded: ['The database did not finish this in time. Try again.', '1'],
  'storage-full': ['Nothing was written. Try again later.', '30'],
} as const;

export function unavailable(slug: keyof typeof ANSWERS, cause?: Error): Problem {
  const [detail, retryAfterSeconds] = ANSWERS[slug];
  return new Problem(slug, detail, { cause, headers: { 'Retry-After': retryAfterSeconds } });
}
