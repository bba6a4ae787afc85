import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { image, missingForContainers, run } from '../ops/binaries';
import { until } from './harness';

/** A real Prometheus for tests: the one of this machine, else that of the stack's image. */

type Tool = 'prometheus' | 'promtool';

const onThisMachine = run('prometheus', ['--version']).status === 0;

/** Why there is none here, or undefined. */
export const noPrometheus =
  onThisMachine || missingForContainers(['prometheus']) === undefined
    ? undefined
    : `no prometheus on the PATH, and ${missingForContainers(['prometheus'])}`;

/** @param name of the container, where it is one */
function command(tool: Tool, directory: string, args: readonly string[], name?: string): [string, string[]] {
  if (onThisMachine) return [tool, [...args]];
  return [
    'docker',
    [
      ...['run', '--rm', '--network', 'host', '--volume', `${directory}:${directory}`],
      ...['--user', `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`],
      ...(name === undefined ? [] : ['--name', name]),
      ...['--entrypoint', tool, image('prometheus'), ...args],
    ],
  ];
}

/** Below the path that it has in the stack. */
export const addressOf = (port: number): string => `http://127.0.0.1:${port}/prometheus`;

interface Options {
  /** Free: whoever is to ask it may have to know before it runs. */
  readonly port: number;
  /** Ports of this machine that are scraped as containers of the API. */
  readonly api: readonly number[];
  readonly environment: string;
  /** In the format of rule files. */
  readonly rules?: readonly object[];
  readonly past?: Past;
}

export interface TestPrometheus {
  readonly url: string;
  /** What it answers to the expression at the time, which is in seconds; without a time: now. */
  query(expression: string, at?: number): Promise<{ labels: Record<string, string>; value: number }[]>;
  /** Gone from one moment to the next. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** It scrapes and evaluates every second. Resolves when it has scraped. */
export async function startPrometheus({ port, api, environment, rules = [], past }: Options): Promise<TestPrometheus> {
  const directory = mkdtempSync(join(tmpdir(), 'prometheus-'));
  chmodSync(directory, 0o755);
  const data = join(directory, 'data');
  mkdirSync(data);
  const url = addressOf(port);
  writeFileSync(join(directory, 'rules.yml'), stringify({ groups: [{ name: 'test', rules }] }));
  writeFileSync(
    join(directory, 'prometheus.yml'),
    stringify({
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [join(directory, 'rules.yml')],
      scrape_configs: [
        {
          job_name: 'api',
          static_configs: [
            { targets: api.map((target) => `127.0.0.1:${target}`), labels: { env: environment, track: 'stable' } },
          ],
        },
      ],
    }),
  );
  if (past !== undefined) {
    const file = join(directory, 'past.txt');
    writeFileSync(file, past.toString());
    // With blocks of two hours, as usually, it reads the file once for each.
    const make = ['tsdb', 'create-blocks-from', 'openmetrics', '--max-block-duration=720h', file, data];
    const [program, args] = command('promtool', directory, make);
    const { status, output } = run(program, args);
    if (status !== 0) throw new Error(`promtool cannot make blocks of the past:\n${output}`);
  }
  const name = `prometheus-test-${port}`;
  const [program, args] = command(
    'prometheus',
    directory,
    [
      `--config.file=${join(directory, 'prometheus.yml')}`,
      `--storage.tsdb.path=${data}`,
      '--storage.tsdb.retention.time=60d',
      `--web.listen-address=127.0.0.1:${port}`,
      `--web.external-url=${url}/`,
      '--web.route-prefix=/prometheus',
    ],
    name,
  );
  let output = '';
  const child: ChildProcess = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  for (const stream of [child.stdout, child.stderr]) stream!.on('data', (text: Buffer) => (output += text.toString()));
  const ended = once(child, 'exit');
  const end = async (signal: 'KILL' | 'TERM') => {
    if (child.exitCode === null && child.signalCode === null) {
      if (onThisMachine) child.kill(`SIG${signal}`);
      else run('docker', ['kill', '--signal', signal, name]);
    }
    await ended;
  };
  const prometheus: TestPrometheus = {
    url,
    async query(expression, at) {
      const parameters = new URLSearchParams({ query: expression, ...(at !== undefined && { time: String(at) }) });
      const response = await fetch(`${url}/api/v1/query?${parameters.toString()}`);
      type Answered = { resultType: 'vector'; result: { metric: Record<string, string>; value: [number, string] }[] };
      const { data: answer } = (await response.json()) as { data: Answered };
      return answer.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
    },
    kill: () => end('KILL'),
    async stop() {
      await end('KILL');
      rmSync(directory, { recursive: true, force: true });
    },
  };
  try {
    await until(async () => {
      if (child.exitCode !== null) throw new Error('it ended');
      const up = await prometheus.query('up{job="api"} == 1').catch(() => []);
      return up.length === api.length;
    }, 30_000);
  } catch (error) {
    await prometheus.stop();
    throw new Error(`Prometheus did not start: ${String(error)}\n${output.slice(-2_000)}`);
  }
  return prometheus;
}

/** What was measured before a test began. */
export class Past {
  readonly #lines = new Map<string, string[]>();

  /** @param at in seconds */
  add(name: string, labels: Readonly<Record<string, string>>, value: number, at: number): void {
    const lines = this.#lines.get(name) ?? [`# TYPE ${name} gauge`];
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
    lines.push(`${name}{${pairs.join(',')}} ${value} ${at}`);
    this.#lines.set(name, lines);
  }

  /** In OpenMetrics. */
  toString(): string {
    return [...[...this.#lines.values()].flat(), '# EOF', ''].join('\n');
  }
}
