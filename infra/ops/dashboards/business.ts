import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { JOBS } from '../exporters';
import type { DashboardSpec, PanelSpec } from './builder';
import { max, min, ratio, seriesOf, sum } from './query';

const api = seriesOf(JOBS.api);
const CHOSEN = 'currency=~"$currency"';
/** Every replica reads the same book: the largest is one of them, a sum would be a multiple. */
const loans = (...matchers: readonly string[]) =>
  max(api.select(METRICS.loansCurrent.name, CHOSEN, ...matchers), 'status', 'currency');

/** What the overview shows too. */
export const shared = {
  loans: {
    kind: 'stat',
    title: 'Loans by status',
    description: 'Loans of the book. Pending that grows: nobody decides.',
    unit: units.Short,
    width: 12,
    queries: { '{{status}}': sum(loans(), 'status') },
  },
  created: {
    title: 'Loans created',
    description:
      'Loans created in each step of the graph, by currency. None in hours that usually have some: ask the clients.',
    unit: units.Short,
    width: 8,
    queries: { '{{currency}}': sum(api.increase(METRICS.loansCreated.name, CHOSEN), 'currency') },
    alerts: ['NoLoansCreated'],
  },
  age: {
    kind: 'stat',
    title: 'Age of the book',
    description:
      'How old the figures of the book are, in the container that is behind the most. The objective is 60 s.',
    unit: units.Seconds,
    width: 4,
    queries: { age: `time() - ${min(api.select(METRICS.loansRefreshed.name))}` },
    thresholds: { warning: 60, critical: 300 },
    alerts: ['LoanMetricsStale'],
  },
} satisfies Record<string, PanelSpec>;

export const currencyVariable = {
  currency: { series: `${METRICS.loansCurrent.name}{env=~"$env",job="${JOBS.api}"}`, label: 'currency' },
};

export const businessDashboard: DashboardSpec = {
  uid: 'loans-business',
  title: 'Loans / Business',
  description:
    'The book and what changes it: loans, amounts, decisions and repayments. Amounts stay apart by currency.',
  jobs: [JOBS.api],
  variables: currencyVariable,
  rows: { Book: book(), Flow: flow(), Decisions: decisions() },
};

function book(): PanelSpec[] {
  return [
    shared.loans,
    {
      kind: 'stat',
      title: 'Default ratio',
      description: 'Loans in default of all that were paid out. A rise is credit risk, not a fault of the service.',
      unit: units.PercentUnit,
      width: 4,
      queries: {
        defaulted: ratio(sum(loans('status="defaulted"')), sum(loans('status=~"disbursed|repaid|defaulted"'))),
      },
    },
    shared.age,
    {
      kind: 'stat',
      title: 'Currencies',
      description:
        'Currencies with a loan in the book. A new one without a word from the business is a client at fault.',
      unit: units.Short,
      width: 4,
      queries: { currencies: `count(${sum(loans(), 'currency')})` },
    },
    {
      title: 'Outstanding principal',
      description:
        'What borrowers owe, in units of each currency. A fall without repayments is a fault: see the ledger.',
      unit: units.NoUnit,
      width: 12,
      queries: { '{{currency}}': max(api.select(METRICS.loansOutstanding.name, CHOSEN), 'currency') },
    },
    {
      kind: 'table',
      title: 'Amounts by status',
      description: 'Amounts of the loans of the book, in units of each currency.',
      unit: units.NoUnit,
      width: 12,
      queries: { '{{status}} {{currency}}': max(api.select(METRICS.loansAmount.name, CHOSEN), 'status', 'currency') },
    },
  ];
}

function flow(): PanelSpec[] {
  return [
    shared.created,
    {
      kind: 'stacked',
      title: 'Status transitions',
      description: 'Loans that moved from one status to another, in each step of the graph.',
      unit: units.Short,
      width: 8,
      queries: { '{{from}} to {{to}}': sum(api.increase(METRICS.loanTransitions.name), 'from', 'to') },
    },
    {
      title: 'Repayments',
      description:
        'Repayments recorded, and taken back, in each step of the graph. Many taken back: somebody books wrongly.',
      unit: units.Short,
      width: 8,
      queries: {
        '{{currency}}': sum(api.increase(METRICS.repayments.name, CHOSEN), 'currency'),
        '{{currency}} taken back': sum(api.increase(METRICS.repaymentReversals.name, CHOSEN), 'currency'),
      },
    },
  ];
}

function decisions(): PanelSpec[] {
  const moved = (to: string) => sum(api.total(METRICS.loanTransitions.name, `to=~"${to}"`));
  return [
    {
      kind: 'stat',
      title: 'Approval ratio',
      description:
        'Approvals of all decisions in the range of the dashboard. A jump: a rule of the desk, or a client, changed.',
      unit: units.PercentUnit,
      width: 4,
      queries: { approved: ratio(moved('approved'), moved('approved|rejected')) },
    },
    {
      title: 'Amount requested, median',
      description: 'Half of the loans asked for less, in units of each currency, as exactly as the buckets are narrow.',
      unit: units.NoUnit,
      width: 10,
      queries: { '{{currency}}': api.quantile(0.5, METRICS.loanAmountRequested.name, ['currency'], CHOSEN) },
    },
    {
      title: 'Time to decision',
      description: 'From the request for a loan to its approval or rejection. Days: borrowers go elsewhere.',
      unit: units.Seconds,
      width: 10,
      queries: {
        p50: api.quantile(0.5, METRICS.loanDecisionDuration.name),
        p95: api.quantile(0.95, METRICS.loanDecisionDuration.name),
      },
    },
  ];
}
