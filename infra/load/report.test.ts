import fc from 'fast-check';
import { type ChartSpec, renderChart } from './chart';
import { html, milliseconds, renderJson, renderPage } from './report';

const chart = (more: Partial<ChartSpec> = {}): ChartSpec => ({
  ...{ title: 'Latency', unit: 'ms', span: [0, 10_000] as const },
  series: [
    {
      name: 'p95',
      tone: 'good',
      points: [
        [0, 1],
        [1_000, 10],
        [2_000, NaN],
        [3_000, 1_000],
      ] as const,
    },
  ],
  ...more,
});

it('a gap is no line, and what is alone is seen', () => {
  const [path] = /d="M[^"]*h\.1L[^"]*"/.exec(renderChart(chart())) ?? [];
  expect(path).toMatch(/^d="M58 187.9h\.1L[\d.]+ [\d.]+M[\d.]+ [\d.]+h\.1"$/);
});

it('shades the fault, and stays within the picture', () => {
  const svg = renderChart(chart({ bands: [{ from: -5_000, to: 5_000, label: 'fault' }], scale: 'log' }));
  expect(svg).toContain('<rect class="b" x="58" y="40" width="343" height="148"/>');
  expect(svg).toContain('>fault</text>');
  expect(renderChart(chart({ series: [] }))).not.toContain('NaN');
});

it('asks no other host for anything, and runs nothing', () => {
  const page = renderPage('A load', [html`<p>text</p>`]) + renderChart(chart(), chart());
  expect(page.match(/https?:[^"' ]*/g)).toEqual(['http://www.w3.org/2000/svg']);
  expect(page).not.toMatch(/<script|<link|<img|url\(|@import/);
  expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
});

it('whatever a name or an answer says stays text', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const wrapped = html`<p title="${text}">${text}</p>`.toString();
      const inner = wrapped.slice('<p title="'.length, -'</p>'.length);
      expect(inner.replace('">', '')).not.toMatch(/[<>"']|&(?!(amp|lt|gt|quot|#39);)/);
      const svg = renderChart(chart({ title: text, bands: [{ from: 0, to: 1, label: text }] }));
      expect(svg.match(/</g)!.length).toBe(
        renderChart(chart({ title: 'x', bands: [{ from: 0, to: 1, label: 'x' }] })).match(/</g)!.length,
      );
    }),
  );
  expect(html`${`&<>"'`}`.toString()).toBe('&amp;&lt;&gt;&quot;&#39;');
  expect(html`${[html`<b>${1}</b>`, html`<i>${'<'}</i>`]}`.toString()).toBe('<b>1</b><i>&lt;</i>');
});

it('writes times as they are read, and JSON without what JSON has not', () => {
  expect([3.21, 12.4, 1_450, NaN].map(milliseconds)).toEqual(['3.2 ms', '12 ms', '1.4 s', '-']);
  expect(JSON.parse(renderJson({ p95: NaN, most: 1 }))).toEqual({ p95: null, most: 1 });
});
