import fc from 'fast-check';
import { CODES } from '../../app/domain/currency';
import { LOAN_STATUSES, type LoanStatus } from '../../app/domain/loan';
import { startService, type TestService } from './harness';
import { borrower } from './ledger';

/**
 * The life of a loan against a model: any moves, payments, settlements and reversals on any days. The model knows the
 * schedule from the API, and otherwise only sums: it shares no code with the service.
 */
let clock = new Date();
let api: TestService;
let at: ReturnType<typeof borrower>;
beforeAll(async () => {
  api = await startService({ maxAmount: '50000,VND=999999999999999,KWD=999999999999.999' }, { now: () => clock });
  at = borrower(api);
});
afterAll(async () => {
  const disagreeing = await api.database.sql(DISAGREEING);
  await api.stop();
  expect(disagreeing).toEqual([]);
});

/** Ledgers and events that tell different stories; entries without their event; loans behind their events. */
const DISAGREEING = `SELECT loan_id FROM repayments LEFT JOIN loan_events USING (loan_id, version)
    WHERE NOT coalesce(action IN ('paid', 'repaid', 'payment_reversed') AND NOT settlement
        OR action = 'transitioned' AND to_status = 'repaid' AND settlement, false) OR at <> created_at
      OR loan_events.actor <> repayments.actor OR loan_events.currency <> repayments.currency
  UNION ALL SELECT loan_id FROM loan_events LEFT JOIN repayments USING (loan_id, version)
    WHERE (action IN ('paid', 'repaid', 'payment_reversed') OR action = 'transitioned' AND to_status = 'repaid') AND id IS NULL
  UNION ALL SELECT id FROM loans JOIN (SELECT loan_id, max(loan_events.version) AS newest FROM loan_events GROUP BY loan_id)
    AS events ON loan_id = id WHERE version <> newest`;

const RUNS = Number(process.env.PROPERTY_RUNS ?? 40);
jest.setTimeout(90_000);

type Action =
  | { do: 'move'; to: LoanStatus }
  | { do: 'pay'; percent: number }
  | { do: 'pay all' | 'overpay' | 'pay one' }
  | { do: 'reverse'; which: number }
  | { do: 'reverse a settlement' }
  | { do: 'wait'; days: number };
const anyAction: fc.Arbitrary<Action> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('move' as const), to: fc.constantFrom(...LOAN_STATUSES) }) },
  { weight: 2, arbitrary: fc.constant({ do: 'move' as const, to: 'repaid' as const }) },
  { weight: 2, arbitrary: fc.constant({ do: 'reverse a settlement' as const }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('pay' as const), percent: fc.integer({ min: 1, max: 99 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('pay all' as const, 'overpay' as const, 'pay one' as const) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('reverse' as const), which: fc.nat(6) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), days: fc.integer({ min: 1, max: 60 }) }) },
);
const anyLoan = fc.record({
  currency: fc.constantFrom('KES', 'VND', 'KWD'),
  // Of the smallest unit.
  minor: fc.oneof(
    fc.bigInt({ min: 1n, max: 50n }),
    fc.bigInt({ min: 1n, max: 5_000_000n }),
    fc.constant(999_999_999_999_999n),
  ),
  term_months: fc.integer({ min: 1, max: 14 }),
  interest_rate_apr: fc.constantFrom(null, '0', '28.00', '100'),
  start: fc.constantFrom('2027-12-31', '2028-01-30', '2028-02-29', '2026-01-01'),
});

const LEGAL: Record<LoanStatus, readonly LoanStatus[]> = {
  pending: ['approved', 'rejected', 'withdrawn'],
  approved: ['disbursed', 'withdrawn'],
  rejected: [],
  withdrawn: [],
  disbursed: ['repaid', 'defaulted'],
  repaid: [],
  defaulted: ['repaid'],
};
const digitsOf = (currency: string) => [...CODES].find(([, codes]) => codes.includes(currency))![0];

/** The most that an entry holds, in the smallest unit. */
const largest = (currency: string) => 10n ** BigInt(15 + digitsOf(currency)) - 1n;

function writer(currency: string) {
  const digits = digitsOf(currency);
  return {
    write: (minor: bigint): string => {
      const text = minor.toString().padStart(digits + 1, '0');
      return digits === 0 ? text : `${text.slice(0, -digits)}.${text.slice(-digits)}`;
    },
    read: (text: string): bigint => {
      const [whole = '', fraction = ''] = text.split('.');
      const kept = fraction.slice(0, digits).padEnd(digits, '0');
      expect(fraction.slice(digits)).toMatch(/^0*$/);
      return BigInt(whole + kept);
    },
  };
}

const day = () => clock.toISOString().slice(0, 10);
const later = (days: number) => (clock = new Date(clock.getTime() + days * 86_400_000));

interface Model {
  status: LoanStatus;
  /** What the loan was before it was repaid. */
  before: LoanStatus;
  /** Payments and settlements. */
  readonly entries: { readonly id: string; readonly amount: bigint; readonly settlement: boolean; reversed: boolean }[];
}
const sumOf = ({ entries }: Model, settlements: boolean) =>
  entries.reduce(
    (sum, { amount, settlement, reversed }) => sum + (reversed || settlement !== settlements ? 0n : amount),
    0n,
  );
const paidOf = (model: Model) => sumOf(model, false);
const settledOf = (model: Model) => sumOf(model, true);

it('any life of a loan is that of the model', async () => {
  let reopened = 0;
  let closed = 0;
  let settledWithPayments = 0;
  let unsettled = 0;
  await fc.assert(
    fc.asyncProperty(anyLoan, fc.array(anyAction, { minLength: 4, maxLength: 16 }), async (terms, actions) => {
      const { currency, minor, term_months, interest_rate_apr, start } = terms;
      const { write, read } = writer(currency);
      const principal = currency === 'KES' && minor > 5_000_000n ? 5_000_000n : minor;
      clock = new Date(`${start}T10:00:00.000Z`);
      const path = await at.loan({ currency, amount: write(principal), term_months, interest_rate_apr });
      const { instalments } = (await at.get(`${path}/schedule`)).json() as {
        instalments: { due_date: string; payment: string }[];
      };
      const owed = instalments.reduce((sum, { payment }) => sum + read(payment), 0n);
      const model: Model = { status: 'disbursed', before: 'disbursed', entries: [] };

      for (const action of actions) {
        await step(action);
        await check();
      }
      const recorded = await entriesOf();
      const sum = recorded.reduce(
        (all, { amount, reverses }) => all + (reverses === null ? read(amount) : -read(amount)),
        0n,
      );
      const all = paidOf(model) + settledOf(model);
      // An entry holds no more than its column; what is settled may be more.
      if (!recorded.some(({ amount }) => read(amount) === largest(currency))) expect(sum).toBe(all);
      expect(recorded.filter(({ reverses }) => reverses === null).map(({ id }) => id)).toEqual(
        model.entries.map(({ id }) => id),
      );
      await checkTrail();

      async function step(action: Action): Promise<void> {
        if (action.do === 'wait') return void later(action.days);
        if (action.do === 'move') {
          const answer = await at.move(path, action.to);
          const legal = LEGAL[model.status].includes(action.to);
          expect([action, model.status, answer.status]).toEqual([action, model.status, legal ? 200 : 409]);
          if (!legal) return;
          const left = owed - paidOf(model) - settledOf(model);
          if (action.to === 'repaid') await settle(left);
          arrive(action.to);
        } else if (action.do === 'reverse' || action.do === 'reverse a settlement') {
          const entry =
            action.do === 'reverse'
              ? model.entries[action.which]
              : model.entries.findLast(({ settlement }) => settlement);
          if (entry === undefined) return;
          const answer = await at.reverse(path, entry.id);
          expect(answer.status).toBe(entry.reversed ? 409 : 201);
          if (entry.reversed) return;
          entry.reversed = true;
          if (entry.settlement) unsettled++;
          if (model.status === 'repaid') {
            model.status = model.before;
            reopened++;
          }
        } else {
          await pay(action);
        }
      }

      async function pay(action: Action & { do: 'pay' | 'pay all' | 'overpay' | 'pay one' }): Promise<void> {
        const left = owed - paidOf(model) - settledOf(model);
        const share = action.do === 'pay' ? (left * BigInt(action.percent)) / 100n : left;
        const amount = action.do === 'overpay' ? left + 1n : action.do === 'pay one' || share === 0n ? 1n : share;
        const answer = await at.pay(path, write(amount));
        if (amount > largest(currency)) {
          // More than the column holds: to be paid in parts.
          expect([answer.status, answer.json().type]).toEqual([422, 'urn:problem:invalid-amount']);
          return;
        }
        if (model.status === 'repaid') {
          expect(answer.status).toBe(409);
          return;
        }
        if (amount > left) {
          expect([answer.status, read(answer.json().outstanding as string)]).toEqual([422, left]);
          return;
        }
        expect([answer.status, answer.text]).toEqual([201, expect.any(String)]);
        const id = answer.json().repayment.id as string;
        model.entries.push({ id, amount, settlement: false, reversed: false });
        if (paidOf(model) + settledOf(model) === owed) {
          arrive('repaid');
          closed++;
        }
      }

      async function entriesOf() {
        const answer = await at.get(`${path}/repayments`);
        return answer.json() as { id: string; amount: string; reverses: string | null; settlement?: true }[];
      }

      /** After a move to repaid: what was left is an entry. */
      async function settle(left: bigint): Promise<void> {
        const last = (await entriesOf()).at(-1)!;
        const recorded = left > largest(currency) ? largest(currency) : left;
        expect([read(last.amount), last.settlement, last.reverses]).toEqual([recorded, true, null]);
        model.entries.push({ id: last.id, amount: left, settlement: true, reversed: false });
        if (paidOf(model) > 0n) settledWithPayments++;
      }

      function arrive(to: LoanStatus): void {
        if (to === 'repaid') model.before = model.status;
        model.status = to;
      }

      async function check(): Promise<void> {
        const shown = (await at.get(`${path}/balance`)).json();
        const figures = [shown.paid, shown.settled, shown.outstanding] as Record<
          'principal' | 'interest' | 'total',
          string
        >[];
        for (const { principal, interest, total } of figures) {
          expect(read(principal) + read(interest)).toBe(read(total));
          expect(total.startsWith('-')).toBe(false);
        }
        const [paid, settled, outstanding] = figures.map(({ total }) => read(total)) as [bigint, bigint, bigint];
        expect([shown.status, paid, settled]).toEqual([model.status, paidOf(model), settledOf(model)]);
        expect(paid + settled + outstanding).toBe(owed);
        expect(shown.status === 'repaid').toBe(outstanding === 0n);
        expect((await at.get(path)).json().status).toBe(model.status);
        let due = 0n;
        const oldest = instalments.find(({ payment }) => (due += read(payment)) > paid + settled);
        const open = outstanding === 0n ? undefined : oldest;
        expect(shown.next_due?.due_date).toBe(open?.due_date);
        const days = open === undefined ? 0 : (Date.parse(day()) - Date.parse(open.due_date)) / 86_400_000;
        expect(shown.days_past_due).toBe(Math.max(0, days));
      }

      async function checkTrail(): Promise<void> {
        const trail = (await at.get(`${path}/events`)).json() as {
          action: string;
          from: LoanStatus | null;
          to: LoanStatus;
          at: string;
        }[];
        let status: LoanStatus | null = null;
        let moment = '';
        for (const { action, from, to, at: when } of trail) {
          expect(from).toBe(status);
          if (action === 'transitioned') expect(LEGAL[from!]).toContain(to);
          if (action === 'paid') expect([from, ['disbursed', 'defaulted'].includes(to)]).toEqual([to, true]);
          if (action === 'repaid') expect([to, ['disbursed', 'defaulted'].includes(from!)]).toEqual(['repaid', true]);
          if (action === 'payment_reversed') expect(['disbursed', 'defaulted']).toContain(to);
          expect(when >= moment).toBe(true);
          status = to;
          moment = when;
        }
        expect(status).toBe(model.status);
      }
    }),
    { numRuns: RUNS, interruptAfterTimeLimit: 60_000 },
  );
  // Else it has shown nothing.
  expect(closed).toBeGreaterThan(0);
  expect(reopened).toBeGreaterThan(0);
  expect(settledWithPayments).toBeGreaterThan(0);
  expect(unsettled).toBeGreaterThan(0);
});

it('a loan that is not disbursed ends by a decision or by being withdrawn, and owes nothing', async () => {
  const move = fc.constantFrom(...LOAN_STATUSES.filter((status) => status !== 'disbursed'));
  await fc.assert(
    fc.asyncProperty(fc.array(move, { minLength: 1, maxLength: 6 }), async (moves) => {
      const path = await at.loan({}, []);
      let status: LoanStatus = 'pending';
      for (const to of moves) {
        const answer = await at.move(path, to);
        const legal = LEGAL[status].includes(to);
        expect([status, to, answer.status]).toEqual([status, to, legal ? 200 : 409]);
        if (legal) status = to;
        else expect(answer.json().allowed).toEqual(LEGAL[status]);
        expect((await at.get(`${path}/balance`)).json()).toMatchObject({ status, outstanding: { total: '0.00' } });
      }
    }),
    { numRuns: Math.ceil(RUNS / 2) },
  );
});
