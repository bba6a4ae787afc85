import fc from 'fast-check';
import { Client } from 'pg';
import { LOAN_STATUSES, type LoanStatus } from '../../app/domain/loan';
import { type Answer, LOAN, startService, type TestService, until } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

const JSON_BODY = { 'content-type': 'application/json' };
const REASON: Partial<Record<LoanStatus, string>> = { rejected: 'no income', defaulted: '90 days late' };

function move(id: string, body: object, headers: Record<string, string> = {}, service = api): Promise<Answer> {
  const options = { headers: { ...JSON_BODY, ...headers }, body: JSON.stringify(body) };
  return service.ask('POST', `/api/v1/loans/${id}/transitions`, options);
}

const moveTo = (id: string, to: LoanStatus, service = api) => move(id, { to, reason: REASON[to] }, {}, service);

async function loanIn(...path: LoanStatus[]): Promise<string> {
  const { id } = (await api.post(LOAN)).json() as { id: string };
  for (const to of path) expect((await moveTo(id, to)).status).toBe(200);
  return id;
}

async function lockLoan(id: string) {
  const { host, port, name, user } = api.database.connection;
  const client = new Client({ host, port, database: name, user });
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT 1 FROM loans WHERE id = $1 FOR UPDATE', [id]);
  return { release: () => client.end() };
}

async function waitingForLocks(): Promise<number> {
  const [row] = await api.database.sql<{ count: number }>(
    "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
  );
  return row!.count;
}

describe('POST /api/loans/:id/transitions', () => {
  it('moves a loan to its next status', async () => {
    const created = await api.post(LOAN);
    const loan = created.json();
    const moved = await api.ask('POST', `/api/loans/${String(loan.id).toUpperCase()}/transitions`, {
      headers: { ...JSON_BODY, 'x-request-id': 'move-line' },
      body: '{"to":"approved","reason":null}',
    });
    expect(moved.status).toBe(200);
    expect(moved.json()).toEqual({ ...loan, status: 'approved', updated_at: expect.any(String) });
    expect(moved.json().updated_at >= loan.created_at).toBe(true);
    expect((await api.ask('GET', created.headers.location!)).text).toBe(moved.text);
    expect(api.logs().filter((line) => line.request_id === 'move-line' && line.message === 'loan moved')).toEqual([
      expect.objectContaining({ loan_id: loan.id, from: 'pending', to: 'approved' }),
    ]);
  });

  it('refuses what is not possible, and names what is', async () => {
    const id = await loanIn('approved', 'disbursed');
    const refused = await moveTo(id, 'approved');
    expect(refused.status).toBe(409);
    expect(refused.json()).toMatchObject({
      type: 'urn:problem:illegal-transition',
      detail: 'The loan is disbursed and cannot become approved. It can become repaid or defaulted.',
      allowed: ['repaid', 'defaulted'],
    });
    expect((await api.ask('GET', `/api/loans/${id}`)).json().status).toBe('disbursed');
    const rejected = await loanIn('rejected');
    expect((await moveTo(rejected, 'pending')).json().allowed).toEqual([]);
  });

  it('answers 404 for an unknown loan and 400 for what is no id', async () => {
    expect((await moveTo('00000000-0000-0000-0000-00000000ffff', 'approved')).status).toBe(404);
    expect((await moveTo('x', 'approved')).json().type).toBe('urn:problem:invalid-id');
  });

  it.each([
    [{}, '/to'],
    [{ to: 'open' }, '/to'],
    [{ to: 1 }, '/to'],
    [{ to: 'rejected' }, '/reason'],
    [{ to: 'defaulted', reason: null }, '/reason'],
    [{ to: 'rejected', reason: '  ' }, '/reason'],
    [{ to: 'rejected', reason: 'x'.repeat(1_001) }, '/reason'],
    [{ to: 'rejected', reason: 'a\0b' }, '/reason'],
    [{ to: 'approved', actor: 'somebody' }, '/actor'],
    [[], ''],
  ])('refuses the body %j', async (body, pointer) => {
    const id = await loanIn();
    const answer = await move(id, body);
    expect(answer.status).toBe(422);
    expect(answer.json().errors).toMatchObject([{ pointer }]);
    expect((await api.ask('GET', `/api/loans/${id}`)).json().status).toBe('pending');
  });

  it('counts each move, from 0', async () => {
    const before = await transitions();
    expect(Object.keys(before).sort()).toEqual([
      'approved disbursed',
      'approved withdrawn',
      'defaulted repaid',
      'disbursed defaulted',
      'disbursed repaid',
      'pending approved',
      'pending rejected',
      'pending withdrawn',
      'repaid defaulted',
      'repaid disbursed',
    ]);
    await loanIn('approved', 'disbursed', 'defaulted', 'repaid');
    const after = await transitions();
    for (const move of ['pending approved', 'approved disbursed', 'disbursed defaulted', 'defaulted repaid']) {
      expect([move, after[move]]).toEqual([move, before[move]! + 1]);
    }

    async function transitions(): Promise<Record<string, number>> {
      const { text } = await api.ask('GET', '/metrics');
      const lines = text.matchAll(/^loan_status_transitions_total\{from="(\w+)",to="(\w+)"\} (\d+)$/gm);
      return Object.fromEntries([...lines].map(([, from, to, count]) => [`${from!} ${to!}`, Number(count)]));
    }
  });

  it('withdraws a loan that is pending or approved, without a reason, for good', async () => {
    const decisions = async () =>
      Number(/^loan_decision_duration_seconds_count (\d+)$/m.exec((await api.ask('GET', '/metrics')).text)![1]);
    const before = await decisions();
    const pending = await loanIn();
    const withdrawn = await move(pending, { to: 'withdrawn' });
    expect([withdrawn.status, withdrawn.json().status]).toEqual([200, 'withdrawn']);
    expect(await decisions()).toBe(before); // It was not decided.
    const events = (await api.ask('GET', `/api/loans/${pending}/events`)).json() as object[];
    expect(events.at(-1)).toMatchObject({
      action: 'transitioned',
      from: 'pending',
      to: 'withdrawn',
      reason: null,
    });
    const approved = await loanIn('approved');
    expect((await move(approved, { to: 'withdrawn', reason: 'found another lender' })).status).toBe(200);
    for (const to of LOAN_STATUSES) {
      const refused = await move(approved, { to, reason: 'x' });
      expect([to, refused.status, refused.json().allowed]).toEqual([to, 409, []]);
    }
    for (const from of ['disbursed', 'rejected'] as const) {
      const id = from === 'rejected' ? await loanIn(from) : await loanIn('approved', from);
      expect((await move(id, { to: 'withdrawn' })).status).toBe(409);
    }
    const listed = (await api.ask('GET', '/api/loans?status=withdrawn')).json() as { id: string }[];
    expect(listed.map(({ id }) => id).sort()).toEqual([pending, approved].sort());
    expect((await api.ask('GET', '/api/stats')).json()).toMatchObject({
      by_status: { withdrawn: 2 },
      by_currency: { KES: { by_status: { withdrawn: { loans: 2, total_amount: '25000.00' } } } },
    });
  });

  it('lets one of 100 rivals through', async () => {
    const id = await loanIn();
    const database = api.database.connection;
    const instances = [api, await startService({ database }), await startService({ database })];
    const lock = await lockLoan(id);
    const rivals = Array.from({ length: 100 }, (_, index) =>
      moveTo(id, index % 2 === 0 ? 'approved' : 'rejected', instances[index % 3]),
    );
    // One of each instance has now read the loan as pending, and is about to write; the others wait for their turn.
    await until(async () => (await waitingForLocks()) >= 3);
    await lock.release();
    const answers = await Promise.all(rivals);
    for (const other of instances.slice(1)) await other.stop();
    const winners = answers.filter(({ status }) => status === 200);
    expect(winners).toHaveLength(1);
    for (const { status, text } of answers) expect([200, 409, text]).toContain(status);
    expect((await api.ask('GET', `/api/loans/${id}`)).text).toBe(winners[0]!.text);
    const events = (await api.ask('GET', `/api/loans/${id}/events`)).json() as { to: string }[];
    expect(events.map(({ to }) => to)).toEqual(['pending', winners[0]!.json().status]);
  });

  it('lets one of 10 rivals through, in 50 rounds at all points of the path', async () => {
    for (let round = 0; round < 50; round++) {
      const path: LoanStatus[] = round % 2 === 0 ? [] : ['approved', 'disbursed'];
      const id = await loanIn(...path);
      const targets = round % 2 === 0 ? (['approved', 'rejected'] as const) : (['repaid', 'defaulted'] as const);
      const answers = await Promise.all(Array.from({ length: 10 }, (_, index) => moveTo(id, targets[index % 2]!)));
      const to = (status: number) => answers.filter((answer) => answer.status === status);
      // A loan that defaulted first may still be repaid: both of these moves are legal, one after the other.
      const both = round % 2 === 1 && to(200).some((answer) => answer.json().status === 'defaulted');
      expect(to(200).length).toBe(both && to(200).length === 2 ? 2 : 1);
      expect(to(200).length + to(409).length).toBe(10);
    }
  });

  it('agrees with the model over HTTP', async () => {
    const moves: Record<string, readonly string[]> = {
      pending: ['approved', 'rejected', 'withdrawn'],
      approved: ['disbursed', 'withdrawn'],
      disbursed: ['repaid', 'defaulted'],
      defaulted: ['repaid'],
    };
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...LOAN_STATUSES), { maxLength: 12 }), async (targets) => {
        const id = await loanIn();
        let status: string = 'pending';
        for (const to of targets) {
          const legal = moves[status]?.includes(to) === true;
          const answer = await moveTo(id, to);
          expect([status, to, answer.status]).toEqual([status, to, legal ? 200 : 409]);
          if (legal) status = to;
          else expect(answer.json().allowed).toEqual(moves[status] ?? []);
        }
        expect((await api.ask('GET', `/api/loans/${id}`)).json().status).toBe(status);
      }),
      { numRuns: 40 },
    );
  });
});
