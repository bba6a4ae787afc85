import { LABEL } from '../labels';
import type { Expectation } from './verdict';

/**
 * The experiments of `make chaos`: what is done to which container, what is expected of the service meanwhile, and how it
 * is taken back. Pure: a fault is a list of `docker` commands, so that whoever finds one can take it back; but for more
 * load, which ends with the process that makes it.
 */

/** Arguments of `docker`. */
export type Command = readonly string[];

export interface Fault {
  /** How it is made here; engines and kernels differ. */
  readonly means: string;
  readonly inject: readonly Command[];
  /** Harmless where there is nothing to take back, and complete after any part of `inject`. */
  readonly undo: readonly Command[];
  /** How long it may take to make; where that is not said, a moment. */
  readonly makingSeconds?: number;
  /** Done again and again while the fault lasts. */
  readonly repeat?: { readonly everyMs: number; readonly command: Command };
  /** Requests per second while the fault lasts, where more load is the fault. */
  readonly rate?: number;
}

/** Why a fault cannot be made on this engine. */
export interface Impossible {
  readonly impossible: string;
}

/** What is known of a stack and its engine before the first fault. */
export interface Facts {
  readonly prefix: string;
  /** Those that run; the first one is the victim where one is enough. */
  readonly api: readonly Container[];
  readonly database: Container;
  readonly gateway: Container;
  /** Requests per second that all of `api` together are known to bear (`api.capacity`). */
  readonly capacity: number | undefined;
  readonly prometheus: Container | undefined;
  /** The service's database and role, and that role's own limit of connections (-1 for none). */
  readonly databaseName: string;
  readonly role: string;
  readonly roleLimit: number;
  /** Free space where the database's files have a file system of their own; undefined where they share the engine's. */
  readonly freeMib: number | undefined;
  /** What the kernel can do to packets, with the tools that there are. */
  readonly network: Network;
}

export interface Container {
  readonly name: string;
  /** Id of its image. */
  readonly image: string;
  readonly user: string;
  /** Microseconds of CPU time in each period; 0 for no limit. */
  readonly cpuQuota: number;
  readonly cpuPeriod: number;
}

/** Image with `tc` and `iptables`, and which of them work; or why there is none. */
export type Network =
  { readonly image: string; readonly netem: boolean; readonly statistic: boolean } | { readonly missing: string };

export interface Experiment {
  readonly name: string;
  readonly title: string;
  /** What is believed to happen, in a sentence. */
  readonly hypothesis: string;
  /** How long the fault lasts. */
  readonly seconds: number;
  fault(facts: Facts, seconds: number): Fault | Impossible;
  expects(facts: Facts): Expectation;
}

/** What all containers of chaos carry, beside the environment's prefix as its value. */
export const CHAOS_LABEL = `${LABEL}.chaos`;

/** Nobody notices. */
const UNNOTICED: Expectation = { failedShare: 0.02, slowerMs: 300, ready: 'stays', recoverSeconds: 10 };
/** The database does not answer: everything that needs it is refused, in time and with words. */
const REFUSED: Expectation = {
  ...{ failedShare: 1, slowerMs: 4_000, felt: 'failures', told: true, ready: 'goes', recoverSeconds: 20 },
};

const PSQL = ['psql', '--no-psqlrc', '--quiet', '--tuples-only', '--no-align'];
const APPLICATION = 'branchloans-chaos';
const HOME = '/var/lib/postgresql';
/** Larger volumes are not filled: it would take long, and be an outage of its own when it is not taken back. */
const MOST_FILLED_MIB = 4_096;
/** Requests per second: more than two cores bear that also make them, and what one process makes at most. */
const [FLOOD, MOST_FLOOD] = [600, 1_000];
/** A disk that takes 14 MiB a second is full by then. */
const FILL_SECONDS = 300;

export const EXPERIMENTS: readonly Experiment[] = [
  {
    name: 'api-stop',
    title: 'One API container fewer, and back',
    hypothesis:
      'It finishes what it has, the others take over; nobody notices, neither when it goes nor when it is back.',
    seconds: 10,
    fault: ({ api: [victim] }) =>
      victim === undefined
        ? NO_API
        : {
            means: `docker stop ${victim.name}, as fewer replicas would`,
            inject: [['stop', victim.name]],
            undo: [['start', victim.name]],
          },
    expects: ({ api }) => (api.length > 1 ? UNNOTICED : OUTAGE),
  },
  {
    name: 'api-kill',
    title: 'An API container is killed',
    hypothesis: 'The gateway repeats what was in it with another one; at most 2 % fail.',
    seconds: 10,
    fault: ({ api: [victim] }) =>
      victim === undefined
        ? NO_API
        : {
            means: `SIGKILL to ${victim.name}`,
            inject: [['kill', victim.name]],
            undo: [['start', victim.name]],
          },
    expects: ({ api }) => (api.length > 1 ? UNNOTICED : OUTAGE),
  },
  {
    name: 'api-kill-all',
    title: 'All API containers are killed',
    hypothesis: 'The gateway answers at once that nobody is there (Retry-After); all is well soon after they are back.',
    seconds: 8,
    fault: ({ api }) => ({
      means: `SIGKILL to ${api.length} containers`,
      inject: [['kill', ...api.map(({ name }) => name)]],
      undo: api.map(({ name }) => ['start', name]),
    }),
    expects: () => OUTAGE,
  },
  {
    name: 'api-cpu',
    title: 'The API has a fifth of its CPU time',
    hypothesis: 'Answers take longer, none fails.',
    seconds: 12,
    fault: ({ api }) => {
      if (api.some(({ cpuQuota }) => cpuQuota <= 0)) return { impossible: 'the API has no limit of CPU time to lower' };
      return {
        means: 'docker update --cpu-quota, to a fifth of the limit',
        inject: api.map((each) => quota(each, Math.max(1_000, Math.round(each.cpuQuota / 5)))),
        undo: api.map((each) => quota(each, each.cpuQuota)),
      };
    },
    expects: () => ({ ...UNNOTICED, slowerMs: 2_000 }),
  },
  {
    name: 'api-memory',
    title: 'An API container is almost out of memory',
    hypothesis: 'It serves on: what it needs itself it has already.',
    seconds: 12,
    fault: ({ api: [victim] }, seconds) =>
      victim === undefined
        ? NO_API
        : {
            means: `another process takes the memory of ${victim.name} up to 92 % of its limit`,
            inject: [['exec', '--detach', victim.name, 'node', '--eval', EAT_MEMORY, '--', String(seconds + 30)]],
            undo: [['exec', victim.name, 'node', '--eval', LET_GO]],
          },
    expects: ({ api }) => ({ ...UNNOTICED, ...(api.length > 1 ? {} : { failedShare: 0.05 }) }),
  },
  {
    name: 'api-clock',
    title: 'The clock of an API container jumps an hour ahead',
    hypothesis: 'Nothing that is promised depends on it: the database says what time it is.',
    seconds: 12,
    fault: ({ api: [victim] }, seconds) =>
      victim === undefined
        ? NO_API
        : {
            // The kernel has one clock for all containers; what the program sees of it is set apart in its processes.
            means: `Date of all processes of ${victim.name} is an hour ahead (by their debugger; the host's clock stays)`,
            inject: [['exec', victim.name, 'node', '--eval', SHIFT_CLOCK, '--', '3600', String(seconds + 30)]],
            undo: [['exec', victim.name, 'node', '--eval', SHIFT_CLOCK, '--', '0', '0']],
          },
    expects: () => UNNOTICED,
  },
  {
    name: 'database-latency',
    title: 'Latency between API and database',
    hypothesis: 'Every answer takes longer by what its statements take; none fails.',
    seconds: 12,
    fault: (facts, seconds) => {
      const { network, database } = facts;
      if ('image' in network && network.netem) {
        return {
          means: 'netem: 40 ms on every packet from the database',
          inject: [tools(facts, network.image, eachDevice('tc qdisc add dev "$d" root netem delay 40ms'))],
          undo: [tools(facts, network.image, `${eachDevice('tc qdisc del dev "$d" root 2>/dev/null')}; true`)],
        };
      }
      const helper = `${facts.prefix}-chaos-pulses`;
      const why = 'missing' in network ? network.missing : 'this kernel has no netem';
      return {
        means: `the database's sessions stand still for 50 ms of every 150 ms (${why})`,
        inject: [
          [
            ...['run', '--detach', '--rm', '--name', helper, ...labels(facts), '--pid', `container:${database.name}`],
            ...['--network', 'none', '--user', database.user, ...HARDENED, '--entrypoint', 'bash', database.image],
            ...['-c', PULSES, 'pulses', String(seconds + 30)],
          ],
        ],
        undo: [
          // Asked to end, not killed: PostgreSQL is the first process there, inherits what is left behind, and takes an
          // unknown child that was killed for a crash of its own.
          ['stop', '--time', '5', helper],
          ['exec', '--user', database.user, database.name, 'bash', '-c', 'kill -CONT -- -1'],
        ],
      };
    },
    expects: () => ({ ...UNNOTICED, slowerMs: 2_000, felt: 'latency', recoverSeconds: 15 }),
  },
  {
    name: 'database-loss',
    title: 'Packets between API and database are lost',
    hypothesis: 'TCP sends again: some answers take a fifth of a second longer, and few are refused.',
    seconds: 15,
    fault: (facts) => {
      const { network } = facts;
      if ('missing' in network) return { impossible: network.missing };
      if (network.netem) {
        return {
          means: 'netem: one of ten packets from the database',
          inject: [tools(facts, network.image, eachDevice('tc qdisc add dev "$d" root netem loss 10%'))],
          undo: [tools(facts, network.image, `${eachDevice('tc qdisc del dev "$d" root 2>/dev/null')}; true`)],
        };
      }
      if (!network.statistic)
        return { impossible: 'this kernel has neither netem nor the statistic match of iptables' };
      const rule = `INPUT -p tcp --dport 5432 -m statistic --mode random --probability 0.1 ${COMMENT} -j DROP`;
      return {
        means: 'iptables: one of ten packets to the database',
        inject: [tools(facts, network.image, `iptables -I ${rule}`)],
        undo: [tools(facts, network.image, `iptables -D ${rule} 2>/dev/null; true`)],
      };
    },
    expects: () => ({ ...UNNOTICED, failedShare: 0.05, slowerMs: 2_500, felt: 'latency', recoverSeconds: 20 }),
  },
  {
    name: 'database-black-hole',
    title: 'A black hole between API and database',
    hypothesis:
      'After the first timeouts the breaker answers 503 at once (Retry-After); it finds the way back by itself.',
    seconds: 15,
    fault: (facts) => {
      const { network } = facts;
      if ('missing' in network) return { impossible: network.missing };
      const rules = [`INPUT -p tcp --dport 5432 ${COMMENT} -j DROP`, `OUTPUT -p tcp --sport 5432 ${COMMENT} -j DROP`];
      return {
        means: 'iptables: every packet to and from port 5432 of the database vanishes',
        inject: [tools(facts, network.image, rules.map((rule) => `iptables -I ${rule}`).join(' && '))],
        undo: [
          tools(facts, network.image, `${rules.map((rule) => `iptables -D ${rule} 2>/dev/null`).join('; ')}; true`),
        ],
      };
    },
    expects: () => REFUSED,
  },
  {
    name: 'database-frozen',
    title: 'The database stands still',
    hypothesis: 'Connections are taken and nothing is answered: as a black hole, 503 at once after the first timeouts.',
    seconds: 12,
    fault: ({ database }) => ({
      means: 'docker pause: no process of it runs, its connections stay',
      inject: [['pause', database.name]],
      undo: [['unpause', database.name]],
    }),
    expects: () => REFUSED,
  },
  {
    name: 'database-kill',
    title: 'The database is killed',
    hypothesis: '503 at once while it is away; after its recovery from the log no acknowledged loan is missing.',
    seconds: 10,
    fault: ({ database }) => ({
      means: 'SIGKILL to the whole container',
      inject: [['kill', database.name]],
      undo: [['start', database.name]],
    }),
    expects: () => ({ ...REFUSED, recoverSeconds: 60 }),
  },
  {
    name: 'database-locked',
    title: 'The database is slow: a table is locked',
    hypothesis: 'What needs the table is refused within its time (503 overloaded), and nothing piles up.',
    seconds: 12,
    fault: ({ database, databaseName }, seconds) => ({
      means: 'LOCK TABLE loans IN ACCESS EXCLUSIVE MODE',
      inject: [
        [
          ...[
            'exec',
            '--detach',
            '--env',
            `PGAPPNAME=${APPLICATION}`,
            database.name,
            ...PSQL,
            '--dbname',
            databaseName,
          ],
          '--command',
          `BEGIN; LOCK TABLE loans IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(${seconds + 30}); ROLLBACK`,
        ],
      ],
      undo: [
        sql(
          database,
          `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '${APPLICATION}'`,
        ),
      ],
    }),
    expects: () => ({ ...REFUSED, ready: undefined }),
  },
  {
    name: 'database-connections',
    title: 'The database has no connection left',
    hypothesis:
      'The service loses its connections and gets none: 503 at once, and all is well when there are some again.',
    seconds: 12,
    fault: ({ database, role, roleLimit }) =>
      roleLimit === 0
        ? {
            impossible:
              `the role ${role} may have no connection already, so there is no limit to give back (was an earlier fault ` +
              `never taken back?): ALTER ROLE "${role}" CONNECTION LIMIT -1`,
          }
        : {
            means: 'the role of the service may have no connection, and those that it has are ended',
            inject: [
              sql(database, `ALTER ROLE "${role}" CONNECTION LIMIT 0`),
              sql(database, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '${role}'`),
            ],
            undo: [sql(database, `ALTER ROLE "${role}" CONNECTION LIMIT ${roleLimit}`)],
          },
    expects: () => ({ ...REFUSED, ready: undefined }),
  },
  {
    name: 'database-disk-full',
    title: "The database's disk is full",
    hypothesis: 'What writes is refused and nothing acknowledged is lost; all is well when there is room again.',
    seconds: 15,
    fault: ({ database, freeMib }) => {
      if (freeMib === undefined) {
        return {
          impossible: "the database's files share their file system with the engine: filling it would harm others",
        };
      }
      if (freeMib > MOST_FILLED_MIB) {
        return {
          impossible: `${freeMib} MiB are free where the database's files are; at most ${MOST_FILLED_MIB} are filled`,
        };
      }
      const filler = `${HOME}/${APPLICATION}.filler`;
      const free = `$(df -Pm ${HOME} | tail -n 1 | awk '{ print $4 }')`;
      // dd ends with an error when the disk is full. Less than a segment of the log free is full.
      const fill =
        `timeout ${FILL_SECONDS} dd if=/dev/zero of=${filler} bs=1M count=${MOST_FILLED_MIB} 2>/dev/null; ` +
        `test "${free}" -lt 16 || { echo "${free} MiB are still free" >&2; exit 1; }`;
      return {
        means: `a file of up to ${freeMib} MiB fills the file system, and the log goes on to its next files`,
        inject: [
          ['exec', database.name, 'sh', '-c', fill],
          // As the server may end meanwhile, which would end this with an error.
          ['exec', '--detach', database.name, 'sh', '-c', SPARE_LOG_FILES],
        ],
        makingSeconds: FILL_SECONDS,
        undo: [
          [
            // The server may have ended: it does when it cannot write its log.
            ...[
              'run',
              '--rm',
              '--network',
              'none',
              '--volumes-from',
              database.name,
              '--user',
              database.user,
              ...HARDENED,
            ],
            ...['--entrypoint', 'rm', database.image, '--force', filler],
          ],
        ],
      };
    },
    expects: () => ({ ...REFUSED, ready: undefined, recoverSeconds: 90 }),
  },
  {
    name: 'high-load',
    title: 'Many times the load',
    hypothesis:
      'What is too much is refused at once (503 or 429, Retry-After), as many as before are served, and all is well soon after.',
    seconds: 10,
    fault: ({ capacity = 0 }) => {
      const rate = Math.round(Math.min(MOST_FLOOD, Math.max(FLOOD, 3 * capacity)));
      return { means: `${rate} requests per second`, inject: [], undo: [], rate };
    },
    // Where so much is borne, nothing fails. A quota that was used up takes its window of ten seconds.
    expects: () => ({ failedShare: 0.95, slowerMs: 4_000, told: true, recoverSeconds: 30 }),
  },
  {
    name: 'gateway-reloads',
    title: 'The gateway is told to reload again and again',
    hypothesis: 'No connection is cut and no request fails.',
    seconds: 10,
    fault: ({ gateway }) => ({
      means: 'SIGHUP every second',
      inject: [],
      undo: [],
      // Not `docker kill`: the engine would take it for a wish to end the container.
      repeat: { everyMs: 1_000, command: ['exec', gateway.name, 'sh', '-c', 'kill -s HUP 1'] },
    }),
    expects: () => UNNOTICED,
  },
  {
    name: 'prometheus-away',
    title: 'Prometheus is away',
    hypothesis: 'The service does not need it.',
    seconds: 10,
    fault: ({ prometheus }) =>
      prometheus === undefined
        ? { impossible: 'no Prometheus runs here' }
        : { means: 'docker pause', inject: [['pause', prometheus.name]], undo: [['unpause', prometheus.name]] },
    expects: () => UNNOTICED,
  },
];

/** Nobody is there for the gateway to ask. */
const OUTAGE: Expectation = {
  ...{ failedShare: 1, slowerMs: 4_000, felt: 'failures', told: true, ready: 'goes', recoverSeconds: 40 },
};
const NO_API: Impossible = { impossible: 'no API container runs here' };

const quota = ({ name, cpuPeriod }: Container, microseconds: number): Command => [
  ...['update', '--cpu-period', String(cpuPeriod), '--cpu-quota', String(microseconds), name],
];

const sql = (database: Container, statement: string): Command => [
  ...['exec', database.name, ...PSQL, '--dbname', 'postgres', '--command', statement],
];

/** The server keeps files of its log to use again: until those are full it writes for minutes to a disk that is full. */
const SPARE_LOG_FILES =
  `for n in $(seq 64); do ${PSQL.join(' ')} --dbname postgres ` +
  `--command "SELECT pg_logical_emit_message(false, '${APPLICATION}', ''); SELECT pg_switch_wal()" || exit; done`;

const HARDENED = ['--cap-drop', 'ALL', '--security-opt', 'no-new-privileges:true'];

export function labels({ prefix }: Pick<Facts, 'prefix'>): Command {
  return ['--label', `${CHAOS_LABEL}=${prefix}`];
}

/** A script in the database's network, where the packets of all its clients pass. */
function tools(facts: Facts, image: string, script: string): Command {
  return [
    ...['run', '--rm', ...labels(facts), '--network', `container:${facts.database.name}`, '--user', '0', ...HARDENED],
    ...['--cap-add', 'NET_ADMIN', '--cap-add', 'NET_RAW', '--entrypoint', 'sh', image, '-c', script],
  ];
}

const COMMENT = `-m comment --comment ${APPLICATION}`;

const eachDevice = (command: string) => `for d in /sys/class/net/*; do d=\${d##*/}; [ "$d" = lo ] || ${command}; done`;

/**
 * All processes of the database but the first, which the kernel protects from its own container; the one that sends the
 * signals is spared too. It ends by itself.
 */
const PULSES = `trap 'kill -CONT -- -1; exit 0' TERM INT
end=$((SECONDS + $1))
while [ $SECONDS -lt $end ]; do kill -STOP -- -1; sleep 0.05; kill -CONT -- -1; sleep 0.1; done`;

/** Up to 92 % of the container's limit; ends by itself. */
const EAT_MEMORY = `const fs = require('node:fs');
const [v2, v1] = ['/sys/fs/cgroup/', '/sys/fs/cgroup/memory/memory.'];
const read = (...names) => { for (const name of names) try { return Number(fs.readFileSync(name, 'utf8')); } catch {} return NaN; };
const limit = read(v2 + 'memory.max', v1 + 'limit_in_bytes');
const used = () => read(v2 + 'memory.current', v1 + 'usage_in_bytes');
fs.writeFileSync('/tmp/${APPLICATION}.pid', String(process.pid));
setTimeout(() => process.exit(), Number(process.argv[1]) * 1000);
const kept = [];
setInterval(() => { if (used() < limit * 0.92) kept.push(Buffer.alloc(Math.min(16 << 20, limit * 0.01), 1)); }, 5);`;

const LET_GO = `const fs = require('node:fs'), file = '/tmp/${APPLICATION}.pid';
try { process.kill(Number(fs.readFileSync(file, 'utf8')), 'SIGKILL'); } catch {}
fs.rmSync(file, { force: true });`;

/**
 * SIGUSR1 opens the debugger of a Node process, on the loopback of its container; one after the other, since all of them
 * would listen at the same port. The shift ends by itself, in the process that has it.
 */
const SHIFT_CLOCK = `const fs = require('node:fs');
const [seconds, limit] = process.argv.slice(1).map(Number);
const own = process.pid;
const shift = (seconds, limit) => {
  const inspector = require('node:inspector');
  const real = globalThis.__realDate ??= Date;
  clearTimeout(globalThis.__clockBack);
  globalThis.Date = real;
  if (seconds !== 0) {
    const now = () => real.now() + seconds * 1000;
    globalThis.Date = new Proxy(real, {
      construct: (target, args, self) => Reflect.construct(target, args.length === 0 ? [now()] : args, self),
      apply: () => new real(now()).toString(),
      get: (target, key) => (key === 'now' ? now : Reflect.get(target, key)),
    });
    globalThis.__clockBack = setTimeout(() => (globalThis.Date = real), limit * 1000);
    globalThis.__clockBack.unref();
  }
  setTimeout(() => inspector.close(), 100);
  return [process.pid, Date.now()];
};
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const address = async () => {
  for (let tried = 0; tried < 50; tried++, await sleep(100)) {
    try { return (await (await fetch('http://127.0.0.1:9229/json/list')).json())[0].webSocketDebuggerUrl; } catch {}
  }
  throw new Error('no debugger answers');
};
const closed = async () => {
  for (let tried = 0; tried < 50; tried++, await sleep(100)) {
    try { await fetch('http://127.0.0.1:9229/json/version'); } catch { return; }
  }
  throw new Error('the debugger does not close');
};
(async () => {
  const pids = fs.readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name) && Number(name) !== own).filter((pid) => {
    try {
      const args = fs.readFileSync('/proc/' + pid + '/cmdline', 'utf8').split('\\0');
      return /(^|[/])node$/.test(args[0]) && args.some((arg) => /[/]app[/]main[.]js$/.test(arg));
    } catch { return false; }
  });
  // The first process of a cluster wakes the debuggers of the others too: whoever got the port is asked who it is.
  const left = new Set(pids.map(Number));
  for (let tried = 0; left.size > 0; tried++) {
    if (tried > 50) throw new Error('some processes have no debugger');
    process.kill([...left][0], 'SIGUSR1');
    const socket = new WebSocket(await address());
    await new Promise((done, fail) => { socket.onopen = done; socket.onerror = () => fail(new Error('no session')); });
    const expression = '(' + shift + ')(' + seconds + ',' + limit + ')';
    const answer = new Promise((done) => { socket.onmessage = ({ data }) => done(JSON.parse(data)); });
    socket.send(JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression, includeCommandLineAPI: true, returnByValue: true } }));
    const { result } = await answer;
    if (result.exceptionDetails) throw new Error(JSON.stringify(result.exceptionDetails));
    const [pid, now] = result.result.value;
    if (Math.abs(now - Date.now() - seconds * 1000) > 60000) throw new Error('the clock did not move');
    left.delete(pid);
    socket.close();
    await closed();
  }
  if (pids.length === 0) throw new Error('no process of the service');
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });`;
