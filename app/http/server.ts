import { randomUUID } from 'node:crypto';
import { createServer as createHttpServer, type RequestListener, type Server, type ServerOptions } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Problem } from '../errors';
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
 * @param onRefused hears of requests that never reach the handler.
 */
export function createServer(handler: RequestListener, tls: Tls | undefined, onRefused: OnRefused): HttpServer {
  const server =
    tls === undefined
      ? createHttpServer(LIMITS, handler)
      : createHttpsServer({ ...LIMITS, minVersion: 'TLSv1.2', cert: tls.certificate, key: tls.key }, handler);
  server.on('clientError', (error: ParserError, socket) => refuse(socket, problemOf(error), onRefused));
  server.on('connect', (_request, socket: Duplex) => refuse(socket, methodNotAllowed(), onRefused));
  // What is expected besides 100-continue is not known to us, and may be ignored.
  server.on('checkExpectation', handler);
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

function refuse(socket: Duplex, problem: Problem | undefined, onRefused: OnRefused): void {
  // An answer that is on its way already must not be mixed with a second one.
  const answering = (socket as Duplex & { _httpMessage?: { headersSent: boolean } })._httpMessage?.headersSent === true;
  if (problem === undefined || !socket.writable || answering) return void socket.destroy();
  const requestId = randomUUID();
  onRefused(problem, requestId);
  socket.end(rawProblemAnswer(problem, requestId), () => socket.destroy());
}

/** A request line that is well-formed, except that Node does not know its method. */
const UNKNOWN_METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+ \/\S* HTTP\/1\.[01]\r\n/;

type ParserError = NodeJS.ErrnoException & { readonly rawPacket?: Buffer };

function problemOf({ code, rawPacket }: ParserError): Problem | undefined {
  switch (code) {
    case 'ECONNRESET':
    case 'EPIPE':
      return undefined;
    case 'HPE_HEADER_OVERFLOW':
      return new Problem('headers-too-large', `Header fields may take ${LIMITS.maxHeaderSize} bytes in all.`);
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new Problem('request-timeout', 'Send the whole request without long pauses.');
    case 'HPE_INVALID_METHOD':
      return UNKNOWN_METHOD.test(rawPacket?.toString('latin1') ?? '') ? methodNotAllowed() : malformed();
    default:
      return malformed();
  }
}

function malformed(): Problem {
  return new Problem('malformed-request', 'This is not HTTP/1.1 as RFC 9112 has it.');
}

function methodNotAllowed(): Problem {
  const allow = 'GET, HEAD, POST';
  return new Problem('method-not-allowed', `Use ${allow}.`, { headers: { Allow: allow } });
}
