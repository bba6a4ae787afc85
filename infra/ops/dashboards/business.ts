import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { JOBS } from '../exporters';
import { type DashboardSpec, type PanelSpec, PER_MINUTE } from './builder';
import { max, min, perMinute, ratio, rounded, seriesOf, sum } from './query';
import * as variables from './variables';

export const BUSINESS_UID = 'loans-business';

const api = seriesOf(JOBS.api);
const CHOSEN = 'currency=~"$currency"';
const DAY = 86_400;
/** Every replica reads the same book: the largest is one of them, a sum would be a multiple. */
const loans = (...matchers: readonly string[]) =>
  max(api.select(METRICS.loansCurrent.name, CHOSEN, ...matchers), 'status', 'currency');

/** What the overview shows too. */
export const shared = {
  loans: {
    kind: 'stat',
    title: 'Loans by status',
    description: 'Loans of the book. Pending that grows: no one decides.',
    unit: units.LocaleFormat,
    width: 12,
    queries: { '{{status}}': sum(loans(), 'status') },
  },
  created: {
    title: 'Loans created',
    description: 'Loans created per minute, by currency. None in hours that usually have some: ask the clients.',
    unit: PER_MINUTE,
    width: 8,
    queries: { '{{currency}}': perMinute(sum(api.rate(METRICS.loansCreated.name, CHOSEN), 'currency')) },
    alerts: ['NoLoansCreated'],
  },
  age: {
    kind: 'stat',
    title: 'Loan metrics age',
    description:
      'How old the figures of the book are, in the container that is behind the most. The objective is 60 s.',
    unit: units.Seconds,
    width: 4,
    queries: { age: `time() - ${min(api.select(METRICS.loansRefreshed.name))}` },
    thresholds: { warning: 60, critical: 300 },
    alerts: ['LoanMetricsStale'],
  },
} satisfies Record<string, PanelSpec>;

export const businessDashboard: DashboardSpec = {
  uid: BUSINESS_UID,
  title: 'Business',
  description:
    'The book and what changes it: loans, amounts, decisions and repayments. Amounts stay apart by currency.',
  variables: [variables.currency],
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
      decimals: 2,
      width: 4,
      queries: {
        defaulted: ratio(sum(loans('status="defaulted"')), sum(loans('status=~"disbursed|repaid|defaulted"'))),
      },
      empty: 'none paid out',
    },
    shared.age,
    {
      kind: 'stat',
      title: 'Currencies',
      description:
        'Currencies with a loan in the book. A new one without a word from the business is a client at fault.',
      unit: units.Short,
      width: 4,
      queries: { currencies: `count(${sum(loans(), 'currency')} > 0) or vector(0)` },
    },
    {
      title: 'Outstanding principal',
      description:
        'What borrowers owe, in units of each currency. A fall without repayments is a fault: see the ledger.',
      unit: units.LocaleFormat,
      width: 12,
      queries: { '{{currency}}': max(api.select(METRICS.loansOutstanding.name, CHOSEN), 'currency') },
    },
    {
      kind: 'table',
      title: 'Amounts by status',
      description: 'Amounts of the loans of the book, in units of each currency.',
      width: 12,
      queries: { Amount: max(api.select(METRICS.loansAmount.name, CHOSEN), 'status', 'currency') },
      columns: [
        { heading: 'Currency', label: 'currency', sort: 'up' },
        { heading: 'Status', label: 'status' },
        { heading: 'Amount', unit: units.LocaleFormat, decimals: 2 },
      ],
    },
  ];
}

function flow(): PanelSpec[] {
  const created = METRICS.loansCreated.name;
  return [
    {
      kind: 'stat',
      title: 'Loans moved',
      description:
        'The funnel, in the range of the dashboard: loans that were requested, and how many moved to each status. Requests are of the chosen currencies, moves of all.',
      unit: units.LocaleFormat,
      width: 24,
      height: 5,
      queries: {
        requested: rounded(sum(api.total(created, CHOSEN))),
        // Whatever statuses there are: the service starts the counter of each move at 0.
        '{{to}}': rounded(sum(api.total(METRICS.loanTransitions.name), 'to')),
      },
    },
    { ...shared.created, width: 12 },
    {
      title: 'Loans created, compared',
      description: 'Loans created per minute now, and at the same time a day and a week ago.',
      unit: PER_MINUTE,
      width: 12,
      queries: {
        now: perMinute(sum(api.rate(created, CHOSEN))),
        'a day ago': perMinute(sum(api.rateBefore('1d', created, CHOSEN))),
        'a week ago': perMinute(sum(api.rateBefore('1w', created, CHOSEN))),
      },
    },
    {
      kind: 'stacked',
      title: 'Status transitions',
      description: 'Loans per minute that moved from one status to another.',
      unit: PER_MINUTE,
      width: 12,
      queries: { '{{from}} to {{to}}': perMinute(sum(api.rate(METRICS.loanTransitions.name), 'from', 'to')) },
    },
    {
      title: 'Repayments',
      description: 'Repayments recorded per minute, and those taken back. Many taken back: they are booked wrongly.',
      unit: PER_MINUTE,
      width: 12,
      queries: {
        '{{currency}}': perMinute(sum(api.rate(METRICS.repayments.name, CHOSEN), 'currency')),
        '{{currency}} taken back': perMinute(sum(api.rate(METRICS.repaymentReversals.name, CHOSEN), 'currency')),
      },
    },
    {
      title: 'Amount requested a day',
      description: 'What loans were requested for, at the pace of each moment, in units of each currency for 24 hours.',
      unit: units.LocaleFormat,
      decimals: 0,
      width: 24,
      queries: {
        '{{currency}}': `${DAY} * ${sum(api.rate(`${METRICS.loanAmountRequested.name}_sum`, CHOSEN), 'currency')}`,
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
      decimals: 1,
      width: 4,
      queries: { approved: ratio(moved('approved'), moved('approved|rejected')) },
      empty: 'no decisions',
    },
    {
      title: 'Amount requested, median',
      description: 'Half of the loans asked for less, in units of each currency, as exactly as the buckets are narrow.',
      unit: units.LocaleFormat,
      decimals: 0,
      width: 10,
      queries: { '{{currency}}': api.quantile(0.5, METRICS.loanAmountRequested.name, ['currency'], CHOSEN) },
      empty: 'no loans requested',
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
      empty: 'no decisions',
    },
  ];
}
