/** How large the database is, and what its vacuums have left: the question, and the answer in words. No I/O. */

export interface Table {
  /** As in SQL, with its schema where that is not `public`. */
  readonly name: string;
  /** With indexes. */
  readonly bytes: number;
  readonly indexBytes: number;
  /** Estimates of the server. */
  readonly rows: number;
  readonly dead: number;
  /** ISO 8601; by hand or by the server itself; null: never since the statistics were last lost. */
  readonly vacuumed: string | null;
  readonly analyzed: string | null;
}

export interface DatabaseFacts {
  readonly name: string;
  /** ISO 8601, of the server. */
  readonly now: string;
  readonly bytes: number;
  /** Age of the oldest row that is not frozen, in percent of what makes the server vacuum by force. */
  readonly frozenPercent: number;
  /** The transaction that is open for longest; null where none is. Rows that died after its begin cannot go. */
  readonly oldest: { readonly process: number; readonly who: string; readonly seconds: number } | null;
  /** Constraints that hold for new rows, and that old ones break: `table: constraint`. */
  readonly violated: readonly string[];
  /** Largest first. */
  readonly tables: readonly Table[];
}

/** One row with one column: DatabaseFacts as JSON. */
export const DATABASE_FACTS = `SELECT json_build_object(
  'name', current_database(),
  'now', now(),
  'bytes', pg_database_size(current_database()),
  'frozenPercent', (SELECT round(100.0 * age(datfrozenxid) / current_setting('autovacuum_freeze_max_age')::numeric)
    FROM pg_database WHERE datname = current_database()),
  'oldest', (SELECT json_build_object('process', pid, 'seconds', extract(epoch FROM clock_timestamp() - xact_start),
      'who', concat_ws(', ', nullif(application_name, ''), usename, state))
    FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
      AND backend_type = 'client backend'
    ORDER BY xact_start LIMIT 1),
  'violated', (SELECT coalesce(json_agg(conrelid::regclass || ': ' || conname ORDER BY conrelid::regclass::text, conname), '[]')
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND NOT convalidated),
  'tables', (SELECT coalesce(json_agg(json_build_object(
      'name', CASE schemaname WHEN 'public' THEN quote_ident(relname) ELSE format('%I.%I', schemaname, relname) END,
      'bytes', pg_total_relation_size(relid), 'indexBytes', pg_indexes_size(relid), 'rows', n_live_tup, 'dead', n_dead_tup,
      'vacuumed', greatest(last_vacuum, last_autovacuum), 'analyzed', greatest(last_analyze, last_autoanalyze))
      ORDER BY pg_total_relation_size(relid) DESC, relname), '[]')
    FROM pg_stat_user_tables))`;

/**
 * Statements for one session. Beside reads and writes, at the pace of the server's own vacuum; the file is not cut
 * short at its end, since that is the one thing that others would wait for.
 */
export function vacuumStatements(table: string): string[] {
  return ['SET vacuum_cost_delay = 2', `VACUUM (ANALYZE, TRUNCATE false) ${table}`];
}

/** How far vacuums are: rows of `table, phase, percent`. */
export const VACUUM_PROGRESS = `SELECT relid::regclass, phase, 100 * heap_blks_scanned / greatest(heap_blks_total, 1)
  FROM pg_stat_progress_vacuum WHERE datname = current_database()`;

/** From here on a table has more dead rows than the server's own vacuum usually leaves. */
const MANY_DEAD = { rows: 1_000, share: 0.2 };
const LONG_TRANSACTION_SECONDS = 300;
/** The server begins by force at 100. */
const OLD_PERCENT = 120;

/** Sizes and vacuums as a table, and what of it wants somebody's attention. */
export function describeUpkeep(stack: string, facts: DatabaseFacts): string {
  const { name, bytes, tables, now } = facts;
  const head = ['table', 'size', 'indexes', 'rows', 'dead', 'vacuumed', 'analyzed'];
  const lines = tables.map((table) => [
    table.name,
    size(table.bytes),
    size(table.indexBytes),
    count(table.rows),
    count(table.dead),
    ago(table.vacuumed, now),
    ago(table.analyzed, now),
  ]);
  const hints = hintsOf(stack, facts);
  return [
    `${stack}: the database ${name} has ${size(bytes)}.`,
    aligned([head, ...lines]),
    hints.length === 0 ? 'Nothing wants attention.' : hints.map((hint) => `  - ${hint}`).join('\n'),
  ].join('\n\n');
}

function hintsOf(stack: string, { frozenPercent, oldest, tables, violated }: DatabaseFacts): string[] {
  const dead = tables.filter((table) => isFullOfDead(table)).map((table) => table.name);
  return [
    ...(oldest !== null && oldest.seconds > LONG_TRANSACTION_SECONDS
      ? [
          `Process ${oldest.process} (${oldest.who}) has had a transaction open for ${span(oldest.seconds)}: no row that died since can go. ` +
            `End it where it was begun, or by SELECT pg_terminate_backend(${oldest.process}).`,
        ]
      : []),
    ...(violated.length > 0
      ? [
          `Old rows break constraints: ${violated.join(', ')}. New rows cannot. The log of the last migration names the rows ` +
            '(docs/MIGRATIONS.md); once they are right, the next up validates the constraints.',
        ]
      : []),
    ...(dead.length > 0
      ? [
          `Many dead rows: ${dead.join(', ')}. The server cleans up by itself; at once: make upkeep STACK=${stack} VACUUM=1`,
        ]
      : []),
    ...(frozenPercent > OLD_PERCENT
      ? [
          `Rows have been unfrozen for ${frozenPercent} % of what makes the server vacuum by force, so something holds that up: ` +
            `a transaction (above), or VACUUM fails (make logs STACK=${stack} CONTAINER=database).`,
        ]
      : []),
  ];
}

function isFullOfDead({ rows, dead }: Table): boolean {
  return dead > MANY_DEAD.rows && dead > MANY_DEAD.share * (rows + dead);
}

function aligned(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const cell = (text: string, column: number) => {
    const width = widths[column] ?? 0;
    return column === 0 ? text.padEnd(width) : text.padStart(width);
  };
  return rows.map((row) => row.map(cell).join('  ').trimEnd()).join('\n');
}

function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const at = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** at).toFixed(at === 0 ? 0 : 1)} ${units[at] ?? ''}`;
}

const count = (number: number) => number.toLocaleString('en');

function ago(moment: string | null, now: string): string {
  return moment === null ? 'never' : `${span((Date.parse(now) - Date.parse(moment)) / 1_000)} ago`;
}

function span(seconds: number): string {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}
