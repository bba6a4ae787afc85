import { parseArgs } from 'node:util';
import { API_KEY_USAGE, type ApiKeyCommand, readApiKeyCommand, runApiKeyCommand } from './api-key-command';
import { isWorker, joinCluster, leaveCluster, runPrimary } from './cluster';
import { type Config, ConfigError, readConfig, type Secrets } from './config';
import { ApiKeyError, createApiKeys } from './db/api-keys';
import { migrate, type MigrationResult } from './db/migrate';
import { type Database, openDatabase } from './db/pool';
import { recount, recountLedgers } from './db/recount';
import { generate, seed } from './db/samples';
import { Problem } from './errors';
import { applyRetention } from './retention';
import { createService, type Service } from './service';
import { containerName } from './telemetry/container';
import { createLogger, type Logger } from './telemetry/logger';
import { createMetrics } from './telemetry/metrics';
import { withoutSecrets } from './telemetry/secrets';

const USAGE = `usage: main [command]

  serve                          serve the API until SIGTERM (default)
  migrate                        bring the database schema to the newest version
  seed                           insert the five sample loans
  generate --count N [--seed S]  insert N made-up loans; the same seed gives the same loans
  retention [--dry-run]          replace the borrowers of loans closed RETENTION_YEARS ago by pseudonyms, for good;
                                 the service does so daily by itself
  recount [--dry-run]            compare the statistics with a count of all loans and ledgers, and correct them; a loan
                                 that cannot be counted is named, the others are done, and the command ends with 1
${API_KEY_USAGE}
Settings come from the environment; see app/config.ts.
`;

type Samples = { readonly name: 'seed' } | { readonly name: 'generate'; readonly count: number; readonly seed: number };
type Upkeep = { readonly name: 'retention' | 'recount'; readonly dryRun: boolean };
type OneShot = { readonly name: 'migrate' } | Samples | Upkeep;
type Command = { readonly name: 'serve' } | { readonly name: 'api-key'; readonly keys: ApiKeyCommand } | OneShot;

/** This is the only file that touches the process: arguments, environment, streams, signals and exit code. */
async function main(): Promise<number> {
  const command = readCommand(process.argv.slice(2));
  if (command === undefined) {
    process.stderr.write(USAGE);
    return 2;
  }
  try {
    const { config, secrets } = readConfig(process.env);
    if (command.name === 'serve') return await serve(config, secrets);
    if (command.name === 'api-key') return await manageKeys(command.keys, config, secrets);
    return await runOnce(command, config, secrets);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
}

function readCommand(args: readonly string[]): Command | undefined {
  if (args[0] === 'api-key') {
    const keys = readApiKeyCommand(args.slice(1));
    return keys && { name: 'api-key', keys };
  }
  try {
    const { positionals, values } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { count: { type: 'string' }, seed: { type: 'string' }, 'dry-run': { type: 'boolean' } },
    });
    const [name = 'serve', ...rest] = positionals;
    if (rest.length > 0) return undefined;
    const options = Object.keys(values);
    if (name === 'retention' || name === 'recount') {
      return options.every((option) => option === 'dry-run') ? { name, dryRun: values['dry-run'] ?? false } : undefined;
    }
    if (values['dry-run'] !== undefined) return undefined;
    if (name === 'generate') return readGenerate(values.count, values.seed ?? '1');
    const plain = options.length === 0;
    return plain && (name === 'serve' || name === 'migrate' || name === 'seed') ? { name } : undefined;
  } catch {
    return undefined; // An option that does not exist.
  }
}

function readGenerate(count: string | undefined, seedText: string): Command | undefined {
  if (count === undefined || !/^[1-9]\d{0,7}$/.test(count) || !/^\d{1,9}$/.test(seedText)) return undefined;
  return { name: 'generate', count: Number(count), seed: Number(seedText) };
}

async function serve(config: Config, secrets: Secrets): Promise<number> {
  if (isWorker()) return serveAsWorker(config, secrets);
  return config.processes > 1 ? servePrimary(config) : serveAlone(config, secrets);
}

async function serveAlone(config: Config, secrets: Secrets): Promise<number> {
  const stopRequested = signalled();
  const service = createService(config, secrets, { logDestination: process.stdout, container: containerName() });
  return runUntil(stopRequested, service);
}

async function serveAsWorker(config: Config, secrets: Secrets): Promise<number> {
  let stop: () => void = () => undefined;
  const told = new Promise<void>((resolve) => (stop = resolve));
  const stopRequested = Promise.race([signalled(), told]);
  const service: Service = createService(config, secrets, {
    logDestination: process.stdout,
    metricsText: (format) => membership.metricsText(format),
  });
  const membership = joinCluster(service.metrics.registry, stop);
  const code = await runUntil(stopRequested, service);
  leaveCluster();
  return code;
}

async function servePrimary(config: Config): Promise<number> {
  const stopRequested = signalled();
  const logger = createLogger(config.logLevel, process.stdout);
  const primary = runPrimary(config.processes, logger, containerName());
  try {
    await Promise.race([stopRequested, primary.failed]);
  } catch (error) {
    logger.log('error', 'cannot start', { reason: messageOf(error) });
    await primary.stop(0);
    return 1;
  }
  // A little longer than a worker gives itself, and what is left to send of its traces.
  const well = await primary.stop(config.drainMs + config.shutdownTimeoutMs + 4_000);
  return well ? 0 : 1;
}

async function runUntil(stopRequested: Promise<void>, service: Service): Promise<number> {
  try {
    await service.start();
  } catch (error) {
    service.logger.log('error', 'cannot start', { reason: messageOf(error) });
    await service.stop();
    return 1;
  }
  process.once('uncaughtException', (error) => {
    // It ends the process, as without this, and is told of before.
    process.stderr.write(`${withoutSecrets(error.stack ?? String(error))}\n`);
    void service.tracing.unhandled(error).finally(() => process.exit(1));
  });
  await stopRequested;
  await service.stop();
  return 0;
}

function signalled(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve());
  });
}

/** Runs a command that ends, and logs its result in one line. */
async function runOnce(command: OneShot, config: Config, secrets: Secrets): Promise<number> {
  const logger = createLogger(config.logLevel, process.stdout);
  const startedAt = performance.now();
  try {
    const result = await (command.name === 'migrate'
      ? migrateAndWarn(config, secrets, logger)
      : withDatabase(config, secrets, logger, (database) => runOn(database, command, config)));
    const complete = !('failed' in result);
    logger.log(
      complete ? 'info' : 'error',
      complete ? `${command.name} done` : `${command.name} done but for some loans`,
      {
        ...result,
        duration_ms: Math.round(performance.now() - startedAt),
      },
    );
    return complete ? 0 : 1;
  } catch (error) {
    logger.log('error', `${command.name} failed`, {
      reason: messageOf(error instanceof Problem ? error.cause : error),
    });
    return 1;
  }
}

async function migrateAndWarn(config: Config, secrets: Secrets, logger: Logger): Promise<MigrationResult> {
  const result = await migrate(config.database, secrets);
  for (const violation of result.violated ?? []) {
    logger.log('warn', 'old rows break a constraint; new ones cannot. Correct them, and migrate validates it', {
      ...violation,
    });
  }
  return result;
}

/** A new key is written to standard output and nowhere else; whatever else is to be said goes beside it. */
async function manageKeys(command: ApiKeyCommand, config: Config, secrets: Secrets): Promise<number> {
  const logger = createLogger(config.logLevel, process.stderr);
  try {
    const { stdout, stderr } = await withDatabase(config, secrets, logger, (database) =>
      runApiKeyCommand(command, createApiKeys(database, config.environment), new Date()),
    );
    process.stderr.write(stderr);
    process.stdout.write(stdout);
    return 0;
  } catch (error) {
    if (!(error instanceof ApiKeyError || error instanceof Problem)) throw error;
    process.stderr.write(`${messageOf(error instanceof Problem ? (error.cause ?? error) : error)}\n`);
    return 1;
  }
}

async function withDatabase<T>(
  config: Config,
  secrets: Secrets,
  logger: Logger,
  work: (database: Database) => Promise<T>,
): Promise<T> {
  const patient = { ...config.database, statementTimeoutMs: 0, poolSize: 1 };
  const database = openDatabase(patient, secrets, { metrics: createMetrics(config), logger });
  try {
    return await work(database);
  } finally {
    await database.close();
  }
}

async function runOn(database: Database, command: Samples | Upkeep, config: Config): Promise<object> {
  const now = new Date();
  switch (command.name) {
    case 'seed':
      return { inserted: await seed(database, now) };
    case 'generate':
      return { inserted: await generate(database, command.count, command.seed, now), seed: command.seed };
    case 'retention':
      return applyRetention(database, config.retentionYears, { now, dryRun: command.dryRun });
    case 'recount': {
      const { principalCorrected, settlementsWritten, failed } = await recountLedgers(database, command.dryRun, now);
      return {
        dry_run: command.dryRun,
        principal_corrected: principalCorrected,
        settlements_written: settlementsWritten,
        corrections: await recount(database, command.dryRun),
        ...(failed.length > 0 && { failed }),
      };
    }
  }
}

function messageOf(error: unknown): string {
  // Several addresses of one host, none of which answered.
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ');
  return error instanceof Error ? error.message : String(error);
}

void main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exitCode = 1;
  },
);
