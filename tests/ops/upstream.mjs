// What stands behind the gateway in its tests: the API on 8000, Prometheus on 9090, Alertmanager on 9093 and Grafana on 3000 in one process.
// It answers with what arrived. `/slow/<ms>` waits, `/hang` never answers, `/cut` or `?cut` closes, `/fails/<name>` or
// `?fails=<name>` closes in the container of that name only, `/own-headers` brings all
// header fields of the API, `/problem` is a refusal by the API. An export sends a line, waits `pause` ms and sends
// another one; with `cut` it breaks off instead.
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const API_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'strict-origin-when-cross-origin',
  'Strict-Transport-Security': 'max-age=31536000; includeSubDomains',
  'Cache-Control': 'no-store',
};

async function answer(request, response) {
  let bytes = 0;
  for await (const chunk of request) bytes += chunk.length;
  const path = request.url.split('?')[0];
  if (path === '/hang') return;
  const { searchParams } = new URL(request.url, 'http://x');
  if (path === '/api/v1/loans/export') return exportLoans(searchParams, response);
  if (path === '/cut' || searchParams.has('cut')) return request.socket.destroy();
  if ([path, `/fails/${searchParams.get('fails')}`].includes(`/fails/${process.env.NAME}`))
    return request.socket.destroy();
  const [, milliseconds] = /^\/slow\/(\d+)$/.exec(path) ?? [];
  if (milliseconds) await sleep(Number(milliseconds));
  const problem = path === '/problem';
  response.writeHead(problem ? 422 : 200, {
    'Content-Type': problem ? 'application/problem+json' : 'application/json',
    'X-Request-ID': request.headers['x-request-id'] ?? '',
    ...(path === '/own-headers' || problem ? API_HEADERS : {}),
  });
  const { method, url, headers, rawHeaders } = request;
  const port = request.socket.localPort;
  response.end(JSON.stringify({ name: process.env.NAME, port, method, url, headers, rawHeaders, bytes }));
}

async function exportLoans(query, response) {
  response.writeHead(200, { 'Content-Type': 'text/csv', ...API_HEADERS });
  response.write('first\r\n');
  await sleep(Number(query.get('pause')));
  if (query.has('cut')) return response.destroy();
  response.end('second\r\n');
}

function upgrade(request, socket) {
  const key = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  const accept = createHash('sha1').update(key).digest('base64');
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  socket.on('data', (data) => socket.write(data));
  socket.on('error', () => socket.destroy());
}

for (const port of [8000, 9090, 9093, 3000]) {
  const server = createServer({ keepAliveTimeout: 75_000 }, (request, response) => void answer(request, response));
  if (port === 3000) server.on('upgrade', upgrade);
  server.listen(port, '0.0.0.0');
}
process.on('SIGTERM', () => process.exit(0));
