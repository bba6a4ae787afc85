/** Line charts as SVG text, complete in themselves: no script, no font, nothing from another host; light and dark. */

export interface Series {
  readonly name: string;
  readonly tone: 'good' | 'bad' | 'calm' | 'warm';
  /** Time in milliseconds since 1970, and the value; NaN leaves a gap. */
  readonly points: readonly (readonly [at: number, value: number])[];
}

/** A stretch of time that is shaded. */
export interface Band {
  readonly from: number;
  readonly to: number;
  readonly label: string;
}

export interface ChartSpec {
  readonly title: string;
  readonly unit: string;
  readonly series: readonly Series[];
  /** What is shown, in milliseconds since 1970; the axis counts seconds from its begin. */
  readonly span: readonly [from: number, to: number];
  readonly bands?: readonly Band[];
  /** A line across, such as an objective. */
  readonly threshold?: { readonly value: number; readonly label: string };
  /** `log` shows milliseconds and seconds at the same time. */
  readonly scale?: 'linear' | 'log';
}

const WIDTH = 760;
const HEIGHT = 220;
const PLOT = { left: 58, right: 744, top: 40, bottom: 188 };

const STYLE = `text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:14px;font-weight:600}.g{stroke:#ccc;stroke-width:.6}
.b{fill:#f6c46a;opacity:.35}.h{stroke:#888;stroke-dasharray:5 4}path{fill:none;stroke-width:1.8;stroke-linejoin:round}
.good{stroke:#1a7f37}.bad{stroke:#c62828;stroke-dasharray:7 3}.calm{stroke:#1f5fbf}.warm{stroke:#8a5a00;stroke-dasharray:2 3}.p{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#ddd}.p{fill:#16181d}.g{stroke:#444}.good{stroke:#5fd07c}.bad{stroke:#ff7b72}.calm{stroke:#79b0ff}.warm{stroke:#e3b341}.b{opacity:.22}}`;

/** One chart, or several below each other. */
export function renderChart(...specs: readonly ChartSpec[]): string {
  const titles = specs.map(({ title }) => title).join('; ');
  const panels = specs.map((spec, index) => `<g transform="translate(0 ${index * HEIGHT})">${panel(spec)}</g>`);
  const size = `viewBox="0 0 ${WIDTH} ${HEIGHT * specs.length}" width="${WIDTH}" height="${HEIGHT * specs.length}"`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-label="${escapeText(titles)}">` +
    `<style>${STYLE}</style><rect class="p" width="100%" height="100%"/>${panels.join('')}</svg>\n`
  );
}

function panel({ title, unit, series, span, bands = [], threshold, scale = 'linear' }: ChartSpec): string {
  const [from, to] = span;
  const values = series.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  const highest = Math.max(threshold?.value ?? 0, ...values) || 1;
  const axis = scale === 'log' ? logAxis(highest) : linearAxis(highest);
  const x = (at: number) => PLOT.left + ((at - from) / Math.max(1, to - from)) * (PLOT.right - PLOT.left);
  const y = (value: number) => PLOT.bottom - axis.place(value) * (PLOT.bottom - PLOT.top);
  const label = (at: [number, number], text: string, more = '') =>
    `<text x="${one(at[0])}" y="${one(at[1])}"${more}>${escapeText(text)}</text>`;

  const shaded = bands.map((band) => {
    const [left, right] = [x(Math.max(from, band.from)), x(Math.min(to, band.to))];
    return (
      `<rect class="b" x="${one(left)}" y="${PLOT.top}" width="${one(Math.max(1, right - left))}" height="${PLOT.bottom - PLOT.top}"/>` +
      label([left + 4, PLOT.top + 13], band.label)
    );
  });
  const rules = axis.ticks.map(
    (tick) =>
      `<line class="g" x1="${PLOT.left}" x2="${PLOT.right}" y1="${one(y(tick))}" y2="${one(y(tick))}"/>` +
      label([PLOT.left - 6, y(tick) + 4], short(tick), ' text-anchor="end"'),
  );
  const seconds = (to - from) / 1_000;
  const every = niceStep(seconds / 8);
  const times = Array.from({ length: Math.floor(seconds / every) + 1 }, (_, index) =>
    label([x(from + index * every * 1_000), PLOT.bottom + 16], `${short(index * every)} s`, ' text-anchor="middle"'),
  );
  const lines = series.map(({ tone, points }) => `<path class="${tone}" d="${trace(points, x, y)}"/>`);
  const limit = threshold && [
    `<line class="h" x1="${PLOT.left}" x2="${PLOT.right}" y1="${one(y(threshold.value))}" y2="${one(y(threshold.value))}"/>`,
    label([PLOT.right, y(threshold.value) - 4], threshold.label, ' text-anchor="end"'),
  ];
  const legend = series.map(({ name, tone }, index) => {
    const left = PLOT.left + index * 150;
    return `<path class="${tone}" d="M${left} 28h22"/>${label([left + 27, 32], name)}`;
  });
  return [label([PLOT.left, 16], `${title} (${unit})`, ' class="t"'), ...legend, ...shaded, ...rules, ...times]
    .concat(lines, limit ?? [])
    .join('');
}

/** A new line after every gap; a point alone is shown as a dot would be, by a line of its own. */
function trace(points: Series['points'], x: (at: number) => number, y: (value: number) => number): string {
  let begun = false;
  return points
    .map(([at, value]) => {
      if (!Number.isFinite(value)) {
        begun = false;
        return '';
      }
      const place = `${one(x(at))} ${one(y(value))}`;
      const step = begun ? `L${place}` : `M${place}h.1`;
      begun = true;
      return step;
    })
    .join('');
}

interface Axis {
  /** 0 at the foot, 1 at the top. */
  readonly place: (value: number) => number;
  readonly ticks: readonly number[];
}

function linearAxis(highest: number): Axis {
  const step = niceStep(highest / 4);
  const count = Math.ceil(highest / step - 1e-9);
  return {
    place: (value) => value / (count * step),
    ticks: Array.from({ length: count + 1 }, (_, index) => index * step),
  };
}

/** From 1 upwards; what is less lies at the foot. */
function logAxis(highest: number): Axis {
  const powers = Math.max(1, Math.ceil(Math.log10(highest) - 1e-9));
  return {
    place: (value) => Math.max(0, Math.log10(Math.max(1, value))) / powers,
    ticks: Array.from({ length: powers + 1 }, (_, index) => 10 ** index),
  };
}

/** The next of 1, 2, 5, 10, …. */
function niceStep(atLeast: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(atLeast, 1e-9)));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= atLeast * (1 - 1e-9)) ?? 10;
  return factor * power;
}

const one = (value: number) => String(Math.round(value * 10) / 10);
const short = (value: number) => (value >= 10_000 ? `${one(value / 1_000)}k` : String(Number(value.toPrecision(6))));

export function escapeText(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  // Control characters are in no XML document.
  return text.replace(/[&<>"']/g, (character) => names[character] ?? '').replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, '?');
}
