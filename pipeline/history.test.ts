import { writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { type History, historyOf, isOvertaken, mayBecomeLatest, type Order } from './history';
import { publish } from './publish';
import { deploy } from './deploy';
import { sha256 } from './layout';
import type { Run } from './run';

const commitOf = (index: number) => index.toString(16).padStart(40, '0');
const indexOf = (commit: string) => Number.parseInt(commit, 16);

/** A history as git has it: each commit names older ones as its parents; the first has none. */
const histories = fc
  .array(fc.tuple(fc.nat(), fc.option(fc.nat())), { minLength: 1, maxLength: 12 })
  .map((drawn) => [
    [],
    ...drawn.map(([first, second], index) => [
      ...new Set([first % (index + 1), ...(second === null ? [] : [second % (index + 1)])]),
    ]),
  ]);

function contains(parents: readonly (readonly number[])[], newer: number, older: number): boolean {
  return newer === older || parents[newer]!.some((parent) => contains(parents, parent, older));
}

const orderIn =
  (parents: readonly (readonly number[])[]): History =>
  (base, head) => {
    const [older, newer] = [indexOf(base), indexOf(head)];
    const order: Order =
      older === newer
        ? 'identical'
        : contains(parents, newer, older)
          ? 'ahead'
          : contains(parents, older, newer)
            ? 'behind'
            : 'diverged';
    return Promise.resolve(order);
  };

/** Commits in the order in which their runs get there: any, and some twice. */
const arrivals = histories.chain((parents) =>
  fc.tuple(fc.constant(parents), fc.array(fc.nat({ max: parents.length - 1 }), { minLength: 1, maxLength: 15 })),
);

it('an environment never goes back to what it had, in whatever order the runs arrive', async () => {
  await fc.assert(
    fc.asyncProperty(arrivals, async ([parents, order]) => {
      let running: number | undefined;
      const history = orderIn(parents);
      for (const asked of order) {
        const before = running;
        const { outcome } = await deploy({
          current: () =>
            Promise.resolve(
              running === undefined ? undefined : { image: 'x', release: 'x', commit: commitOf(running) },
            ),
          overtakenBy: async ({ commit }) => isOvertaken(await history(commit!, commitOf(asked))),
          up: () => ((running = asked), Promise.resolve(true)),
          smoke: () => Promise.resolve(true),
          rollback: () => Promise.resolve(true),
          cancelled: () => false,
        });
        // Overtaken exactly by what has it in its history; everything else runs in the end.
        const overtaken = before !== undefined && before !== asked && contains(parents, before, asked);
        expect(outcome).toBe(overtaken ? 'superseded' : 'deployed');
        expect(running).toBe(overtaken ? before : asked);
      }
    }),
  );
});

it('latest moves only to what has in its history the commit that it is of', async () => {
  await fc.assert(
    fc.asyncProperty(arrivals, async ([parents, order]) => {
      // A registry: tag -> bytes of a manifest; each image says its commit.
      const tags = new Map<string, string>();
      const manifest = (reference: string) =>
        tags.get(reference.split(':').at(-1)!) ?? [...tags.values()].find((text) => reference.includes(sha256(text)));
      const run: Run = (_, args) => {
        const [verb] = args;
        const reference = args.at(-1)!.replace('docker://', '');
        if (verb === 'copy') {
          const source = manifest(args.at(-2)!) ?? args.at(-2)!.replace(/^.*@/, '');
          tags.set(reference.split(':').at(-1)!, bytes.get(source) ?? source);
          return answer('', args);
        }
        const text = manifest(reference);
        if (text === undefined) return Promise.resolve({ code: 1, stdout: '', stderr: 'manifest unknown' });
        if (!args.includes('--config')) return answer(text, args);
        const labels = { 'org.opencontainers.image.revision': commitOf(Number(text)) };
        return answer(JSON.stringify({ config: { Labels: labels } }), args);
      };
      const bytes = new Map(parents.map((_, index) => [sha256(String(index)), String(index)]));
      const digestfile = (args: readonly string[]) => args[args.indexOf('--digestfile') + 1]!;
      const answer = (stdout: string, args: readonly string[]) => {
        if (args[0] === 'copy') writeFileSync(digestfile(args), sha256(manifest(args.at(-1)!)!));
        return Promise.resolve({ code: 0, stdout, stderr: '' });
      };
      let latest: number | undefined;
      for (const asked of order) {
        const digest = sha256(String(asked));
        const spec = {
          source: { ref: `localhost:5000/from@${digest}` },
          image: 'localhost:5000/to',
          tag: commitOf(asked),
          digest,
          latest: 'published',
          credentials: undefined,
        } as const;
        const { latest: moved } = await publish(spec, orderIn(parents), run);
        const forwards = latest === undefined || contains(parents, asked, latest);
        expect(moved).toBe(forwards ? 'moved' : 'kept');
        if (forwards) latest = asked;
        expect(tags.get('latest')).toBe(String(latest));
      }
    }),
    { numRuns: 50 },
  );
});

it('only what is certain moves latest, and only what is certain stops a deploy', () => {
  const all = ['ahead', 'identical', 'behind', 'diverged', 'unknown'] as const;
  expect(all.filter(mayBecomeLatest)).toEqual(['ahead', 'identical']);
  expect(all.filter(isOvertaken)).toEqual(['behind']);
});

describe('GitHub', () => {
  let server: Server;
  let answers: [status: number, body: object][];
  const asked: string[] = [];
  beforeEach(async () => {
    asked.length = 0;
    server = createServer((request, response) => {
      asked.push(`${request.url ?? ''} ${request.headers.authorization ?? ''}`);
      const [status, body] = answers.shift() ?? [500, {}];
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  });
  afterEach(() => server.close());
  const compare = () => {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return historyOf(() => Promise.reject(new Error('no git')), { url, repository: 'me/loans', token: 't' })('a', 'b');
  };

  it.each(['ahead', 'identical', 'behind', 'diverged'])('says %s', async (status) => {
    answers = [[200, { status }]];
    expect(await compare()).toBe(status);
    expect(asked).toEqual(['/repos/me/loans/compare/a...b Bearer t']);
  });
  it('is asked again when it fails', async () => {
    answers = [
      [502, {}],
      [200, { status: 'behind' }],
    ];
    expect(await compare()).toBe('behind');
  });
  it('that stays silent decides nothing', async () => {
    answers = [];
    await expect(compare()).rejects.toThrow(/run the job again/);
    expect(asked).toHaveLength(3);
  });
  it('that has lost a commit tells of a history that was written anew', async () => {
    answers = [
      [404, {}],
      [200, {}],
    ];
    expect(await compare()).toBe('diverged');
  });
  it('that hides the repository decides nothing', async () => {
    answers = Array.from({ length: 6 }, () => [404, {}]);
    await expect(compare()).rejects.toThrow(/status 404.*run the job again/);
  });
});
