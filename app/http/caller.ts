import { isIPv6 } from 'node:net';
import type { Config } from '../config';
import type { Context } from './context';
import { UNAUTHENTICATED } from './observe';

const ADDRESS = 'address:';

/**
 * Whom a request counts against: the principal, or for those without one the client's address. An IPv6 client has a
 * whole /64 to choose addresses from, so that is what counts as one.
 */
export function callerOf(ctx: Context, source: Config['clientAddress']): string {
  const { principal } = ctx.state;
  return principal === UNAUTHENTICATED ? ADDRESS + networkOf(clientAddress(ctx, source)) : principal;
}

/** Of these anybody can have as many as they like. */
export function isAnonymous(caller: string): boolean {
  return caller.startsWith(ADDRESS);
}

/** The last address of X-Forwarded-For is what the gateway itself saw. Without the field it is one of our own probes. */
function clientAddress(ctx: Context, source: Config['clientAddress']): string {
  const { headers, socket } = ctx.req;
  const forwarded = source === 'x-forwarded-for' ? headers['x-forwarded-for'] : undefined;
  const last =
    String(forwarded ?? '')
      .split(',')
      .at(-1)
      ?.trim() ?? '';
  return last === '' ? (socket.remoteAddress ?? '') : last;
}

const IN_IPV6 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;
const LONGEST_ADDRESS = 45;

function networkOf(address: string): string {
  const ipv4 = IN_IPV6.exec(address)?.[1];
  if (ipv4 !== undefined || !isIPv6(address)) return ipv4 ?? address.slice(0, LONGEST_ADDRESS);
  const [before = '', after] = address.replace(/%.*$/, '').split('::');
  const head = before === '' ? [] : before.split(':');
  const tail = after === undefined || after === '' ? [] : after.split(':');
  const zeros = after === undefined ? 0 : 8 - head.length - tail.length;
  const groups = [...head, ...Array.from({ length: zeros }, () => '0'), ...tail];
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}
