import { PipelineError, type Run } from './run';

/** How a commit stands to another one: `ahead` has it in its history, `behind` is in the other's. */
export type Order = (typeof ORDERS)[number] | 'unknown';
const ORDERS = ['ahead', 'identical', 'behind', 'diverged'] as const;

/** @returns how `head` stands to `base`; `unknown` where nobody here can say */
export type History = (base: string, head: string) => Promise<Order>;

/** `latest` moves to what certainly comes after the one it is of, and to nothing else. */
export const mayBecomeLatest = (order: Order) => order === 'ahead' || order === 'identical';

/**
 * A run that was overtaken must not take an environment back. What is on another branch may follow: two branches may lead to
 * one environment, and a history may be written anew.
 */
export const isOvertaken = (order: Order) => order === 'behind';

export const COMMIT = /^[0-9a-f]{40}$/;

/**
 * Asks GitHub where there is a token for it, and else git, where the history is at hand.
 * @param api address, `owner/name` and token of GitHub
 */
export function historyOf(
  run: Run,
  api: { readonly url: string; readonly repository: string; readonly token: string } | undefined,
): History {
  if (api === undefined) {
    return async (base, head) => {
      if (base === head) return 'identical';
      const has = async (older: string, newer: string) =>
        (await run('git', ['merge-base', '--is-ancestor', older, newer])).code;
      const [ahead, behind] = [await has(base, head), await has(head, base)];
      if (ahead === 0) return 'ahead';
      if (behind === 0) return 'behind';
      return ahead === 1 && behind === 1 ? 'diverged' : 'unknown';
    };
  }
  return async (base, head) => {
    const path = `/repos/${api.repository}/compare/${base}...${head}`;
    const headers = { accept: 'application/vnd.github+json', authorization: `Bearer ${api.token}` };
    let reason = '';
    for (let tried = 0; tried < 3; tried++) {
      if (tried > 0) await new Promise((done) => setTimeout(done, 1_000 * tried));
      try {
        const answer = await fetch(api.url + path, { headers, signal: AbortSignal.timeout(10_000) });
        // A commit that is no longer there: the history was written anew. So says it of a repository that may not be read.
        if (answer.status === 404) {
          const all = await fetch(`${api.url}/repos/${api.repository}`, {
            headers,
            signal: AbortSignal.timeout(10_000),
          });
          if (all.ok) return 'diverged';
        }
        const { status } = (answer.ok ? await answer.json() : {}) as { status?: string };
        const order = ORDERS.find((each) => each === status);
        if (order !== undefined) return order;
        reason = `status ${answer.status}`;
      } catch (error) {
        reason = String(error);
      }
    }
    throw new PipelineError(`GitHub cannot be asked which of two commits is newer (${reason}): run the job again`);
  };
}
