import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { Agent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import images from '../../infra/images.json';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { send } from './load';

/** One request followed through everything that saw it, on a real engine, with a collector of the test. */

jest.setTimeout(600_000);

/** Prints what it gets, a line a request. */
const COLLECTOR = `require('node:http').createServer((request, response) => {
  let text = '';
  request.on('data', (chunk) => (text += chunk));
  request.on('end', () => { console.log(text.replaceAll('\\n', ' ')); response.end('{}'); });
}).listen(4318);
process.on('SIGTERM', () => process.exit(0));`;

/** Longer than the objective of 0.2 s, shorter than a statement may take. */
const SLOW_SECONDS = 0.7;

interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly service: string;
}

interface Exemplar {
  readonly labels: { readonly trace_id: string };
  readonly value: string;
}

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'traces', () => {
  let environment: TestEnvironment;
  let agent: Agent;
  const collector = () => `${environment.prefix}-collector`;

  beforeAll(async () => {
    environment = await TestEnvironment.create('development', (settings) => {
      settings['branchloans:tracing'] = { endpoint: 'http://collector:4318', sampleRatio: 1 };
    });
    // No collector is there yet, which is to harm nothing.
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    const where = ['--network', `${environment.prefix}-front`, '--network-alias', 'collector', '--name', collector()];
    docker(['run', '--detach', ...where, '--entrypoint', 'node', images.node, '-e', COLLECTOR]);
    agent = new Agent({ keepAlive: true, ca: environment.authority });
  });
  afterAll(async () => {
    agent.destroy();
    docker(['rm', '--force', collector()]);
    await environment.remove();
  });

  const received = (): Span[] =>
    docker(['logs', collector()])
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .flatMap((line) => (JSON.parse(line) as Otlp).resourceSpans)
      .flatMap(({ resource, scopeSpans }) => {
        const service = resource.attributes.find(({ key }) => key === 'service.name')?.value.stringValue ?? '';
        return scopeSpans.flatMap(({ spans }) => spans.map((span) => ({ ...span, service })));
      });
  /** JSON lines of a container's log that are of a request. */
  const logged = (container: string, id: string) =>
    docker(['logs', container])
      .split('\n')
      .filter((line) => line.startsWith('{') && line.includes(id))
      .map((line) => JSON.parse(line) as Record<string, string>);
  const until = async <T>(look: () => T | undefined | Promise<T | undefined>): Promise<T> => {
    for (let attempt = 0; attempt < 90; attempt += 1) {
      const found = await look();
      if (found !== undefined) return found;
      await sleep(1_000);
    }
    throw new Error('not seen within 90 s');
  };

  it('follows a slow request by its id: gateway, API, SQL, and the exemplar that Prometheus has of it', async () => {
    const id = randomUUID();
    const body = { borrower_id: 'usr_traced', amount: '100.25', currency: 'KES' };
    const lock = `LOCK TABLE loans IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(${SLOW_SECONDS})`;
    const psql = ['exec', `${environment.prefix}-database`, 'psql', '--dbname', 'branchloans_dev', '--command', lock];
    const locked = promisify(execFile)('docker', psql);
    await until(() => {
      const waiting = environment.sql("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted");
      return waiting.trim() === '' ? undefined : true;
    });
    const { status } = await send(agent, `${environment.url}/api/v1/loans`, {
      method: 'POST',
      headers: { 'x-request-id': id },
      body,
    });
    await locked;
    expect(status).toBe(201);

    const [gatewayLine] = await until(() => nonEmpty(logged(`${environment.prefix}-gateway`, id)));
    const trace = gatewayLine.trace_id!;
    expect(trace).toMatch(/^[0-9a-f]{32}$/);
    const [api = ''] = environment.apiContainers();
    const lines = logged(api, id);
    expect(lines.map(({ message }) => message)).toEqual(['slow query', 'loan created', 'request']);
    expect(new Set(lines.map(({ trace_id }) => trace_id))).toEqual(new Set([trace]));

    // The gateway's span, below it that of the API, below that the statement.
    const spans = await until(() => nonEmpty(received().filter(({ traceId }) => traceId === trace)));
    const gateway = spans.find(({ service }) => service === 'branchloans-gateway');
    const request = spans.find(({ name, service }) => name.startsWith('POST /api/') && service === 'branchloans-api');
    const statement = spans.find(({ name }) => name === 'loan_insert');
    expect(gateway?.spanId).toBe(gatewayLine.span_id);
    expect(request).toMatchObject({ parentSpanId: gateway?.spanId, spanId: lines[0]?.span_id });
    expect(statement?.parentSpanId).toBe(request?.spanId);

    const exemplar = await until(async () => (await exemplars()).find(({ labels }) => labels.trace_id === trace));
    expect(Number(exemplar.value)).toBeGreaterThan(0.2);
    expect(docker(['logs', collector()])).not.toMatch(/usr_traced|100\.25/);
  });

  /** Of requests that took longer than the objective, by Prometheus. */
  async function exemplars(): Promise<Exemplar[]> {
    const query = 'http_request_duration_seconds_bucket{route=~"/api/.*loans"}';
    const now = Date.now() / 1_000;
    const range = `start=${now - 600}&end=${now + 60}`;
    const path = `/prometheus/api/v1/query_exemplars?query=${encodeURIComponent(query)}&${range}`;
    const user = Buffer.from(`admin:${environment.output('prometheusPassword')}`).toString('base64');
    const { body } = await send(agent, environment.url + path, {
      method: 'GET',
      headers: { authorization: `Basic ${user}` },
    });
    const { data } = JSON.parse(body) as { data: readonly { readonly exemplars: Exemplar[] }[] };
    return data.flatMap((series) => series.exemplars);
  }

  it('a second deploy of the same changes nothing', async () => {
    docker(['network', 'disconnect', `${environment.prefix}-front`, collector()]);
    expect(await environment.changes()).toBe('');
  });
});

function nonEmpty<T>(list: readonly T[]): readonly [T, ...T[]] | undefined {
  const [first, ...others] = list;
  return first === undefined ? undefined : [first, ...others];
}

interface Otlp {
  readonly resourceSpans: readonly {
    readonly resource: {
      readonly attributes: readonly { readonly key: string; readonly value: { readonly stringValue?: string } }[];
    };
    readonly scopeSpans: readonly { readonly spans: readonly Omit<Span, 'service'>[] }[];
  }[];
}
