import { Writable } from 'node:stream';
import winston from 'winston';
import { traceFields } from './requests';
import { withoutSecrets } from './secrets';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * One JSON object a line: timestamp, level, request_id (where there is a request), message, then the given fields, and
 * the trace of the request, where it has one. Whatever of it a client wrote is without secrets.
 */
export interface Logger {
  log(level: LogLevel, message: string, fields?: LogFields): void;
  /** Whether lines of this level are written, for callers that want to save the work of building one. */
  writes(level: LogLevel): boolean;
}

/** Where winston looks for the finished line. */
const MESSAGE = Symbol.for('message');

/**
 * A logger that writes to the given stream. Lines of one turn of the event loop leave in one write, since a write
 * to a pipe blocks. A destination that fails loses lines, never the service.
 */
export function createLogger(level: LogLevel, destination: Writable): Logger {
  const logger = winston.createLogger({
    level,
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    format: winston.format(toLine)(),
    // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- winston declares its transports as interfaces
    transports: [new winston.transports.Stream({ stream: new LineBatch(destination), eol: '\n' })],
    exitOnError: false,
  });
  return {
    log: (lineLevel, message, fields) => void logger.log(lineLevel, message, { ...fields, ...traceFields() }),
    writes: (lineLevel) => logger.isLevelEnabled(lineLevel),
  };
}

function toLine(info: winston.Logform.TransformableInfo): winston.Logform.TransformableInfo {
  const { level, message, request_id, ...fields } = info;
  const line = JSON.stringify({
    timestamp: new Date().toISOString(),
    level,
    request_id,
    message,
    ...fields,
  });
  info[MESSAGE] = withoutSecrets(line);
  return info;
}

class LineBatch extends Writable {
  private lines = '';

  constructor(private readonly destination: Writable) {
    super({ decodeStrings: false });
    destination.on('error', () => undefined);
  }

  override _write(line: string, _encoding: BufferEncoding, done: () => void): void {
    if (this.lines === '') setImmediate(() => this.flush());
    this.lines += line;
    done();
  }

  private flush(): void {
    const lines = this.lines;
    this.lines = '';
    if (this.destination.writable) this.destination.write(lines);
  }
}
