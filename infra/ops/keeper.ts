/**
 * Which containers that stopped are to be started again. The engine does that itself for one that crashed, but leaves
 * one alone that was killed through it (`docker kill`), whatever its restart policy, since it takes that for a wish.
 * Here only a request to stop is one: `docker stop`, and every deploy, sends the stop signal first.
 */

export interface EngineEvent {
  readonly container: string;
  readonly action: string;
  /** Of `kill`. */
  readonly signal?: number;
}

/** A container that exited; not one that was never started, nor one that the engine is about to restart. */
export interface Stopped {
  readonly id: string;
  readonly name: string;
  /** Label `component`. */
  readonly component: string;
  readonly exitCode: number;
}

export interface Verdict {
  readonly container: Stopped;
  readonly start: boolean;
  /** Goes on the sentence "<name> …". */
  readonly reason: string;
}

interface Known {
  /** What the events said of its last run. */
  end?: 'asked' | 'killed' | 'died';
  /** When it was first seen stopped after it ran. */
  stoppedAt?: number;
  /** Told once: it is left alone. */
  told?: boolean;
  starts: number;
  startedAt: number;
}

const KILL = 9;
/** SIGINT, SIGQUIT, SIGTERM: what the containers of a stack are asked to end with. SIGHUP asks them to read files. */
const STOP_SIGNALS = [2, 3, 15];
/** A process that followed a stop signal, or did not handle it, ends with these. */
const ASKED_CODES = [0, ...STOP_SIGNALS.map((signal) => 128 + signal)];

/** Whoever removes a container kills it first, and the engine may restart it: both show within this time. */
const GRACE_MS = 2_000;
const FIRST_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 60_000;
/** Running for so long is not crashing. */
const STABLE_MS = 300_000;

export class Keeper {
  readonly #known = new Map<string, Known>();

  /** @param prefix of the environment's containers: those with a fixed name are called `<prefix>-<component>` */
  constructor(readonly prefix: string) {}

  /** Takes in an event of the engine, in order; what happened before the keeper was there may be missing. */
  observe({ container, action, signal }: EngineEvent): void {
    if (action === 'destroy') {
      this.#known.delete(container);
      return;
    }
    const known = this.#of(container);
    if (action === 'start') {
      delete known.end;
      delete known.stoppedAt;
      delete known.told;
    } else if (action === 'stop' || (action === 'kill' && signal !== undefined && STOP_SIGNALS.includes(signal))) {
      known.end = 'asked';
    } else if (action === 'kill' && signal === KILL) {
      // The engine itself kills what does not stop in time.
      known.end ??= 'killed';
    } else if (action === 'die') {
      known.end ??= 'died';
    }
  }

  /**
   * @param stopped all of the environment's containers that exited
   * @param served names that the gateway sends requests to; a container without a fixed name that is not among them
   * is one that a deploy has not let through yet, or has done with. Undefined: not known now.
   * @param now in milliseconds, of any monotonic clock
   * @returns what to do now, and once each what is left alone; the rest waits for the next look
   */
  judge(stopped: readonly Stopped[], served: readonly string[] | undefined, now: number): Verdict[] {
    return stopped.flatMap((container): Verdict[] => {
      const known = this.#of(container.id);
      known.stoppedAt ??= now;
      if (now - known.stoppedAt < GRACE_MS || now < this.#notBefore(known)) return [];
      if (container.name !== `${this.prefix}-${container.component}` && !served?.includes(container.name)) return [];
      const end = known.end ?? (ASKED_CODES.includes(container.exitCode) ? 'asked' : 'died');
      if (end !== 'asked') {
        const reason = end === 'killed' ? 'was killed' : `ended with exit code ${container.exitCode}`;
        return [{ container, start: true, reason }];
      }
      if (known.told === true) return [];
      known.told = true;
      return [{ container, start: false, reason: 'was asked to stop' }];
    });
  }

  /** It was tried to start a container again; the next try waits the longer, the more there were. */
  tried(id: string, now: number): void {
    const known = this.#of(id);
    known.starts = now - known.startedAt > STABLE_MS ? 1 : known.starts + 1;
    known.startedAt = now;
  }

  #notBefore({ starts, startedAt }: Known): number {
    return starts === 0 ? -Infinity : startedAt + Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** starts);
  }

  #of(id: string): Known {
    const known = this.#known.get(id) ?? { starts: 0, startedAt: -Infinity };
    this.#known.set(id, known);
    return known;
  }
}
