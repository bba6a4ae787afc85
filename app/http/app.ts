import Router from '@koa/router';
import Koa from 'koa';
import { Problem, PROBLEMS } from '../errors';
import type { Logger } from '../telemetry/logger';
import type { Failure, Metrics } from '../telemetry/metrics';
import type { Tracing } from '../telemetry/tracing';
import type { Authorize } from './authorize';
import type { Context, RequestState, Step } from './context';
import { OPERATIONS, type OperationId } from './contract';
import { problemsOf } from './contract/operation';
import type { Scope } from '../domain/api-key';
import { crossOrigin } from './cross-origin';
import { wellFormedRequest } from './framing';
import { allowedHosts } from './hosts';
import { observe, requestContext } from './observe';
import { problemDocuments, securityHeaders } from './problem';
import type { Guard } from './rate-limit';

export type Handlers = Readonly<Record<OperationId, (ctx: Context) => Promise<void> | void>>;

interface Parts {
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly isDraining: () => boolean;
  readonly authorize: Authorize;
  /** See the settings CORS_ORIGINS and ALLOWED_HOSTS. */
  readonly corsOrigins: readonly string[];
  readonly allowedHosts: readonly string[];
  /** Stands before every operation that is not public. */
  readonly limit?: Guard | undefined;
  readonly handlers: Handlers;
}

/** The way of a request through the service, from the outside in. */
export function createApp(parts: Parts): Koa<RequestState> {
  const { metrics, logger } = parts;
  const app = new Koa<RequestState>();
  app.on('error', (error: Error) => logger.log('debug', 'response not delivered', { reason: error.message }));
  app.use(requestContext(parts.tracing));
  app.use(observe(metrics, logger));
  app.use(securityHeaders);
  app.use(closeWhileDraining(parts.isDraining));
  app.use(problemDocuments(logger));
  app.use(wellFormedRequest);
  app.use(allowedHosts(parts.allowedHosts));
  if (parts.corsOrigins.length > 0) app.use(crossOrigin(parts.corsOrigins));
  app.use(routes(parts));
  app.use(noSuchOperation);
  return app;
}

/** A client that keeps its connection learns with its next answer, also one under way, to open another elsewhere. */
function closeWhileDraining(isDraining: () => boolean): Step {
  return async function closeWhileDraining(ctx, next) {
    await next();
    if (isDraining()) ctx.res.setHeader('Connection', 'close');
  };
}

/** Of the paths of an operation, the first stands for all. */
const PATTERNS = new Map(OPERATIONS.flatMap(({ paths }) => paths.map((path) => [path, paths[0] ?? path] as const)));
const patternOf = (path: string): string => PATTERNS.get(path) ?? path;

/** Every status of 5xx that an operation may answer with, by its method and route. */
export const FAILURES: readonly Failure[] = OPERATIONS.flatMap((operation) => {
  const statuses = new Set(problemsOf(operation).map((slug) => PROBLEMS[slug].status));
  return [...statuses]
    .filter((status) => status >= 500)
    .flatMap((status) => operation.paths.slice(0, 1).map((route) => ({ method: operation.method, route, status })));
});

/** Every operation is reached by way of its guards: nobody can forget them. */
function routes({ authorize, limit, handlers }: Parts) {
  const admit = async (ctx: Context, access: Scope) => {
    try {
      await authorize(ctx, access);
    } finally {
      // A key that is refused counts as well, for whoever tries it.
      await limit?.(ctx);
    }
  };
  const router = new Router<RequestState>({ strict: true, sensitive: true });
  for (const { id, access, method, paths } of OPERATIONS) {
    for (const path of paths) {
      router.register(path, [method], async (ctx, next) => {
        // Of several paths that fit, the first is meant: /api/loans/bulk is no id of a loan.
        if (firstPath(ctx) !== path) {
          await next();
          return;
        }
        ctx.state.route = patternOf(path);
        if (access !== 'public') await admit(ctx, access);
        await handlers[id](ctx);
      });
    }
  }
  return router.routes();
}

/** What the router adds: the routes whose path fits, in the order of the operations. */
interface Routed {
  readonly matched?: readonly { readonly path: string | RegExp; readonly methods: string[] }[];
}

function firstPath(ctx: Context & Routed): string | undefined {
  const [first] = ctx.matched ?? [];
  return first && String(first.path);
}

/** Nothing below answered: the path is unknown, or does not know the method. */
const noSuchOperation: Step = function noSuchOperation(ctx: Context & Routed) {
  const path = firstPath(ctx);
  if (path === undefined) throw new Problem('not-found', 'There is no such path.');
  const layers = (ctx.matched ?? []).filter((layer) => String(layer.path) === path);
  const allow = [...new Set(layers.flatMap(({ methods }) => methods))].sort().join(', ');
  if (ctx.method !== 'OPTIONS') {
    ctx.state.route = patternOf(path);
    throw new Problem('method-not-allowed', `Use ${allow}.`, { headers: { Allow: allow } });
  }
  ctx.set('Allow', allow);
  ctx.status = 204;
};
