/** What containers write, read as one log: parsing, filter, order and words. No I/O. */

export const LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type Level = (typeof LEVELS)[number];

/** Who wrote a line. */
export interface Origin {
  /** As the engine names it. */
  readonly container: string;
  /** Part of the stack, such as gateway or api. */
  readonly component: string;
}

export interface Entry extends Origin {
  /** ISO 8601 in UTC with nine digits of the second, so that the order of texts is that of time; empty if unknown. */
  readonly time: string;
  readonly level: Level;
  readonly message: string;
  /** What else a structured line says. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The line as it was written. */
  readonly text: string;
}

/** Which entries are wanted; all that are not named are. */
export interface Query {
  readonly request?: string;
  /** This one and worse ones. */
  readonly level?: Level;
}

const LEVEL_OF: Readonly<Record<string, Level>> = {
  emerg: 'error',
  alert: 'error',
  crit: 'error',
  critical: 'error',
  panic: 'error',
  fatal: 'error',
  err: 'error',
  error: 'error',
  warning: 'warn',
  warn: 'warn',
  notice: 'info',
  log: 'info',
  info: 'info',
  debug: 'debug',
  trace: 'debug',
};
const ENGINE_TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z) /;
/** As Postgres begins a line, with log_timezone UTC. */
const POSTGRES = /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC \[\d+\] (?:\S+ )?([A-Z]+[0-9]?): +/;
const NGINX_ERROR = /^(\d{4})\/(\d\d)\/(\d\d) (\d\d:\d\d:\d\d) \[(\w+)\] /;
const LOGFMT_LEVEL = /(?:^|\s)(?:level|lvl)=(\w+)/;
/** Lines that belong to the one before: further words of Postgres, and what is indented, as a stack trace. */
const CONTINUES = /^(?:DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION)$/;

interface Parsed {
  readonly time?: string;
  readonly level: Level | undefined;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Reads the lines of one container, in their order: a continued line has level and time of the one it continues.
 * A line may begin with the engine's own time (`docker logs --timestamps`), which then counts.
 */
export function createParser(origin: Origin): (line: string) => Entry {
  let last: { time: string; level: Level } = { time: '', level: 'info' };
  return (line) => {
    const engineTime = ENGINE_TIME.exec(line)?.[1];
    const text = engineTime === undefined ? line : line.slice(engineTime.length + 1);
    const parsed = parseJson(text) ?? parsePostgres(text) ?? parseNginxError(text) ?? parseText(text);
    const time = nineDigits(engineTime ?? parsed.time) ?? last.time;
    const level = parsed.level ?? (/^\s/.test(text) || CONTINUES.test(firstWord(text)) ? last.level : 'info');
    last = { time, level };
    return { ...origin, time, level, message: parsed.message, fields: parsed.fields, text };
  };
}

function parseJson(text: string): Parsed | undefined {
  if (!text.startsWith('{')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const { time, timestamp, ts, level, severity, message, msg, ...fields } = value as Record<string, unknown>;
  const said = message ?? msg;
  return {
    ...timeOf(timestamp ?? time ?? ts),
    level: levelNamed(level ?? severity) ?? levelOfStatus(fields['status']),
    message: typeof said === 'string' ? said : requestLine(fields),
    fields,
  };
}

/** An access log has no message: what was asked for is one. */
function requestLine({ method, path, status }: Readonly<Record<string, unknown>>): string {
  return [method, path, status].filter((word) => typeof word === 'string' || typeof word === 'number').join(' ');
}

function levelOfStatus(status: unknown): Level | undefined {
  if (typeof status !== 'string' && typeof status !== 'number') return undefined;
  return Number(status) >= 500 ? 'error' : 'info';
}

function parsePostgres(text: string): Parsed | undefined {
  const [prefix, time, severity] = POSTGRES.exec(text) ?? [];
  if (prefix === undefined || time === undefined || severity === undefined) return undefined;
  const level = CONTINUES.test(severity) ? undefined : levelNamed(severity.replace(/\d$/, ''));
  const message = text.slice(prefix.length);
  return {
    time: `${time.replace(' ', 'T')}Z`,
    level,
    message: level === undefined ? `${severity}: ${message}` : message,
    fields: {},
  };
}

function parseNginxError(text: string): Parsed | undefined {
  const [prefix, year, month, day, clock, level] = NGINX_ERROR.exec(text) ?? [];
  if (prefix === undefined) return undefined;
  const time = `${year}-${month}-${day}T${clock}Z`;
  return { time, level: levelNamed(level), message: text.slice(prefix.length), fields: {} };
}

/** What says its level, as logfmt does, or nothing. */
function parseText(text: string): Parsed {
  return { level: levelNamed(LOGFMT_LEVEL.exec(text)?.[1]), message: text, fields: {} };
}

function firstWord(text: string): string {
  return POSTGRES.exec(text)?.[2] ?? /^[A-Z]+/.exec(text)?.[0] ?? '';
}

function levelNamed(name: unknown): Level | undefined {
  return typeof name === 'string' ? LEVEL_OF[name.toLowerCase()] : undefined;
}

function timeOf(time: unknown): { time?: string } {
  if (typeof time !== 'string') return {};
  if (/Z$/.test(time)) return { time };
  const moment = Date.parse(time);
  return Number.isNaN(moment) ? {} : { time: new Date(moment).toISOString() };
}

function nineDigits(time: string | undefined): string | undefined {
  const [, seconds, fraction = ''] = /^(.{19})(?:\.(\d+))?Z$/.exec(time ?? '') ?? [];
  return seconds === undefined ? undefined : `${seconds}.${fraction.padEnd(9, '0')}Z`;
}

/** @returns whether an entry is wanted */
export function createFilter({ request, level = 'debug' }: Query): (entry: Entry) => boolean {
  const least = LEVELS.indexOf(level);
  const named = request === undefined ? undefined : asWord(request);
  return ({ level: own, text }) => LEVELS.indexOf(own) <= least && (named === undefined || named(text));
}

/** Whether the line names it and not only a longer one that begins so; some lines name several requests. */
function asWord(id: string): (text: string) => boolean {
  const word = new RegExp(`(?<![A-Za-z0-9._-])${escaped(id)}(?![A-Za-z0-9._-])`);
  return (text) => text.includes(id) && word.test(text);
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\-]/g, '\\$&');
}

/** Several logs, each in order of time, as one. Reads no further ahead than one entry of each. */
export async function* merge(sources: readonly AsyncIterator<Entry>[]): AsyncGenerator<Entry, void> {
  const heads: { readonly source: AsyncIterator<Entry>; readonly entry: Entry }[] = [];
  const advance = async (source: AsyncIterator<Entry>) => {
    const next: IteratorResult<Entry, unknown> = await source.next();
    if (next.done !== true) heads.push({ source, entry: next.value });
  };
  await Promise.all(sources.map(advance));
  for (;;) {
    const first = earliest(heads.map(({ entry }) => entry));
    if (first === undefined) return;
    const [{ source, entry }] = heads.splice(first, 1) as [(typeof heads)[number]];
    yield entry;
    await advance(source);
  }
}

function earliest(entries: readonly Entry[]): number | undefined {
  let first: number | undefined;
  entries.forEach(({ time }, index) => {
    if (first === undefined || time < (entries[first]?.time ?? '')) first = index;
  });
  return first;
}

/** In order of time; of the same moment, in the order in which they came. */
export function inOrder(entries: readonly Entry[]): Entry[] {
  return [...entries].sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
}

/** Fields that the words of an entry have in another place, or that say what the container says. */
const SAID = new Set(['request_id', 'method', 'path', 'status']);

/** An entry in one line for people: when, who, how bad, which request, what. @param prefix of the containers' names */
export function describe(entry: Entry, prefix: string): string {
  const { time, container, level, message, fields } = entry;
  const name = container.startsWith(`${prefix}-`) ? container.slice(prefix.length + 1) : container;
  const request = typeof fields['request_id'] === 'string' ? fields['request_id'] : '-';
  const line = requestLine(fields);
  const words = line === '' || message === line ? message : `${message} ${line}`;
  const rest = Object.entries(fields)
    .filter(([field, value]) => !SAID.has(field) && value !== '' && value !== null)
    .map(([field, value]) => `${field}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const when = time === '' ? '-'.padEnd(23) : time.slice(0, 23).replace('T', ' ');
  return [when, name.padEnd(16), level.padEnd(5), request, printable([words, ...rest].join(' '))].join('  ');
}

/** A line stays a line, and commands to the terminal stay text. */
function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (one) => JSON.stringify(one).slice(1, -1));
}

/** An entry as one JSON object in a line. */
export function toJson({ time, container, component, level, message, fields }: Entry): string {
  return JSON.stringify({ time, container, component, level, request_id: fields['request_id'], message, fields });
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** `15m`, `2h`, `1d` before now, or an ISO 8601 time, as the time of an entry; undefined where it is none. */
export function sinceWhen(text: string, now: Date): string | undefined {
  const [, number, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const moment =
    number !== undefined && unit !== undefined
      ? now.getTime() - Number(number) * (UNITS[unit] ?? 1) * 1_000
      : /^\d{4}-\d\d-\d\d/.test(text)
        ? Date.parse(text)
        : NaN;
  return Number.isNaN(moment) ? undefined : nineDigits(new Date(moment).toISOString());
}
