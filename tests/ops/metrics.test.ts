import { METRICS_PATHS } from '../../infra/ops/nginx';
import { ACCESS_LOG_METRICS, NGINX_METRICS } from '../../infra/ops/exporters';
import { ensureCertificate, readCertificate } from '../../ssl/certificates';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeUnless } from '../skip';
import { missingForContainers } from './binaries';
import { DOMAIN, Stage } from './stage';

/** What the gateway tells Prometheus of itself. */

describeUnless(missingForContainers(['node', 'nginx']), "the gateway's figures", () => {
  const ssl = mkdtempSync(join(tmpdir(), 'metrics-'));
  let stage: Stage;
  const responses = () => stage.metrics(METRICS_PATHS.responses);

  beforeAll(async () => {
    const files = await ensureCertificate({ directory: ssl, domain: DOMAIN });
    stage = new Stage(readCertificate({ ...files, domain: DOMAIN }));
    stage.startUpstream('first', ['api-1', 'prometheus', 'grafana']);
    await stage.startGateway(['api-1']);
    await stage.untilAnswered();
  }, 120_000);
  afterAll(() => {
    stage.close();
    rmSync(ssl, { recursive: true, force: true });
  });

  const of = (method: string, status: number) =>
    responses()[`${ACCESS_LOG_METRICS.responses}{method="${method}",status="${status}"}`] ?? 0;

  test('begin at 0 for failures, so that the first of them is a rise', () => {
    const zero = ['GET', 'POST', 'other'].flatMap((method) =>
      [500, 502, 503, 504].map((status) => `${ACCESS_LOG_METRICS.responses}{method="${method}",status="${status}"}`),
    );
    expect(responses()).toMatchObject(Object.fromEntries(zero.map((series) => [series, 0])));
  });

  test('count every answer by method and status, also those that nobody behind it gave', async () => {
    const before = [of('GET', 200), of('GET', 404), of('PATCH', 200), of('GET', 421)];
    for (let round = 0; round < 3; round += 1) await stage.request('/api/loans');
    await stage.request('/metrics');
    await stage.request('/api/loans/1', { method: 'PATCH' });
    await stage.request('/', { host: 'elsewhere.example' });
    const after = [of('GET', 200), of('GET', 404), of('PATCH', 200), of('GET', 421)];
    expect(after.map((value, index) => value - before[index]!)).toEqual([3, 1, 1, 1]);
  });

  test('are a histogram of the time, with the bound of the objective', async () => {
    await stage.request('/api/loans');
    const figures = responses();
    const labels = 'method="GET",status="2xx"';
    const bucket = (le: string) => figures[`${ACCESS_LOG_METRICS.seconds}_bucket{${labels},le="${le}"}`]!;
    const total = figures[`${ACCESS_LOG_METRICS.seconds}_count{${labels}}`]!;
    expect(total).toBe(of('GET', 200));
    expect(bucket('+Inf')).toBe(total);
    expect(bucket('0.2')).toBeGreaterThan(0);
    expect(bucket('0.005')).toBeLessThanOrEqual(bucket('0.2'));
    expect(figures[`${ACCESS_LOG_METRICS.seconds}_sum{${labels}}`]).toBeGreaterThanOrEqual(0);
  });

  test('do not grow with what clients send', async () => {
    for (const method of ['BREW', 'SEARCH', 'MKCOL']) await stage.request(`/${method}`, { method });
    await stage.raw('\0\0 nonsense\r\n\r\n');
    await stage.raw('GET / HTTP/9.9\r\nHost: localhost\r\n\r\n');
    const before = Object.keys(responses()).length;
    for (let index = 0; index < 40; index += 1) {
      await stage.request(`/random/${index}?x=${index}`, {
        method: index % 2 ? 'GET' : `M${String.fromCharCode(65 + (index % 26))}`,
      });
    }
    expect(Object.keys(responses()).length).toBe(before);
    const others = Object.entries(responses()).filter(([series]) => series.includes('method="other"'));
    expect(others.some(([, value]) => value > 0)).toBe(true);
  });

  test('leave out what operators look at', async () => {
    const total = () =>
      Object.entries(responses()).reduce(
        (sum, [name, value]) => (name.includes('_count_total') ? sum + value : sum),
        0,
      );
    const before = total();
    await stage.request('/grafana/');
    await stage.request('/prometheus/graph');
    expect(total()).toBe(before);
  });

  test("tell nginx's own counters", async () => {
    const before = stage.metrics(METRICS_PATHS.connections);
    const own = Object.values(NGINX_METRICS).filter((name) => name !== NGINX_METRICS.up);
    expect(Object.keys(before).sort()).toEqual(own.sort());
    await stage.request('/api/loans');
    const after = stage.metrics(METRICS_PATHS.connections);
    expect(after[NGINX_METRICS.requests]).toBeGreaterThan(before[NGINX_METRICS.requests]!);
    expect(after[NGINX_METRICS.accepted]).toBe(after[NGINX_METRICS.handled]);
  });

  test('go on over a reload, and write nothing into the logs', async () => {
    const before = of('GET', 200);
    await stage.reload(['api-1']);
    await stage.request('/api/loans');
    expect(of('GET', 200)).toBe(before + 1);
    expect(stage.logs()).not.toMatch(/js exception|\[(alert|crit|emerg)\]|metrics\/responses/);
  });

  test('come by a reload to a gateway that had none', async () => {
    const files = await ensureCertificate({ directory: ssl, domain: DOMAIN });
    const old = new Stage(readCertificate({ ...files, domain: DOMAIN }), { metrics: undefined });
    try {
      await old.startGateway([]);
      old.options = {};
      await old.reload([]);
      await old.request('/api/loans');
      expect(old.metrics(METRICS_PATHS.responses)).toMatchObject({
        [`${ACCESS_LOG_METRICS.responses}{method="GET",status="503"}`]: 1,
      });
    } finally {
      old.close();
    }
  }, 60_000);

  test('are not to be had from outside', async () => {
    for (const path of Object.values(METRICS_PATHS)) {
      for (const listener of ['https', 'http', 'api'] as const) {
        const { body } = await stage.request(path, { listener });
        expect(body).not.toContain('nginx_');
      }
    }
  });
});
