import type { LoanStatus } from '../../app/domain/loan';
import { type Answer, LOAN, type TestService } from './harness';

/** What tests of repayments do to loans over HTTP. Paths are those of loans, as Location has them. */

const JSON_BODY = { 'content-type': 'application/json' };
type Headers = Record<string, string>;

export function borrower(api: Pick<TestService, 'post' | 'ask'>) {
  const post = (path: string, body: object, headers: Headers = {}): Promise<Answer> =>
    api.ask('POST', path, { headers: { ...JSON_BODY, ...headers }, body: JSON.stringify(body) });
  return {
    post,
    get: (path: string): Promise<Answer> => api.ask('GET', path),
    move: (path: string, to: LoanStatus, headers?: Headers) =>
      post(`${path}/transitions`, { to, reason: 'for the test' }, headers),
    pay: (path: string, body: object | string, headers?: Headers) =>
      post(`${path}/repayments`, typeof body === 'string' ? { amount: body } : body, headers),
    reverse: (path: string, repaymentId: string, headers?: Headers, body: object = { reason: 'bounced' }) =>
      post(`${path}/repayments/${repaymentId}/reversal`, body, headers),
    /** A new loan after these moves; the path of it. */
    async loan(changes: object = {}, moves: readonly LoanStatus[] = ['approved', 'disbursed']): Promise<string> {
      const created = await api.post({ ...LOAN, ...changes });
      if (created.status !== 201) throw new Error(created.text);
      const path = created.headers.location!;
      for (const to of moves) {
        const moved = await this.move(path, to);
        if (moved.status !== 200) throw new Error(moved.text);
      }
      return path;
    },
  };
}

export const share = (principal: string, interest: string, total: string) => ({ principal, interest, total });
export const NOTHING = share('0.00', '0.00', '0.00');
