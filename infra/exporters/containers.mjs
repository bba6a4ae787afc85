// Tells Prometheus what each container of one environment uses of its limits, as the engine itself measures it. It only
// reads: four questions to the engine's socket, none of them made from anything that a client sends.
import { realpathSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { createInterface } from 'node:readline';

/** The part of a container's /json that is read. @typedef {{
 *   Id: string, Name: string, RestartCount: number, State: { StartedAt: string, Restarting?: boolean },
 *   Config: { Labels: Record<string, string> },
 *   HostConfig: { Memory: number, CpuQuota: number, CpuPeriod: number },
 * }} Inspected */
/** The part of a container's /stats that is read. @typedef {{
 *   cpu_stats: { cpu_usage: { total_usage: number }, throttling_data?: { periods: number, throttled_periods: number } },
 *   memory_stats: { usage?: number, stats?: Record<string, number> },
 *   networks?: Record<string, { rx_bytes: number, tx_bytes: number }>,
 *   pids_stats?: { current?: number },
 *   blkio_stats?: { io_service_bytes_recursive?: { op: string, value: number }[] | null },
 * }} Stats */
/** Without stats while it waits to be started again. @typedef {{ inspected: Inspected, stats?: Stats, outOfMemory: number }} Container */

/**
 * name -> type, help, values of one container, each with further labels
 * @type {Record<string, [type: string, help: string, values: (container: Container) => [Record<string, string>, number][]]>}
 */
const METRICS = {
  container_cpu_usage_seconds_total: [
    'counter',
    'CPU time.',
    measured(({ cpu_stats }) => [[{}, cpu_stats.cpu_usage.total_usage / 1e9]]),
  ],
  container_cpu_cfs_periods_total: [
    'counter',
    'Periods of the CPU limit in which it ran.',
    measured(({ cpu_stats }) => [[{}, cpu_stats.throttling_data?.periods ?? 0]]),
  ],
  container_cpu_cfs_throttled_periods_total: [
    'counter',
    'Those of them in which it was held up by the limit.',
    measured(({ cpu_stats }) => [[{}, cpu_stats.throttling_data?.throttled_periods ?? 0]]),
  ],
  container_spec_cpu_quota: [
    'gauge',
    'CPU limit: microseconds in a period.',
    ({ inspected }) => [[{}, inspected.HostConfig.CpuQuota]],
  ],
  container_spec_cpu_period: ['gauge', 'Microseconds.', ({ inspected }) => [[{}, inspected.HostConfig.CpuPeriod]]],
  container_memory_working_set_bytes: [
    'gauge',
    'Memory that cannot be reclaimed at once.',
    measured((stats) => [[{}, workingSet(stats)]]),
  ],
  container_spec_memory_limit_bytes: ['gauge', 'Memory limit.', ({ inspected }) => [[{}, inspected.HostConfig.Memory]]],
  container_oom_events_total: [
    'counter',
    'Times that the kernel ended a process for want of memory.',
    ({ outOfMemory }) => [[{}, outOfMemory]],
  ],
  container_network_receive_bytes_total: ['counter', 'Received.', measured((stats) => network(stats, 'rx_bytes'))],
  container_network_transmit_bytes_total: ['counter', 'Sent.', measured((stats) => network(stats, 'tx_bytes'))],
  container_fs_reads_bytes_total: [
    'counter',
    'Read from disks.',
    measured((stats) => [[{}, diskBytes(stats, 'read')]]),
  ],
  container_fs_writes_bytes_total: [
    'counter',
    'Written to disks.',
    measured((stats) => [[{}, diskBytes(stats, 'write')]]),
  ],
  container_threads: [
    'gauge',
    'Threads of all its processes.',
    measured((stats) => [[{}, stats.pids_stats?.current ?? 0]]),
  ],
  container_start_time_seconds: [
    'gauge',
    'Unix time of its last start. By id: another container of the same name has another one.',
    ({ inspected }) => [[{ id: inspected.Id.slice(0, 12) }, Date.parse(inspected.State.StartedAt) / 1000]],
  ],
  container_restarts_total: [
    'counter',
    'Times that the engine started it again by itself.',
    ({ inspected }) => [[{}, inspected.RestartCount]],
  ],
};

/**
 * @param {(stats: Stats) => [Record<string, string>, number][]} values
 * @returns {(container: Container) => [Record<string, string>, number][]}
 */
function measured(values) {
  return ({ stats }) => (stats === undefined ? [] : values(stats));
}

/** @param {Stats} stats */
function workingSet({ memory_stats: { usage = 0, stats = {} } }) {
  // The first name is of cgroup v1, the second of v2.
  return Math.max(0, usage - (stats.total_inactive_file ?? stats.inactive_file ?? 0));
}

/** Of all disks. The name begins with a capital in cgroup v1. @param {Stats} stats @param {'read' | 'write'} kind */
function diskBytes({ blkio_stats }, kind) {
  const entries = blkio_stats?.io_service_bytes_recursive ?? [];
  return entries.reduce((sum, { op, value }) => (op.toLowerCase() === kind ? sum + value : sum), 0);
}

/** @param {Stats} stats @param {'rx_bytes' | 'tx_bytes'} direction */
function network({ networks = {} }, direction) {
  return Object.entries(networks).map(([name, figures]) => pair({ interface: name }, figures[direction]));
}

/** @param {Record<string, string>} labels @param {number} value @returns {[Record<string, string>, number]} */
const pair = (labels, value) => [labels, value];

/**
 * @param {readonly Container[]} containers
 * @returns {string} Prometheus' text format
 */
export function render(containers) {
  return Object.entries(METRICS)
    .flatMap(([name, [type, help, values]]) => [
      `# HELP ${name} ${help}`,
      `# TYPE ${name} ${type}`,
      ...containers.flatMap((container) =>
        values(container).map(
          ([labels, value]) => `${name}{${labelText({ ...identity(container), ...labels })}} ${value}`,
        ),
      ),
      '',
    ])
    .join('\n');
}

/** @param {Container} container */
function identity({ inspected }) {
  const component = Object.entries(inspected.Config.Labels).find(([label]) => label.endsWith('.component'))?.[1] ?? '';
  return { name: inspected.Name.replace(/^\//, ''), component };
}

/** @param {Record<string, string>} labels */
const labelText = (labels) =>
  Object.entries(labels)
    .map(([label, value]) => `${label}=${JSON.stringify(value)}`)
    .join(',');

const QUESTION_MS = 5_000;
const AGAIN_MS = 1_000;

/** The engine behind a Unix socket, and what it said of the containers with a label. */
export class Engine {
  /** @type {Map<string, number>} */
  #outOfMemory = new Map();
  #closed = false;
  /** @type {import('node:http').ClientRequest | undefined} */
  #listening;

  /** @param {string} socketPath @param {string} label `name=value` */
  constructor(socketPath, label) {
    this.socketPath = socketPath;
    this.label = label;
  }

  /** @returns {Promise<Container[]>} those that run or will again; one that goes meanwhile is left out */
  async containers() {
    // One that dies again and again waits most of the time for its next start.
    const filters = { label: [this.label], status: ['running', 'restarting'] };
    /** @type {{ Id: string }[]} */
    const found = await this.#ask(`/containers/json?filters=${encodeURIComponent(JSON.stringify(filters))}`);
    const all = await Promise.all(
      found.map(async ({ Id: id }) => {
        const [inspected, stats] = await Promise.all([
          this.#ask(`/containers/${id}/json`),
          this.#ask(`/containers/${id}/stats?stream=false&one-shot=true`),
        ]).catch((error) => (error.status === 404 || error.status === 409 ? [] : Promise.reject(error)));
        const outOfMemory = this.#outOfMemory.get(id) ?? 0;
        if (inspected?.State.Restarting) return [{ inspected, outOfMemory }];
        const gone = stats?.cpu_stats?.cpu_usage === undefined || stats.memory_stats?.usage === undefined;
        return gone ? [] : [{ inspected, stats, outOfMemory }];
      }),
    );
    return all.flat();
  }

  /** Counts, from now on and until `close`, how often the kernel ended a process for want of memory. */
  countOutOfMemory() {
    const filters = { type: ['container'], event: ['oom'], label: [this.label] };
    const path = `/events?filters=${encodeURIComponent(JSON.stringify(filters))}`;
    let over = false;
    // A connection that breaks may end as an answer and as a request: two listeners would count everything twice.
    const again = () => {
      if (over || this.#closed) return;
      over = true;
      setTimeout(() => this.countOutOfMemory(), AGAIN_MS).unref();
    };
    this.#listening = request({ socketPath: this.socketPath, path }, (response) => {
      response.on('error', () => undefined).on('close', again);
      // What else it answers is no event.
      if (response.statusCode !== 200) return void response.resume();
      createInterface({ input: response })
        .on('line', (line) => this.#count(line))
        .on('error', () => undefined);
    });
    this.#listening.on('error', again).end();
  }

  /** @param {string} line an event, or the half of one at which the connection broke */
  #count(line) {
    try {
      const { id } = JSON.parse(line);
      this.#outOfMemory.set(id, (this.#outOfMemory.get(id) ?? 0) + 1);
    } catch (error) {
      console.error(JSON.stringify({ level: 'error', message: `an event that is none: ${error}` }));
    }
  }

  close() {
    this.#closed = true;
    this.#listening?.destroy();
  }

  /** @param {string} path @returns {Promise<any>} */
  #ask(path) {
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: this.socketPath, path, timeout: QUESTION_MS }, (response) => {
        /** @type {Buffer[]} */
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk)).on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else
            reject(
              Object.assign(new Error(`the engine answers ${response.statusCode}: ${text.trim()}`), {
                status: response.statusCode,
              }),
            );
        });
      });
      asked.on('timeout', () => asked.destroy(new Error('the engine does not answer')));
      asked.on('error', reject).end();
    });
  }
}

/** @param {Engine} engine */
export function serve(engine) {
  return createServer((asked, answer) => {
    if (asked.url === '/health') return void answer.end('ok\n');
    if (asked.url !== '/metrics') return void answer.writeHead(404).end();
    engine
      .containers()
      .then(render)
      .then(
        (text) => answer.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8').end(text),
        (error) => {
          console.error(JSON.stringify({ level: 'error', message: String(error.message) }));
          answer.writeHead(503).end();
        },
      );
  });
}

const [, program = '', socket = '', label = '', port] = process.argv;
if (program !== '' && import.meta.filename === realpathSync(program)) {
  const engine = new Engine(socket, label);
  engine.countOutOfMemory();
  const server = serve(engine).listen(Number(port));
  process.on('SIGTERM', () => {
    engine.close();
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
