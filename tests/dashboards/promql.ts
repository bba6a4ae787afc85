import type { SyntaxNode } from '@lezer/common';
import type { LRParser } from '@lezer/lr';
import { createRequire } from 'node:module';
import { substitute } from './model';

// It ships both kinds of modules, but types of one.
const { parser } = createRequire(__filename)('@prometheus-io/lezer-promql') as { readonly parser: LRParser };

/** What rules want to know of an expression, from Prometheus' own grammar. */
export interface Expression {
  /** Where the grammar gave up; undefined of one that parses. */
  readonly fault: string | undefined;
  readonly selectors: readonly Selector[];
  /** Divisors as they stand there. */
  readonly divisors: readonly string[];
  /** Labels of `by (…)`, of every aggregation. */
  readonly grouped: readonly string[];
  /** Text of every aggregation, and the labels that it keeps. */
  readonly aggregations: readonly {
    readonly operator: string;
    readonly by: readonly string[];
    readonly text: string;
  }[];
}

export interface Selector {
  readonly metric: string;
  /** Label -> `=~"value"`, several of one label in their order. */
  readonly matchers: readonly { readonly label: string; readonly operator: string; readonly value: string }[];
  /** The function or aggregation that it stands directly in. */
  readonly within: string | undefined;
  /** Such as `$__rate_interval`; undefined of an instant selector. */
  readonly range: string | undefined;
}

/** Durations that nobody writes stand for Grafana's, so that the grammar reads them. */
const STAND_INS = { rateInterval: '61001ms', range: '61002ms', interval: '61003ms' } as const;

export function parseExpression(expr: string): Expression {
  // Variables of the dashboard stand inside strings, which the grammar lets pass.
  const text = expr
    .replaceAll('$__rate_interval', STAND_INS.rateInterval)
    .replaceAll('$__interval', STAND_INS.interval)
    .replaceAll('$__range', STAND_INS.range);
  const selectors: Selector[] = [];
  const divisors: string[] = [];
  const aggregations: { operator: string; by: string[]; text: string }[] = [];
  let fault: string | undefined;
  const read = (node: SyntaxNode) => text.slice(node.from, node.to);
  parser.parse(text).iterate({
    enter({ node, name, type }) {
      if (type.isError) fault ??= `at "${text.slice(node.from, node.from + 20)}"`;
      if (name === 'VectorSelector') selectors.push(readSelector(node, read));
      if (name === 'BinaryExpr' && node.getChild('Div')) divisors.push(read(node.lastChild!));
      if (name === 'AggregateExpr') {
        const labels = node.getChild('AggregateModifier')?.getChild('GroupingLabels')?.getChildren('LabelName') ?? [];
        aggregations.push({ operator: read(node.firstChild!), by: labels.map(read), text: read(node) });
      }
    },
  });
  return { fault, selectors, divisors, grouped: aggregations.flatMap(({ by }) => by), aggregations };
}

function readSelector(node: SyntaxNode, read: (node: SyntaxNode) => string): Selector {
  const identifier = node.getChild('Identifier');
  const matchers = node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? [];
  const matrix = node.parent?.name === 'MatrixSelector' ? node.parent : undefined;
  const duration = matrix && read(matrix.lastChild!.name === ']' ? matrix.lastChild!.prevSibling! : matrix.lastChild!);
  let call = (matrix ?? node).parent;
  while (call !== null && ['OffsetExpr', 'FunctionCallBody'].includes(call.name)) call = call.parent;
  return {
    metric: identifier ? read(identifier) : '',
    matchers: matchers.map((matcher) => ({
      label: read(matcher.getChild('LabelName')!),
      operator: read(matcher.getChild('MatchOp')!),
      value: read(matcher.getChild('StringLiteral')!).slice(1, -1),
    })),
    within: call !== null && ['FunctionCall', 'AggregateExpr'].includes(call.name) ? read(call.firstChild!) : undefined,
    range:
      duration === undefined
        ? undefined
        : duration.includes(STAND_INS.rateInterval)
          ? '$__rate_interval'
          : duration.includes(STAND_INS.range)
            ? '$__range'
            : duration.includes(STAND_INS.interval)
              ? '$__interval'
              : duration,
  };
}

/** As promtool reads it: one rule for each expression. */
export function asRules(expressions: readonly string[]) {
  return expressions.map((expr, index) => ({
    record: `query:${index}`,
    expr: substitute(expr, { rateInterval: '5m', range: '1h', variable: 'word' }),
  }));
}
