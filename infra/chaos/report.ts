import { renderChart } from '../load/chart';
import { type Figures, figuresOf, kindsOf, type Moment, type Span, spanOf } from '../load/figures';
import { chartsOf, figuresTable, Html, html, milliseconds, renderPage, timelineFor } from '../load/report';
import type { Experiment } from './experiments';
import type { Trial } from './run';
import { percent } from './verdict';

/** What the experiments showed, for the terminal, as a page, and as pictures; no I/O. */

export type Result = Verdict | NotDone;

interface About {
  readonly name: string;
  readonly title: string;
  readonly hypothesis: string;
}

export interface Verdict extends About {
  readonly means: string;
  /** Empty when the hypothesis held. */
  readonly faults: readonly string[];
  readonly before: Figures;
  readonly during: Figures;
  readonly after: Figures;
  /** From the end of the fault until the steady state held again; undefined when it did not. */
  readonly recoverySeconds: number | undefined;
  /** Of the probes of `/health/ready` during the fault: how many said yes, of how many. */
  readonly ready: readonly [yes: number, of: number];
  readonly acknowledged: number;
  /** Undefined where the database could not be asked. */
  readonly lost: number | undefined;
  /** Of what failed during the fault. */
  readonly kinds: readonly { readonly kind: string; readonly count: number }[];
  readonly faultSpan: Span;
  readonly timeline: readonly Moment[];
  readonly picture: string;
}

export interface NotDone extends About {
  readonly impossible: string;
  /** It was possible, and something else was wrong. */
  readonly unsteady?: true;
}

export function summarize({ name, title, hypothesis }: Experiment, trial: Trial): Verdict {
  const { outcomes, probes, before, during, after, recoveredAt, lost } = trial.observation;
  const within = <T>(each: readonly T[], at: (one: T) => number) =>
    each.filter((one) => at(one) >= during[0] && at(one) <= during[1]);
  const asked = within(probes, ({ at }) => at);
  const span = spanOf(outcomes) ?? during;
  const timeline = timelineFor(outcomes, span);
  const bands = [{ from: trial.faultSpan[0], to: trial.faultSpan[1], label: 'fault' }];
  const picture = renderChart(...chartsOf(timeline, span, { bands }));
  return {
    ...{ name, title, hypothesis, means: trial.means, faults: trial.faults },
    before: figuresOf(outcomes, before),
    during: figuresOf(outcomes, during),
    after: figuresOf(outcomes, after),
    recoverySeconds: recoveredAt === undefined ? undefined : Math.max(0, recoveredAt - during[1]) / 1_000,
    ready: [asked.filter(({ status }) => status === 200).length, asked.length],
    acknowledged: figuresOf(outcomes).acknowledged,
    lost: lost?.length,
    kinds: kindsOf(within(outcomes, ({ dueAt }) => dueAt)),
    ...{ faultSpan: trial.faultSpan, timeline, picture },
  };
}

/** For the terminal. */
export function renderSummary({ name, faults, during, recoverySeconds, acknowledged, lost, kinds }: Verdict): string {
  const failed = during.requests === 0 ? 0 : during.failed / during.requests;
  const back = recoverySeconds === undefined ? 'not steady again' : `steady after ${recoverySeconds.toFixed(1)} s`;
  const most = kinds[0] === undefined ? '' : ` (${kinds[0].kind})`;
  return [
    `${faults.length === 0 ? 'PASS' : 'FAIL'}  ${name}: ${percent(failed)} failed${most}, p95 ${milliseconds(during.anyP95Ms)}, ${back}, ` +
      `${acknowledged} writes acknowledged, ${lost ?? '?'} lost`,
    ...faults.map((fault) => `      ${fault}`),
  ].join('\n');
}

export interface Occasion {
  readonly stack: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly containers: number;
  /** Requests per second. */
  readonly rate: number;
}

export function renderChaosPage({ stack, startedAt, containers, rate }: Occasion, results: readonly Result[]): string {
  const verdictOf = (result: Result) =>
    'impossible' in result
      ? html`<span class="skip">${result.unsteady === true ? 'not begun' : 'not possible here'}</span>`
      : result.faults.length === 0
        ? html`<span class="pass">as expected</span>`
        : html`<span class="fail">not as expected</span>`;
  const rows = results.map(
    (result) =>
      html`<tr>
        <td><a href="#${result.name}">${result.title}</a></td>
        <td>${verdictOf(result)}</td>
      </tr>`,
  );
  return renderPage(`Chaos in ${stack}`, [
    html`<p>
        ${new Date(startedAt).toISOString()}: ${containers} API containers, ${rate} requests per second through the
        gateway, a third of them writes. Latencies count from when a request was due.
      </p>
      <table>
        <tbody>
          ${rows}
        </tbody>
      </table>`,
    ...results.map(
      (result) =>
        html`<h2 id="${result.name}">${result.title}</h2>
          <p>${result.hypothesis} ${verdictOf(result)}</p>
          ${'impossible' in result ? html`<p>${result.impossible}</p>` : detailsOf(result)}`,
    ),
  ]);
}

function detailsOf(result: Verdict): Html {
  const { means, faults, before, during, after, recoverySeconds, ready, acknowledged, lost, kinds, picture } = result;
  return html`<p>Fault: ${means}.</p>
    ${
      faults.length > 0
        ? html`<ul class="fail">
            ${faults.map((fault) => html`<li>${fault}</li>`)}
          </ul>`
        : html``
    }
    ${figuresTable([
      ['before', before],
      ['during', during],
      ['after', after],
    ])}
    <p>
      p95 with failures, during: ${milliseconds(during.anyP95Ms)}. Steady again
      ${recoverySeconds === undefined ? 'not in time' : `${recoverySeconds.toFixed(1)} s after the fault`}.
      <code>/health/ready</code> said yes ${ready[0]} of ${ready[1]} times. ${acknowledged} writes acknowledged,
      ${lost ?? 'an unknown number'} lost.
    </p>
    ${
      kinds.length > 0
        ? html`<ul>
            ${kinds.map(({ kind, count }) => html`<li>${count} × ${kind}</li>`)}
          </ul>`
        : html``
    }
    ${new Html(picture)}`;
}

/** The same as a table, for documents. */
export function renderChaosTable(results: readonly Result[]): string {
  const rows = results.map((result) => {
    if ('impossible' in result) return [result.name, `not done: ${result.impossible}`, '', '', '', '', ''];
    const { name, means, during, recoverySeconds, acknowledged, lost, kinds, faults } = result;
    const failed = during.requests === 0 ? '-' : percent(during.failed / during.requests);
    return [
      `[${name}](#${name})`,
      means,
      kinds[0] === undefined ? failed : `${failed}, most: ${kinds[0].kind}`,
      `${milliseconds(during.p95Ms)}, ${milliseconds(during.anyP95Ms)}`,
      recoverySeconds === undefined ? 'not in time' : `${recoverySeconds.toFixed(1)} s`,
      `${lost ?? '?'} of ${acknowledged}`,
      faults.length === 0 ? 'yes' : 'no',
    ];
  });
  const head = [
    'experiment',
    'fault',
    'failed meanwhile',
    'p95: answers, all',
    'steady again after',
    'lost writes',
    'as expected',
  ];
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return `${[line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')}\n`;
}
