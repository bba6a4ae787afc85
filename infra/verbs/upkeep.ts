import { docker, tryDocker } from '../deploy/engine';
import { environmentOf } from '../operator';
import { DATABASE_FACTS, type DatabaseFacts, describeUpkeep, VACUUM_PROGRESS, vacuumStatements } from '../ops/upkeep';
import { inTurnOf } from '../settings';
import { running } from './alerts';

const PROGRESS_MS = 5_000;

/**
 * `make upkeep`: how large the database and its tables are, how many dead rows they have and when they were vacuumed.
 * @param args `--vacuum` vacuums and analyzes them all first. In turn: a migration would not get its locks meanwhile.
 */
export async function upkeep(stack: string, args: readonly string[]): Promise<void> {
  const container = await running(stack, 'database');
  const { name } = environmentOf(stack).database;
  const command = ['exec', container, 'psql', '--no-psqlrc', '--quiet', '--tuples-only', '--no-align'];
  const psql = [...command, '--set', 'ON_ERROR_STOP=1', '--dbname', name];
  const ask = async () =>
    JSON.parse(await docker('Asking the database', [...psql, '--command', DATABASE_FACTS])) as DatabaseFacts;
  if (args.includes('--vacuum')) {
    await inTurnOf(stack, async () => {
      const { tables } = await ask();
      for (const [index, { name: table }] of tables.entries()) {
        await vacuum(psql, table, `${index + 1} of ${tables.length}`);
      }
    });
  }
  console.log(describeUpkeep(stack, await ask()));
}

/** Says how far it is, every now and then. One that is cut off by Ctrl-C loses nothing: the next one goes on. */
async function vacuum(psql: readonly string[], table: string, place: string): Promise<void> {
  const begun = Date.now();
  const timer = setInterval(() => {
    void tryDocker([...psql, '--field-separator', ' ', '--command', VACUUM_PROGRESS]).then(({ stdout }) => {
      const line = stdout.split('\n').find((each) => each.startsWith(`${table} `));
      if (line !== undefined) console.log(`  ${line} %`);
    });
  }, PROGRESS_MS);
  try {
    const statements = vacuumStatements(table).flatMap((statement) => ['--command', statement]);
    await docker(`Vacuum of ${table}`, [...psql, ...statements]);
  } finally {
    clearInterval(timer);
  }
  console.log(`${place}: ${table}, ${((Date.now() - begun) / 1_000).toFixed(1)} s`);
}
