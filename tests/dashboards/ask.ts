import { type Query, substitute, type Values } from './model';

/** Asks a real Prometheus what panels would ask it. */

export interface Series {
  readonly metric: Readonly<Record<string, string>>;
  /** Numbers as Prometheus writes them; one of an instant query. */
  readonly values: readonly number[];
}

/** GET of a path below Prometheus' /api/v1/. @returns the body */
export type Get = (path: string) => Promise<string>;

export interface Asked extends Values {
  /** Length of the time that graphs show, in seconds; it ends now. */
  readonly seconds: number;
}

const STEP_SECONDS = 15;

/** @throws Error with Prometheus' own words for a query that it refuses */
export async function run(get: Get, query: Pick<Query, 'expr' | 'instant'>, asked: Asked): Promise<Series[]> {
  const parameters = new URLSearchParams({ query: substitute(query.expr, asked) });
  if (!query.instant) {
    const now = Date.now() / 1_000;
    for (const [name, value] of Object.entries({ start: now - asked.seconds, end: now, step: STEP_SECONDS }))
      parameters.set(name, String(value));
  }
  const body = await get(`${query.instant ? 'query' : 'query_range'}?${parameters.toString()}`);
  const answer = JSON.parse(body) as Answer;
  if (answer.status !== 'success') throw new Error(`${query.expr}: ${answer.error ?? body}`);
  return answer.data.result.map(({ metric, value, values }) => ({
    metric,
    values: (values ?? (value ? [value] : [])).map(([, text]) => Number(text.replace('Inf', 'Infinity'))),
  }));
}

interface Answer {
  readonly status: string;
  readonly error?: string;
  readonly data: {
    readonly result: readonly {
      readonly metric: Record<string, string>;
      readonly value?: readonly [number, string];
      readonly values?: readonly (readonly [number, string])[];
    }[];
  };
}

/** Whether somebody who looks would see something: a figure that is not NaN. */
export const hasData = (series: readonly Series[]) =>
  series.some(({ values }) => values.some((value) => !isNaN(value)));

export const nameOf = ({ dashboard, panel, refId }: Query) => `${dashboard} / ${panel} / ${refId}`;

/** Names of the queries without data, in their order. */
export async function emptyOf(get: Get, queries: readonly Query[], asked: Asked): Promise<string[]> {
  const names: string[] = [];
  for (const query of queries) if (!hasData(await run(get, query, asked))) names.push(nameOf(query));
  return names;
}
