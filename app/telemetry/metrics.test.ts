import { AggregatorRegistry } from 'prom-client';
import { parseAmount } from '../domain/money';
import { FAILURES } from '../http/app';
import { OPERATIONS } from '../http/contract';
import { isUserRoute, readExposition } from '../sre/exposition';
import { expose } from './exposition';
import { type Book, createMetrics, type Metrics } from './metrics';

const create = () => createMetrics({ version: '1', commit: 'c', environment: 'test' });
const group = (currency: string, loans: bigint, total: string, principalPaid = '0'): Book[number] => {
  return { currency, status: 'disbursed', loans, total: parseAmount(total), principalPaid: parseAmount(principalPaid) };
};
const READ_AT = new Date('2026-11-21T18:00:00.500Z');

/** As a scrape of several processes has it. */
async function together(...all: readonly Metrics[]): Promise<string> {
  return AggregatorRegistry.aggregate(
    await Promise.all(all.map(({ registry }) => registry.getMetricsAsJSON())),
  ).metrics();
}

it('the book of several processes is that of one, and its time that of the oldest', async () => {
  const [one, other] = [create(), create()];
  one.showBook([group('KES', 3n, '21', '0.5')], READ_AT);
  other.showBook([group('KES', 3n, '21', '0.5')], new Date(READ_AT.getTime() + 1_000));
  for (const each of [one, other]) each.countLoan({ currency: 'KES', amount: parseAmount('7') });
  const lines = (await together(one, other)).split('\n');
  expect(lines).toEqual(
    expect.arrayContaining([
      'loans_current{status="disbursed",currency="KES"} 3',
      'loans_current{status="repaid",currency="KES"} 0',
      'loans_amount_current{status="disbursed",currency="KES"} 21',
      'loans_principal_outstanding{currency="KES"} 20.5',
      `loans_metrics_refreshed_timestamp_seconds ${READ_AT.getTime() / 1_000}`,
      'loans_created_total{currency="KES"} 2',
      'loan_amount_requested_sum{currency="KES"} 14',
    ]),
  );
});

it('a process that has not read the book yet says nothing of it', async () => {
  const [read, started] = [create(), create()];
  read.showBook([group('KES', 3n, '21')], READ_AT);
  expect(await started.registry.metrics()).not.toMatch(/^loans_metrics_refreshed_timestamp_seconds /m);
  const text = await together(started, read);
  expect(text).toMatch(/^loans_current\{status="disbursed",currency="KES"\} 3$/m);
  expect(text).toMatch(/^loans_metrics_refreshed_timestamp_seconds 1795284000\.5$/m);
});

it('the currencies with the most loans have their own series, in every process the same', async () => {
  const codes = ['AED', 'BHD', 'CAD', 'DKK', 'EUR', 'FJD', 'GBP', 'HKD', 'ISK'];
  const book = codes.map((code, index) => group(code, BigInt(index + 1), '1'));
  const shown = async (order: Book) => {
    const metrics = create();
    metrics.showBook(order, READ_AT);
    const text = await metrics.registry.metrics();
    return [...text.matchAll(/^loans_current\{status="disbursed",currency="(\w+)"\} ([1-9]\d*)$/gm)]
      .map(([, currency, loans]) => `${currency} ${loans}`)
      .sort();
  };
  const expected = ['CAD 3', 'DKK 4', 'EUR 5', 'FJD 6', 'GBP 7', 'HKD 8', 'ISK 9', 'other 3'];
  expect(await shown(book)).toEqual(expected);
  expect(await shown([...book].reverse())).toEqual(expected);
});

it('loans that are gone leave zeros, and no series of their own', async () => {
  const metrics = create();
  metrics.showBook([group('KES', 3n, '21'), group('EUR', 1n, '5')], READ_AT);
  metrics.showBook([group('EUR', 1n, '5')], READ_AT);
  const text = await metrics.registry.metrics();
  expect(text).toMatch(/^loans_current\{status="disbursed",currency="KES"\} 0$/m);
  expect(text).toMatch(/^loans_principal_outstanding\{currency="KES"\} 0$/m);
});

it.each(OPERATIONS.flatMap(({ paths }) => paths))(
  'a refusal of %s is timed as one of a user only where it is',
  async (path) => {
    const metrics = create();
    metrics.observeRequest('GET', path, 403, 0.01);
    const [labels] = readExposition(await metrics.registry.metrics())
      .filter(({ name }) => name === 'http_request_duration_seconds_count')
      .map(({ labels }) => labels);
    expect(isUserRoute(labels!)).toBe(isUserRoute({ route: path }));
  },
);

it('a refusal is counted by its route and timed as one of all', async () => {
  const metrics = create();
  metrics.observeRequest('POST', '/api/loans', 422, 0.01);
  metrics.observeRequest('GET', '/api/loans/:id', 404, 0.01);
  metrics.observeRequest('GET', '/api/loans/:id', 503, 0.01);
  const text = await metrics.registry.metrics();
  const series = [...text.matchAll(/^(http_request\w+(?:_count|_total)\{.*\}) (\d+)$/gm)].map(
    ([, one, n]) => `${one} ${n}`,
  );
  expect(series).toEqual([
    'http_request_duration_seconds_count{method="any",route="refused",status_code="422"} 1',
    'http_request_duration_seconds_count{method="any",route="refused",status_code="404"} 1',
    'http_request_duration_seconds_count{method="GET",route="/api/loans/:id",status_code="503"} 1',
    'http_requests_refused_total{route="/api/loans",status_code="422"} 1',
    'http_requests_refused_total{route="/api/loans/:id",status_code="404"} 1',
    'http_requests_failed_total{method="GET",route="/api/loans/:id",status_code="503"} 1',
  ]);
});

it('counts failures from 0, for every operation and status of the contract', async () => {
  const metrics = createMetrics({ version: '1', commit: 'a', environment: 'test', release: 'r' }, FAILURES);
  const read = async () =>
    readExposition(await metrics.registry.metrics())
      .filter(({ name }) => name === 'http_requests_failed_total')
      .map(({ labels, value }) => [`${labels['method']} ${labels['route']} ${labels['status_code']}`, value] as const);
  const before = await read();
  for (const { method, paths } of OPERATIONS) expect(before).toContainEqual([`${method} ${paths[0]} 500`, 0]);
  expect(before).toContainEqual(['POST /api/loans 503', 0]);
  expect(before.filter(([, value]) => value !== 0)).toEqual([]);
  metrics.observeRequest('POST', '/api/loans', 503, 0.01);
  metrics.observeRequest('POST', '/api/loans', 422, 0.01);
  metrics.observeRequest('POST', '/api/loans', 201, 0.01);
  expect((await read()).filter(([, value]) => value !== 0)).toEqual([['POST /api/loans 503', 1]]);
  // What is no operation of the contract is counted as well.
  metrics.observeRequest('other', 'unmatched', 500, 0.01);
  expect(await read()).toHaveLength(before.length + 1);
});

it('one process whose event loop hangs is not hidden by those of the others', async () => {
  const processOf = async (lag: number) => {
    const { registry } = createMetrics({ version: '1', commit: 'a', environment: 'test' });
    const measured = await registry.getMetricsAsJSON();
    for (const metric of measured) {
      if (!metric.name.startsWith('nodejs_eventloop_lag')) continue;
      for (const value of metric.values) value.value = lag;
    }
    return measured;
  };
  const text = await expose(await Promise.all([0.01, 0.9, 0.01, 0.01].map(processOf)), 'text');
  for (const name of ['', 'p50_', 'p90_', 'p99_', 'max_']) {
    expect(text).toContain(`\nnodejs_eventloop_lag_${name}seconds 0.9\n`);
  }
});
