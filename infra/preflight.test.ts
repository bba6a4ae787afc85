import type { EnvironmentSpec } from './environment';
import { alertWarnings } from './preflight';

type Alerts = EnvironmentSpec['alerts'];
const warnings = (stack: EnvironmentSpec['stack'], alerts: { receivers?: object; runbooks?: string }) =>
  alertWarnings({ stack, alerts: { receivers: {}, runbooks: 'docs/runbooks/', ...alerts } as unknown as Alerts });
const HEARD = { webhook: true };

it.each([
  ['production', {}, /^Nobody is told/],
  ['staging', { receivers: HEARD }, /^Alerts of staging name their pages \(docs\/runbooks\/\) and link to none/],
] as const)('warns: %s %j', (stack, alerts, warning) => {
  expect(warnings(stack, alerts)).toEqual([expect.stringMatching(warning)]);
});

it.each([
  ['development', {}],
  ['production', { receivers: HEARD, runbooks: 'https://git.example/docs/runbooks/' }],
] as const)('says nothing: %s %j', (stack, alerts) => {
  expect(warnings(stack, alerts)).toEqual([]);
});
