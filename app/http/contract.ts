import { z } from 'zod';
import { LOAN_OPERATIONS, loanComponents } from './contract/loans';
import type { Components } from './contract/operation';
import { PROBE_COMPONENTS, PROBE_OPERATIONS } from './contract/probes';
import { SRE_COMPONENTS, SRE_OPERATIONS } from './contract/sre';
import { SYSTEM_COMPONENTS, SYSTEM_OPERATIONS } from './contract/system';
import { REPAYMENT_COMPONENTS, REPAYMENT_OPERATIONS } from './contract/repayments';
import { decimalText, status } from './contract/values';

/**
 * What the API takes and gives: every schema validates a request or describes an answer, and all of it becomes the
 * OpenAPI document. The operations of contract/ are the only routes there are.
 */
export const OPERATIONS = [
  ...LOAN_OPERATIONS,
  ...REPAYMENT_OPERATIONS,
  ...SYSTEM_OPERATIONS,
  ...SRE_OPERATIONS,
  ...PROBE_OPERATIONS,
] as const;

/** Every operation has exactly one handler: see Record<OperationId, …>. */
export type OperationId = (typeof OPERATIONS)[number]['id'];

export const problemSchema = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string().optional(),
    request_id: z.string(),
    allowed: z.array(status).optional().meta({ description: 'Of illegal-transition: the statuses that are possible' }),
    scope: z.string().optional().meta({ description: 'Of forbidden: the scope that the key lacks' }),
    'violated-policies': z
      .array(z.string())
      .optional()
      .meta({ description: 'Of quota-exceeded: the policies, as RateLimit-Policy names them' }),
    outstanding: decimalText.optional().meta({ description: 'Of overpayment: all that is outstanding' }),
    errors: z
      .array(z.strictObject({ pointer: z.string().optional(), parameter: z.string().optional(), detail: z.string() }))
      .optional(),
  })
  .meta({ description: 'RFC 9457' });

/** @param maxAmount the largest amount of one loan: see parseLimits. */
export function components(maxAmount: string): Components {
  return {
    ...loanComponents(maxAmount),
    ...REPAYMENT_COMPONENTS,
    ...SYSTEM_COMPONENTS,
    ...SRE_COMPONENTS,
    ...PROBE_COMPONENTS,
    Problem: problemSchema,
  };
}
