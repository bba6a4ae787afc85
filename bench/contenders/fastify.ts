import { createHash, randomUUID } from 'node:crypto';
import fastify from 'fastify';
import { byId, create, firstPage, groups, type NewLoan, nextPage, openPool, serve, statistics } from './baseline';

/** Fastify and pg as its documents show them: answers serialised by a schema, no logger. */
const text = { type: 'string' } as const;
const moment = { type: 'string', format: 'date-time' } as const;
const loan = {
  type: 'object',
  properties: {
    id: text,
    borrower_id: text,
    amount: text,
    currency: text,
    term_months: { type: ['integer', 'null'] },
    interest_rate_apr: { type: ['string', 'null'] },
    status: text,
    created_at: moment,
    updated_at: moment,
  },
} as const;
const counts = { type: 'object', additionalProperties: { type: 'integer' } } as const;
const sums = {
  type: 'object',
  additionalProperties: {
    type: 'object',
    properties: { loans: { type: 'integer' }, total_amount: { type: 'number' } },
  },
} as const;
const stats = {
  type: 'object',
  properties: { total_loans: { type: 'integer' }, by_status: counts, by_currency: sums },
} as const;

serve((port) => {
  const pool = openPool();
  const app = fastify({ logger: false });

  app.get<{ Params: { id: string } }>(
    '/api/loans/:id',
    { schema: { response: { 200: loan } } },
    async (request, reply) => {
      const { rows } = await pool.query<object>(byId(request.params.id));
      return rows[0] ?? reply.code(404).send({});
    },
  );
  app.get<{ Querystring: { created_at?: string; id?: string } }>(
    '/api/loans',
    { schema: { response: { 200: { type: 'array', items: loan } } } },
    async ({ query: { created_at, id } }) =>
      (await pool.query<object>(created_at === undefined ? firstPage : nextPage(created_at, id ?? ''))).rows,
  );
  app.post<{ Body: NewLoan }>(
    '/api/loans',
    { schema: { response: { 201: loan } } },
    async ({ body, headers }, reply) => {
      const at = new Date().toISOString();
      const row = { id: randomUUID(), ...body, status: 'pending', created_at: at, updated_at: at };
      const hash = createHash('sha256').update(JSON.stringify(body)).digest('hex');
      await pool.query(create(row.id, body, at, String(headers['idempotency-key']), hash, JSON.stringify(row)));
      return reply.code(201).header('Location', `/api/loans/${row.id}`).send(row);
    },
  );
  app.get('/api/stats', { schema: { response: { 200: stats } } }, async () =>
    statistics((await pool.query<Record<string, string>>(groups)).rows),
  );

  app.listen({ port, host: '127.0.0.1' }, (error) => {
    if (error !== null) throw error;
  });
});
