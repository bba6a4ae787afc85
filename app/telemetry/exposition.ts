import { AggregatorRegistry, Registry } from 'prom-client';

/** What one process has measured. */
export type Measurements = Awaited<ReturnType<Registry['getMetricsAsJSON']>>;

/** The formats that Prometheus reads. Only OpenMetrics has exemplars: the traces of single requests. */
export const EXPOSITIONS = {
  text: Registry.PROMETHEUS_CONTENT_TYPE,
  openmetrics: Registry.OPENMETRICS_CONTENT_TYPE,
} as const;
export type Exposition = keyof typeof EXPOSITIONS;

/** Of several processes the oldest: what a container has counted, it has counted since then. */
export const PROCESS_START = 'process_start_time_seconds';

interface Exemplar {
  /** Seconds since 1970. */
  readonly timestamp?: number;
}

/** A value as the library has it, its exemplar included, which its types do not know. */
type Value = Measurements[number]['values'][number] & { readonly metricName?: string; readonly exemplar?: Exemplar };

/**
 * The measurements of all processes added up, each exemplar being the newest there is.
 * @param container label of every series, see containerName(); no label if not given
 */
export async function expose(
  processes: readonly Measurements[],
  format: Exposition,
  container?: string,
): Promise<string> {
  const sum = AggregatorRegistry.aggregate([...processes]);
  const labels = container === undefined ? {} : { container };
  if (format === 'text') {
    sum.setDefaultLabels(labels);
    return sum.metrics();
  }
  // The library's own sum has no exemplars, and would write "_total" twice.
  const exemplars = newestExemplars(processes);
  const registry = new Registry<typeof EXPOSITIONS.openmetrics>();
  registry.setContentType(EXPOSITIONS.openmetrics);
  registry.setDefaultLabels(labels);
  for (const metric of await sum.getMetricsAsJSON()) {
    const name = isCounter(metric) ? metric.name.replace(/_total$/, '') : metric.name;
    const values = metric.values.map((value) => ({ ...value, exemplar: exemplars.get(keyOf(value)) }));
    const written = { ...metric, name, values };
    registry.registerMetric({ ...written, get: () => Promise.resolve(written) } as unknown as Registered);
  }
  return registry.metrics();
}

type Registered = Parameters<Registry['registerMetric']>[0];

/** The library tells a type by its name; its types say by a number. */
function isCounter({ type }: Measurements[number]): boolean {
  return String(type) === 'counter';
}

function newestExemplars(processes: readonly Measurements[]): ReadonlyMap<string, Exemplar> {
  const newest = new Map<string, Exemplar>();
  for (const value of processes.flat().flatMap((metric): Value[] => metric.values)) {
    const { exemplar } = value;
    if (exemplar === undefined || (exemplar as Exemplar | null) === null) continue;
    const other = newest.get(keyOf(value));
    if ((other?.timestamp ?? 0) < (exemplar.timestamp ?? 0)) newest.set(keyOf(value), exemplar);
  }
  return newest;
}

function keyOf({ metricName = '', labels }: Value): string {
  return `${metricName}${JSON.stringify(labels)}`;
}
