import { randomUUID } from 'node:crypto';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Problem } from '../errors';
import { breakOffBody } from './body';
import { rawProblemAnswer } from './problem';

/** Bounds on what one connection may take; stated, since a library's defaults are for nobody in particular. */
export const LIMITS = {
  maxHeaderSize: 16 * 1024,
  /** A client that sends its header fields, or its whole request, more slowly than this is cut off. */
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 5_000,
  /** Longer than any gateway keeps its side, so that it is the gateway that closes, never between two requests. */
  keepAliveTimeout: 75_000,
  /** Answered by us, as a problem document. */
  requireHostHeader: false,
} satisfies ServerOptions;

/** How long a refused client may go on sending before the connection is reset, which could cost it the answer. */
export const LINGER_MS = 1_000;

type OnRefused = (problem: Problem, requestId: string) => void;

interface Tls {
  readonly certificate: string;
  readonly key: string;
}

export interface HttpServer {
  /** Not yet listening. */
  readonly server: Server;
  /** Accepts nothing more, closes connections without a request, and resolves when the last request is answered. */
  close(): Promise<void>;
}

/**
 * A server that answers even what is no request: every refusal is a problem document.
 *
 * Work that was accepted is answered, whatever the client sends after it: bytes that are no request are refused when
 * the requests before them are answered, and a client may close its side as soon as it has sent its request.
 * `handler` must call `response.writeContinue()` when it wants the body of a request that has `Expect: 100-continue`.
 * @param onRefused is called for every refusal that is sent without a call of the handler
 */
export function createServer(handler: RequestListener, tls: Tls | undefined, onRefused: OnRefused): HttpServer {
  const connections = new Connections(onRefused);
  const serve: RequestListener = (request, response) => {
    connections.begin(request, response);
    handler(request, response);
  };
  const server =
    tls === undefined
      ? createHttpServer(LIMITS, serve)
      : createHttpsServer({ ...LIMITS, minVersion: 'TLSv1.2', cert: tls.certificate, key: tls.key }, serve);
  // Without this Node drops the answers of a client that has closed its side. Not in Node's documentation, but tested.
  Object.assign(server, { httpAllowHalfOpen: true });
  // Of TLS, only once both sides have shaken hands: a client that leaves before that must not be waited for.
  server.on('secureConnection', (socket: Duplex) => (socket.allowHalfOpen = true));
  server.on('clientError', (error: ParserError, socket) => connections.refuse(socket, problemOf(error)));
  server.on('connect', (_request, socket: Duplex) => {
    detach(socket);
    connections.refuse(socket, methodNotAllowed());
  });
  // The handler decides about both.
  server.on('checkContinue', serve);
  server.on('checkExpectation', serve);
  const sockets = rememberSockets(server);
  return {
    server,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        // Node closes those that are idle after a request, but not those that never sent one.
        for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
      }),
  };
}

function rememberSockets(server: Server): ReadonlySet<Socket> {
  const sockets = new Set<Socket>();
  const remember = (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  };
  server.on('connection', remember).on('secureConnection', remember);
  return sockets;
}

/** Node answers the requests of a connection in their order, so the newest one is the last to be answered. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Knows what is under way on each connection, and refuses what cannot be read without harm to it. */
class Connections {
  readonly #newest = new WeakMap<Duplex, Exchange>();
  readonly #refused = new WeakSet<Duplex>();

  constructor(private readonly onRefused: OnRefused) {}

  begin(request: IncomingMessage, response: ServerResponse): void {
    this.#newest.set(request.socket, { request, response });
  }

  /** @param problem undefined where the connection itself has failed, so that no answer can be sent */
  refuse(socket: Duplex, problem: Problem | undefined): void {
    if (problem === undefined) return void socket.destroy();
    // A parser that has failed fails again with every byte that follows.
    if (this.#refused.has(socket)) return;
    this.#refused.add(socket);
    const newest = this.#newest.get(socket);
    const answered = newest === undefined || newest.response.writableFinished;
    if (newest === undefined || (answered && newest.request.complete)) {
      this.#answer(socket, problem);
    } else if (answered) {
      // The rest of a body that was refused before. A second answer would be taken for that of another request.
      end(socket);
    } else if (newest.request.complete) {
      newest.response.once('close', () => this.#answer(socket, problem));
    } else {
      this.#breakOff(newest, socket, problem);
    }
  }

  /** What cannot be read is the body of the newest request: its own handler answers, with its own request id. */
  #breakOff({ request, response }: Exchange, socket: Duplex, problem: Problem): void {
    if (!response.headersSent) response.setHeader('Connection', 'close');
    response.once('close', () => end(socket));
    breakOffBody(request, problem);
  }

  #answer(socket: Duplex, problem: Problem): void {
    // The answer before said that it is the last one.
    if (!socket.writable) return;
    const requestId = randomUUID();
    this.onRefused(problem, requestId);
    end(socket, rawProblemAnswer(problem, requestId));
  }
}

/** Sends the last bytes of a connection, and gives the client time to take them and to close its side. */
function end(socket: Duplex, text?: string): void {
  if (socket.destroyed) return;
  const patience = setTimeout(() => socket.destroy(), LINGER_MS).unref();
  socket.once('close', () => clearTimeout(patience));
  socket.end(text);
}

/** Node takes its listeners off a socket that becomes a tunnel, while the requests before may still be answered. */
function detach(socket: Duplex & { readonly _httpMessage?: ServerResponse | null }): void {
  socket.on('error', () => socket.destroy());
  socket.on('drain', () => socket._httpMessage?.emit('drain'));
  socket.resume();
}

/** A request line that is well-formed, except that Node does not know its method. */
const UNKNOWN_METHOD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) \/\S* HTTP\/1\.[01]\r\n/;

type ParserError = NodeJS.ErrnoException & { readonly rawPacket?: Buffer; readonly bytesParsed?: number };

function problemOf({ code = '', rawPacket, bytesParsed = 0 }: ParserError): Problem | undefined {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return new Problem('headers-too-large', `Header fields may take ${LIMITS.maxHeaderSize} bytes in all.`);
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new Problem('request-timeout', 'Send the whole request without long pauses.');
    case 'HPE_INVALID_METHOD': {
      // A packet may begin with another request, which was fine.
      const method = UNKNOWN_METHOD.exec(rawPacket?.toString('latin1', 0, LIMITS.maxHeaderSize) ?? '')?.[1];
      return method !== undefined && bytesParsed <= method.length ? methodNotAllowed() : malformed();
    }
    default:
      return code.startsWith('HPE_') ? malformed() : undefined;
  }
}

function malformed(): Problem {
  return new Problem('malformed-request', 'This is not HTTP/1.1 as RFC 9112 has it.');
}

function methodNotAllowed(): Problem {
  const allow = 'GET, HEAD, POST';
  return new Problem('method-not-allowed', `Use ${allow}.`, { headers: { Allow: allow } });
}
