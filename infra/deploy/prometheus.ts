import { indent, StepError, tryDocker } from './engine';

/** One series of an instant query's answer. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  /** NaN where the query divided nothing by nothing. */
  readonly value: number;
}

/**
 * Asks the environment's own Prometheus from inside its container: no password, and it works with a remote engine.
 * @param container its name, `<prefix>-prometheus`
 * @param expression PromQL that gives a vector or a scalar
 * @throws StepError when it does not answer
 */
export async function queryPrometheus(container: string, expression: string): Promise<Sample[]> {
  const address = 'http://127.0.0.1:9090/prometheus';
  const args = ['exec', container, 'promtool', 'query', 'instant', '--format', 'json', address, expression];
  const { code, stdout, stderr } = await tryDocker(args);
  if (code !== 0)
    throw new StepError(`${container} does not answer the query ${expression}:\n${indent(stderr + stdout)}`);
  return parse(stdout);
}

type Point = [at: number, value: string];

function parse(text: string): Sample[] {
  const answer = JSON.parse(text) as Point | { metric: Record<string, string>; value: Point }[];
  const number = (value: string) => (value === '+Inf' ? Infinity : value === '-Inf' ? -Infinity : Number(value));
  if (!isVector(answer)) return [{ labels: {}, value: number(answer[1]) }];
  return answer.map(({ metric, value }) => ({ labels: metric, value: number(value[1]) }));
}

function isVector(answer: unknown): answer is { metric: Record<string, string>; value: Point }[] {
  return Array.isArray(answer) && (answer.length === 0 || typeof answer[0] === 'object');
}
