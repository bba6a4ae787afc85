import type { History, Period } from '../sre/history';
import type { Source } from '../sre/sre';
import { escape } from './html';

/** The past of the service on the page /status: bars for the eye, the same as tables for everybody. Times are UTC. */
export function historySection(history: History & Source): string {
  const since = history.source === 'prometheus' ? '' : '<p>There is no record of the past here.</p>';
  return `<section aria-labelledby="history">
<h2 id="history">The last ${history.days.length} days</h2>
${since}${chart(history.days, 'day')}
<h2>The last ${history.hours.length} hours</h2>
${chart(history.hours, 'hour')}
<h2 id="incidents">What went wrong</h2>
<ul class="incidents" aria-labelledby="incidents">${incidents(history)}</ul>
<p><small>Times are UTC. As of ${history.as_of.slice(0, 19).replace('T', ' ')}.</small></p>
</section>`;
}

/** Of what is worse than that, the bar has another colour; the table says it in words. */
const GOOD = 0.999;
const BAR = { width: 8, gap: 2, height: 40 } as const;

function chart(periods: readonly Period[], kind: 'day' | 'hour'): string {
  const known = periods.filter(({ availability }) => availability !== null);
  const bars = periods.map((period, index) => bar(period, index));
  const width = periods.length * (BAR.width + BAR.gap) - BAR.gap;
  const summary = `${known.length} of ${periods.length} ${kind}s are known${
    known.length === 0 ? '' : `; reached in ${percent(mean(known))} of that time`
  }.`;
  const rows = periods.map(
    ({ from, availability, known: part }) =>
      `<tr><th scope="row"><time datetime="${from}">${time(from, kind)}</time></th><td>${
        availability === null ? 'no data' : percent(availability)
      }</td><td>${part === 0 ? '' : percent(part)}</td></tr>`,
  );
  return `<p>${summary}</p>
<svg class="bars" viewBox="0 0 ${width} ${BAR.height}" preserveAspectRatio="none" role="img" aria-label="${summary}">${bars.join('')}</svg>
<details><summary>By ${kind}, as a table</summary><div class="scroll" role="group" aria-label="By ${kind}" tabindex="0"><table>
<thead><tr><th scope="col">${kind === 'day' ? 'Day' : 'Hour'}</th><th scope="col">Reached</th><th scope="col">Of which is known</th></tr></thead>
<tbody>${rows.reverse().join('\n')}</tbody></table></div></details>`;
}

/** As high as the part of the period that is known; above it stands what is not, in a colour of its own. */
function bar({ from, availability, known }: Period, index: number): string {
  const kind = availability === null || availability >= GOOD ? 'good' : availability >= 0.98 ? 'poor' : 'bad';
  const height = availability === null ? 0 : Math.max(1, Math.round(BAR.height * known));
  const text = `${from.slice(0, 16).replace('T', ' ')}: ${availability === null ? 'no data' : percent(availability)}`;
  const part = (name: string, y: number, tall: number) =>
    tall === 0
      ? ''
      : `<rect class="${name}" x="${index * (BAR.width + BAR.gap)}" y="${y}" width="${BAR.width}" height="${tall}"/>`;
  return `<g><title>${text}</title>${part('unknown', 0, BAR.height - height)}${part(kind, BAR.height - height, height)}</g>`;
}

function incidents({ incidents: list, incidents_from: from, source }: History & Source): string {
  const rows = list.map(({ what, from: start, to }) => `<li>${escape(what)}: ${span(start, to)}</li>`);
  if (rows.length > 0) return rows.join('\n');
  return source === 'prometheus' ? `<li>Nothing since ${time(from, 'day')}.</li>` : '<li>Unknown.</li>';
}

function span(from: string, to: string | null): string {
  const minutes = (text: string) => text.slice(0, 16).replace('T', ' ');
  return to === null ? `since ${minutes(from)}, and still` : `${minutes(from)} to ${minutes(to)}`;
}

function mean(periods: readonly Period[]): number {
  const weight = periods.reduce((sum, { known }) => sum + known, 0);
  return periods.reduce((sum, { availability, known }) => sum + (availability ?? 0) * known, 0) / weight;
}

/** Never rounded up to a whole that it was not. */
export function percent(share: number): string {
  const hundredths = Math.floor(share * 10_000 + 1e-6);
  return `${(hundredths / 100).toFixed(2).replace(/\.?0+$/, '')} %`;
}

function time(from: string, kind: 'day' | 'hour'): string {
  return kind === 'day' ? from.slice(0, 10) : from.slice(0, 16).replace('T', ' ');
}
