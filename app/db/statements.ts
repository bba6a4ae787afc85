/** One statement of a file of SQL. */
export interface Statement {
  /** As it is written, from its first word, without the semicolon. */
  readonly text: string;
  /** The same in one line, without comments and without what is in quotes: for whoever looks for key words. */
  readonly plain: string;
  /** Of its first word in the file, from 1. */
  readonly line: number;
}

/**
 * What Postgres reads as one: comments, quoted text, names, and semicolons. Not known: comments in comments, and function
 * bodies in BEGIN ATOMIC, which have semicolons of their own (tests/migrations/lint.ts refuses those).
 */
const TOKENS = new RegExp(
  [
    /--.*/,
    /\/\*[^]*?\*\//,
    /[eE]'(?:[^'\\]|\\[^]|'')*'/,
    /'(?:[^']|'')*'/,
    /"(?:[^"]|"")*"/,
    /\$(?<tag>(?:[A-Za-z_]\w*)?)\$[^]*?\$\k<tag>\$/,
    /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/,
    /[^]/,
  ]
    .map(({ source }) => source)
    .join('|'),
  'g',
);

/** Takes a file of SQL apart. What stands after the last semicolon is a statement, too. */
export function statementsOf(sql: string): Statement[] {
  const statements: Statement[] = [];
  let start: number | undefined;
  let end = 0;
  let plain = '';
  const finish = () => {
    if (start === undefined) return;
    const line = sql.slice(0, start).split('\n').length;
    statements.push({ text: sql.slice(start, end), plain: plain.replace(/\s+/g, ' ').trim(), line });
    start = undefined;
    plain = '';
  };
  for (const { 0: token, index } of sql.matchAll(TOKENS)) {
    if (token === ';') {
      finish();
    } else if (/^(?:--|\/\*|\s)/.test(token)) {
      plain += ' ';
    } else {
      start ??= index;
      end = index + token.length;
      plain += token.replace(/^[eE]?'.*'$/s, "''").replace(/^\$.*?\$.*$/s, '$$$$');
    }
  }
  finish();
  return statements;
}
