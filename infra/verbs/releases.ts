import { StepError, tryDocker } from '../deploy/engine';
import { type Entry, type Ledger, read, withLedger } from '../deploy/ledger';
import { imageOf, prefixOf, useEngineOf } from '../operator';

/** What was deployed here, when, and what became of it. */
export async function releases(stack: string): Promise<void> {
  console.log(table(await ledgerOf(stack)));
}

/**
 * The ledger's entries, oldest first.
 * @throws StepError when the environment has none: then nothing was ever deployed
 */
export async function ledgerOf(stack: string): Promise<Entry[]> {
  useEngineOf(stack);
  const ledger: Ledger = { volume: `${prefixOf(stack)}-releases`, helperImage: imageOf(stack, 'nginx') };
  // Naming a volume that is not there would make it.
  if ((await tryDocker(['volume', 'inspect', ledger.volume])).code !== 0) {
    throw new StepError(
      `${stack} has no releases here: they are written where it runs in containers (make up STACK=${stack})`,
    );
  }
  return withCommits(await withLedger(ledger, read));
}

/** Where no setting named the commit, the release's image may know it, as long as the engine keeps it. */
async function withCommits(entries: readonly Entry[]): Promise<Entry[]> {
  const images = [...new Set(entries.filter(({ commit }) => commit === '').map(({ localImage }) => localImage))];
  if (images.length === 0) return [...entries];
  const format = '{{json .RepoTags}}\t{{json .Config.Labels}}';
  // One that is gone makes the command fail, the others are printed all the same.
  const { stdout } = await tryDocker(['image', 'inspect', '--format', format, ...images]);
  const known = new Map(
    stdout
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => {
        const [tags, labels] = line.split('\t').map((json) => JSON.parse(json) as unknown);
        const commit = (labels as Record<string, string> | null)?.['org.opencontainers.image.revision'] ?? '';
        return ((tags ?? []) as string[]).map((tag) => [tag, commit] as const);
      }),
  );
  return entries.map((entry) => ({ ...entry, commit: entry.commit || (known.get(entry.localImage) ?? '') }));
}

/** The release that has the traffic; undefined when none has. */
export function activeOf(entries: readonly Entry[]): Entry | undefined {
  return entries.findLast(({ outcome }) => outcome === 'active');
}

const COLUMNS: Readonly<Record<string, (entry: Entry) => string>> = {
  RELEASE: ({ id }) => id,
  'TIME (UTC)': ({ at }) => at.slice(0, 19).replace('T', ' '),
  OUTCOME: ({ outcome }) => outcome,
  SCHEMA: ({ schema }) => String(schema ?? '-'),
  CONFIGURATION: ({ configuration }) => configuration,
  COMMIT: ({ commit }) => commit.slice(0, 12) || 'unknown',
  IMAGE: ({ image }) => image,
};

/** Newest last, so that it stands above the prompt; a star marks what has the traffic. */
export function table(entries: readonly Entry[]): string {
  const active = activeOf(entries);
  const names = Object.keys(COLUMNS);
  const rows = entries.map((entry) => Object.values(COLUMNS).map((cell) => cell(entry)));
  const widths = names.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (mark: string, cells: readonly string[]) =>
    `${mark} ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd();
  return [
    line(' ', names),
    ...entries.flatMap((entry, index) => [
      line(entry === active ? '*' : ' ', rows[index] ?? []),
      ...(entry.reason === undefined ? [] : [`      ${entry.reason}`]),
    ]),
  ].join('\n');
}
