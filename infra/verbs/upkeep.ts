import { docker } from '../deploy/engine';
import { placeAt, runSql } from '../embedded/environment';
import { environmentOf, runsEmbedded } from '../operator';
import { DATABASE_FACTS, type DatabaseFacts, describeUpkeep, VACUUM_PROGRESS, vacuumStatements } from '../ops/upkeep';
import { inTurnOf } from '../settings';
import { running } from './alerts';

const PROGRESS_MS = 5_000;

/**
 * `make upkeep`: how large the database and its tables are, how many dead rows they have and when they were vacuumed.
 * @param args `--vacuum` vacuums and analyzes them all first. In turn: a migration would not get its locks meanwhile.
 */
export async function upkeep(stack: string, args: readonly string[]): Promise<void> {
  const isEmbedded = await runsEmbedded(stack);
  const sql = isEmbedded ? embeddedSql : await containerSql(stack);
  const ask = async () => JSON.parse(await sql('Asking the database', [DATABASE_FACTS])) as DatabaseFacts;
  const vacuumAll = async () => {
    const { tables } = await ask();
    for (const [index, { name: table }] of tables.entries()) {
      await vacuum(sql, table, `${index + 1} of ${tables.length}`);
    }
  };
  // Without containers nothing else is deployed meanwhile.
  if (args.includes('--vacuum')) await (isEmbedded ? vacuumAll() : inTurnOf(stack, vacuumAll));
  console.log(describeUpkeep(stack, await ask()));
}

/** Runs statements in one session. @returns their rows, one a line, with a blank between columns */
type Sql = (purpose: string, statements: readonly string[]) => Promise<string>;

const embeddedSql: Sql = (_purpose, statements) => runSql(placeAt(undefined), statements);

async function containerSql(stack: string): Promise<Sql> {
  const container = await running(stack, 'database');
  const { name } = environmentOf(stack).database;
  const command = ['exec', container, 'psql', '--no-psqlrc', '--quiet', '--tuples-only', '--no-align'];
  const psql = [...command, '--field-separator', ' ', '--set', 'ON_ERROR_STOP=1', '--dbname', name];
  return (purpose, statements) =>
    docker(purpose, [...psql, ...statements.flatMap((statement) => ['--command', statement])]);
}

/** Says how far it is, every now and then. One that is cut off by Ctrl-C loses nothing: the next one goes on. */
async function vacuum(sql: Sql, table: string, place: string): Promise<void> {
  const begun = Date.now();
  const timer = setInterval(() => {
    const show = (rows: string) => {
      const line = rows.split('\n').find((each) => each.startsWith(`${table} `));
      if (line !== undefined) console.log(`  ${line} %`);
    };
    sql('Asking how far it is', [VACUUM_PROGRESS]).then(show, () => undefined);
  }, PROGRESS_MS);
  try {
    await sql(`Vacuum of ${table}`, vacuumStatements(table));
  } finally {
    clearInterval(timer);
  }
  console.log(`${place}: ${table}, ${((Date.now() - begun) / 1_000).toFixed(1)} s`);
}
