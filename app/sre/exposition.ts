import type { METRICS } from '../telemetry/names';

/** What the service says at /metrics, read back: the figures of one container when nobody else keeps any. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A line of the text format: name, labels, value; a time or an exemplar may follow. */
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** @param text in the text format of Prometheus, or OpenMetrics */
export function readExposition(text: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    const [, name, labels = '', value = ''] = LINE.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(LABEL)].map(([, label = '', quoted = '']) => [label, unescape(quoted)]);
    return [{ name, labels: Object.fromEntries(pairs) as Record<string, string>, value: readNumber(value) }];
  });
}

export function readNumber(text: string): number {
  if (text === '+Inf') return Infinity;
  return text === '-Inf' ? -Infinity : Number(text);
}

function unescape(quoted: string): string {
  return quoted.replace(/\\(.)/g, (_whole, escaped: string) => (escaped === 'n' ? '\n' : escaped));
}

type Which = (labels: Sample['labels']) => boolean;

/** Undefined where there is no such series: that is not 0. */
export function sumOf(samples: readonly Sample[], name: string, which: Which = () => true): number | undefined {
  const values = samples.filter((sample) => sample.name === name && which(sample.labels)).map(({ value }) => value);
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
}

/** As PromQL's histogram_quantile estimates it from the same buckets. Undefined where nothing was observed. */
export function quantileOf(samples: readonly Sample[], q: number, histogram: string, which: Which): number | undefined {
  const counts = new Map<number, number>();
  for (const { name, labels, value } of samples) {
    if (name !== `${histogram}_bucket` || !which(labels)) continue;
    const bound = readNumber(labels['le'] ?? '');
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  const buckets = [...counts].sort(([a], [b]) => a - b);
  const total = counts.get(Infinity) ?? 0;
  if (total === 0) return undefined;
  const index = buckets.findIndex(([, count]) => count >= q * total);
  const [bound, count] = buckets[index] ?? [NaN, 0];
  const [lower, before] = buckets[index - 1] ?? [0, 0];
  if (bound === Infinity) return lower;
  return count === before ? lower : lower + ((bound - lower) * (q * total - before)) / (count - before);
}

/** What users asked for; the selector of USER_ROUTES in infra/ops/prometheus.ts says the same. */
export const USER_ROUTES = 'route!~"/health.*|/metrics|/sre/.*"';
export const isUserRoute: Which = ({ route = '' }) => !/^(?:\/health.*|\/metrics|\/sre\/.*)$/.test(route);
export const isFailure: Which = ({ status_code = '' }) => status_code.startsWith('5');

/** The latency objective's bound in seconds, as the label of its bucket. */
export const FAST = '0.2' satisfies `${(typeof METRICS.httpRequestDuration.buckets)[number]}`;
