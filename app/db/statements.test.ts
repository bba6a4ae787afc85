import fc from 'fast-check';
import { statementsOf } from './statements';

it('knows where a statement ends, and where it begins in the file', () => {
  const sql = `-- A comment; with 'a quote.
CREATE TABLE a (id int); /* another; one */ SELECT 'it''s; one', "a;""b", E'\\'; \\\\', $$ body; $$
  FROM a -- to the end;
  WHERE b$x$ = $body$ $$ ; $$ $body$;

;
SELECT 1 -- no semicolon`;
  expect(statementsOf(sql)).toEqual([
    { text: 'CREATE TABLE a (id int)', plain: 'CREATE TABLE a (id int)', line: 2 },
    {
      text: sql.slice(sql.indexOf("SELECT 'it"), sql.indexOf(';\n\n')),
      plain: 'SELECT \'\', "a;""b", \'\', $$ FROM a WHERE b$x$ = $$',
      line: 2,
    },
    { text: 'SELECT 1', plain: 'SELECT 1', line: 7 },
  ]);
  expect(statementsOf('-- nothing\n')).toEqual([]);
});

it('takes any file apart without losing a statement', () => {
  const part = fc.constantFrom(
    'SELECT a',
    '"x;y"',
    "'it''s; so'",
    "E'\\';'",
    '$$;$$',
    '$a$ $$;$$ $a$',
    '-- why; so\n',
    '/* ; */',
    '\n',
    'a$b',
    '1.5',
    '(',
  );
  const statement = fc.array(part, { maxLength: 5 }).map((parts) => `SELECT ${parts.join(' ')} b`);
  fc.assert(
    fc.property(fc.array(statement), (statements) => {
      const sql = statements.join(';\n');
      const found = statementsOf(sql);
      expect(found.map(({ text }) => text)).toEqual(statements);
      for (const { text, line } of found) {
        expect(
          sql
            .split('\n')
            .slice(line - 1)
            .join('\n'),
        ).toContain(text);
      }
    }),
  );
});
