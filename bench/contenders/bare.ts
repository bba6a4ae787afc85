import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { byId, create, firstPage, groups, type NewLoan, nextPage, openPool, serve, statistics } from './baseline';

/** The baseline: node:http and pg, nothing checked, logged or counted. Its rules are in docs/decisions/0014. */
serve((port) => {
  const pool = openPool();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { url = '', method } = request;
    if (method === 'POST') {
      const body = await readBody(request);
      const { id, text, query } = newLoan(body, String(request.headers['idempotency-key']));
      await pool.query(query);
      send(response, 201, text, id);
    } else if (url === '/api/stats') {
      send(response, 200, JSON.stringify(statistics((await pool.query<Record<string, string>>(groups)).rows)));
    } else if (url === '/api/loans') {
      send(response, 200, JSON.stringify((await pool.query(firstPage)).rows));
    } else if (url.startsWith('/api/loans?')) {
      const query = new URLSearchParams(url.slice('/api/loans?'.length));
      const { rows } = await pool.query(nextPage(query.get('created_at') ?? '', query.get('id') ?? ''));
      send(response, 200, JSON.stringify(rows));
    } else {
      const { rows } = await pool.query<object>(byId(url.slice('/api/loans/'.length)));
      if (rows[0] === undefined) send(response, 404, '{}');
      else send(response, 200, JSON.stringify(rows[0]));
    }
  }

  createServer((request, response) => {
    answer(request, response).catch((error: unknown) => send(response, 500, JSON.stringify(String(error))));
  }).listen(port, '127.0.0.1');
});

function newLoan(body: string, key: string) {
  const loan = JSON.parse(body) as NewLoan;
  const id = randomUUID();
  const at = new Date().toISOString();
  const text = JSON.stringify({ id, ...loan, status: 'pending', created_at: at, updated_at: at });
  const hash = createHash('sha256').update(body).digest('hex');
  return { id, text, query: create(id, loan, at, key, hash, text) };
}

function readBody(request: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    request.once('end', () => resolve(text)).once('error', reject);
  });
}

function send(response: ServerResponse, status: number, text: string, id?: string): void {
  const headers: Record<string, string | number> = {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(text),
  };
  if (id !== undefined) headers['Location'] = `/api/loans/${id}`;
  response.writeHead(status, headers).end(text);
}
