import { hostname } from 'node:os';
import type { IncomingHttpHeaders } from 'node:http';
import {
  type Attributes,
  type Context,
  type HrTime,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace as spans,
  TraceFlags,
} from '@opentelemetry/api';
import { type ExportResult, ExportResultCode, millisToHrTime, W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { type Resource, resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import {
  ATTR_DB_OPERATION_NAME,
  ATTR_DB_RESPONSE_STATUS_CODE,
  ATTR_DB_SYSTEM_NAME,
  ATTR_ERROR_TYPE,
  ATTR_HTTP_REQUEST_HEADER,
  ATTR_HTTP_REQUEST_METHOD,
  ATTR_HTTP_RESPONSE_STATUS_CODE,
  ATTR_HTTP_ROUTE,
  ATTR_SERVICE_NAME,
  ATTR_SERVICE_VERSION,
  DB_SYSTEM_NAME_VALUE_POSTGRESQL,
} from '@opentelemetry/semantic-conventions';
import type { Config } from '../config';
import { createErrorTracking, type ErrorTracking } from './error-tracking';
import type { Logger } from './logger';
import { requestsServed } from './requests';
import { hasSecret } from './secrets';

/**
 * Seam between the service and whoever follows its requests from outside: a collector of traces, and a tracker of
 * errors, each by setting. Both get names, codes, numbers and times; never a path, a value, a body or a header field
 * but the X-Request-ID. Neither is waited for by a request.
 */
export interface Tracing {
  /** @param quiet makes no span of it: what machines ask every few seconds */
  begin(headers: IncomingHttpHeaders, quiet: boolean): RequestTrace;
  /** Reports what nobody handled, and resolves when that is done or after a second. */
  unhandled(error: unknown): Promise<void>;
  /** Sends what is there, and resolves when that is done or after a second. */
  flush(): Promise<void>;
}

/** Where a request stands in its trace (W3C Trace Context). */
export interface RequestTrace {
  /** Of the trace that the request came with, else of a new one; undefined where it came with none and none is made. */
  readonly traceId: string | undefined;
  /** Whether its spans go to the collector. */
  readonly sampled: boolean;
  /** Until the request has ended: what it sets off and leaves behind is not part of it. */
  logFields(): { readonly trace_id?: string; readonly span_id?: string };
  /** Header fields for a request to somebody else that this one makes; none when it has ended. */
  headers(): Record<string, string>;
  end(outcome: Outcome): void;
}

export interface Outcome {
  readonly requestId: string;
  readonly method: string;
  /** A pattern of ours. */
  readonly route: string;
  readonly status: number;
  /** The last part of the problem's type. */
  readonly problem?: string | undefined;
  /** Where it is one that nobody expected. */
  readonly error?: unknown;
}

type Settings = NonNullable<Config['tracing']>;

/** A collector that takes longer has lost the batch; so does one that is away, after one more try. */
const EXPORT_TIMEOUT_MS = 3_000;
const FLUSH_TIMEOUT_MS = 1_000;
/** Spans that wait to be sent, some 2 MB; what comes beyond is dropped. */
const MAX_WAITING = 2_048;
const SEND_EVERY_MS = 2_000;
/** Where the gateway tells of its own part: see gatewayPart. */
const GATEWAY_FIELD = 'x-gateway-span';

const propagator = new W3CTraceContextPropagator();
const getter = {
  keys: (headers: IncomingHttpHeaders) => Object.keys(headers),
  // `tracestate` is free text of the client, and goes to the collector with every span.
  get: (headers: IncomingHttpHeaders, name: string) => (hasSecret(String(headers[name])) ? undefined : headers[name]),
};
const setter = { set: (headers: Record<string, string>, name: string, value: string) => void (headers[name] = value) };

type Identity = Pick<Config, 'environment' | 'version' | 'commit' | 'tracing' | 'clientAddress'>;

/** @param dsn of the error tracker; undefined for none */
export function createTracing(config: Identity, dsn: string | undefined, logger: Logger): Tracing {
  const errors = dsn === undefined ? undefined : createErrorTracking(dsn, config);
  const collector = config.tracing && createCollector(config.tracing, config, logger);
  // Where clients are known by what a gateway says of them, what it says of itself is believed as well.
  const behindGateway = config.clientAddress === 'x-forwarded-for';
  return {
    begin(headers, quiet) {
      const parent =
        headers.traceparent === undefined ? ROOT_CONTEXT : propagator.extract(ROOT_CONTEXT, headers, getter);
      if (collector === undefined || quiet) return new UntracedRequest(parent, errors);
      return new TracedRequest(collector, parent, behindGateway ? headers[GATEWAY_FIELD] : undefined, errors);
    },
    async unhandled(error) {
      errors?.capture(error, {});
      await errors?.flush(FLUSH_TIMEOUT_MS);
    },
    async flush() {
      await Promise.all([collector?.flush(), errors?.flush(FLUSH_TIMEOUT_MS)]);
    },
  };
}

/**
 * Begins the span of a statement in the trace of each request that it is for.
 * @returns to be called when it is done; with SQLSTATE, or what names the failure else, if it failed. Undefined where no
 * request is traced
 */
export function beginStatement(operation: string): ((failure?: string) => void) | undefined {
  const requests = requestsServed();
  let begun: Span[] | undefined;
  for (const { trace } of requests) {
    if (trace instanceof TracedRequest && trace.records) {
      const first: Span | undefined = begun?.[0];
      (begun ??= []).push(trace.beginStatement(operation, requests.length, first));
    }
  }
  const all = begun;
  if (all === undefined) return undefined;
  return (failure) => {
    for (const span of all) {
      if (failure !== undefined) {
        span.setAttributes({ [ATTR_DB_RESPONSE_STATUS_CODE]: failure, [ATTR_ERROR_TYPE]: failure });
        span.setStatus({ code: SpanStatusCode.ERROR });
      }
      span.end();
    }
  };
}

/** Of which no span is made. */
class UntracedRequest implements RequestTrace {
  readonly traceId: string | undefined;
  readonly sampled = false;
  private ended = false;

  constructor(
    private readonly context: Context,
    private readonly errors: ErrorTracking | undefined,
  ) {
    this.traceId = spans.getSpanContext(context)?.traceId;
  }

  logFields() {
    return this.traceId === undefined || this.ended ? {} : { trace_id: this.traceId };
  }

  headers() {
    return this.ended ? {} : outgoing(this.context);
  }

  end(outcome: Outcome) {
    this.ended = true;
    if (outcome.error !== undefined) this.errors?.capture(outcome.error, { ...outcome, traceId: this.traceId });
  }
}

class TracedRequest implements RequestTrace {
  readonly traceId: string;
  readonly sampled: boolean;
  private readonly span: Span;
  private readonly spanId: string;
  private readonly context: Context;
  private ended = false;

  constructor(
    private readonly collector: Collector,
    private readonly parent: Context,
    private readonly gateway: string | string[] | undefined,
    private readonly errors: ErrorTracking | undefined,
  ) {
    this.span = collector.tracer.startSpan('HTTP', { kind: SpanKind.SERVER }, parent);
    const { traceId, spanId, traceFlags } = this.span.spanContext();
    this.traceId = traceId;
    this.spanId = spanId;
    this.sampled = (traceFlags & TraceFlags.SAMPLED) !== 0;
    this.context = spans.setSpan(parent, this.span);
  }

  get records(): boolean {
    return this.sampled && !this.ended;
  }

  logFields() {
    return this.ended ? {} : { trace_id: this.traceId, span_id: this.spanId };
  }

  headers() {
    return this.ended ? {} : outgoing(this.context);
  }

  /** @param first of the spans of the same statement, where it is for several requests */
  beginStatement(operation: string, requests: number, first: Span | undefined): Span {
    const attributes: Attributes = {
      [ATTR_DB_SYSTEM_NAME]: DB_SYSTEM_NAME_VALUE_POSTGRESQL,
      [ATTR_DB_OPERATION_NAME]: operation,
      // Ours: OpenTelemetry's size of a batch counts statements, and this is one.
      ...(requests > 1 && { 'branchloans.requests': requests }),
    };
    const links = first === undefined ? [] : [{ context: first.spanContext() }];
    return this.collector.tracer.startSpan(operation, { kind: SpanKind.CLIENT, attributes, links }, this.context);
  }

  end(outcome: Outcome) {
    const { traceId, spanId } = this;
    this.ended = true;
    if (outcome.error !== undefined) this.errors?.capture(outcome.error, { ...outcome, traceId, spanId });
    if (!this.sampled) return;
    const { requestId, method, route, status, problem } = outcome;
    this.span.updateName(`${method} ${route}`);
    this.span.setAttributes({
      [ATTR_HTTP_REQUEST_METHOD]: method,
      [ATTR_HTTP_ROUTE]: route,
      [ATTR_HTTP_RESPONSE_STATUS_CODE]: status,
      [ATTR_HTTP_REQUEST_HEADER('x-request-id')]: [requestId],
      ...(status >= 500 && { [ATTR_ERROR_TYPE]: problem ?? String(status) }),
    });
    if (status >= 500) this.span.setStatus({ code: SpanStatusCode.ERROR });
    this.span.end();
    if (typeof this.gateway === 'string') this.collector.gatewaySpan(this.parent, this.gateway, outcome);
  }
}

function outgoing(context: Context): Record<string, string> {
  const headers: Record<string, string> = {};
  propagator.inject(context, headers, setter);
  return headers;
}

type Collector = ReturnType<typeof createCollector>;

function createCollector(settings: Settings, release: Identity, logger: Logger) {
  const attributes = {
    [ATTR_SERVICE_NAME]: settings.serviceName,
    [ATTR_SERVICE_VERSION]: release.version,
    'deployment.environment.name': release.environment,
    'service.instance.id': hostname(),
    'vcs.ref.head.revision': release.commit,
    ...settings.attributes,
  };
  const gateway = resourceFromAttributes({
    ...settings.attributes,
    'deployment.environment.name': release.environment,
    [ATTR_SERVICE_NAME]: `${settings.serviceName.replace(/-api$/, '')}-gateway`,
  });
  const sent = new OTLPTraceExporter({ url: `${settings.endpoint}/v1/traces`, timeoutMillis: EXPORT_TIMEOUT_MS });
  const processor = new BatchSpanProcessor({
    exporter: noted(sent, logger),
    maxQueueSize: MAX_WAITING,
    scheduledDelayMillis: SEND_EVERY_MS,
    exportTimeoutMillis: EXPORT_TIMEOUT_MS + FLUSH_TIMEOUT_MS,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes(attributes),
    sampler: samplerOf(settings),
    spanProcessors: [processor],
  });
  return {
    tracer: provider.getTracer('branchloans'),
    gatewaySpan(parent: Context, text: string, outcome: Outcome): void {
      const span = gatewayPart(parent, text, outcome, gateway);
      if (span !== undefined) processor.onEnd(span);
    },
    async flush(): Promise<void> {
      // What keeps waiting is the library's; it gives up within its own timeout.
      const late = new Promise<void>((resolve) => void setTimeout(resolve, FLUSH_TIMEOUT_MS).unref());
      await Promise.race([processor.forceFlush().catch(() => undefined), late]);
    },
  };
}

/** Says once that spans are lost, and once that they arrive again. */
function noted(exporter: SpanExporter, logger: Logger): SpanExporter {
  let failing = false;
  const note = ({ code, error }: ExportResult) => {
    const failed = code !== ExportResultCode.SUCCESS;
    if (failed && !failing) logger.log('warn', 'traces are not delivered', { reason: error?.message });
    if (!failed && failing) logger.log('info', 'traces are delivered again');
    failing = failed;
  };
  return {
    export: (batch, done) =>
      exporter.export(batch, (result) => {
        note(result);
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
  };
}

function samplerOf({ sampler, sampleRatio }: Settings): Sampler {
  const root = /always_on$/.test(sampler)
    ? new AlwaysOnSampler()
    : /always_off$/.test(sampler)
      ? new AlwaysOffSampler()
      : new TraceIdRatioBasedSampler(sampleRatio);
  return sampler.startsWith('parentbased_') ? new ParentBasedSampler({ root }) : root;
}

/**
 * The gateway's own span, which it has no means to send: its id is the parent that the request came with, and the
 * field tells when it passed the request on (seconds since 1970), how long after its beginning (seconds), and the span
 * of the client that it is a child of, if any. It ends when the answer has left us.
 */
function gatewayPart(
  context: Context,
  text: string,
  { requestId, method, route, status }: Outcome,
  resource: Resource,
): ReadableSpan | undefined {
  const [, passedOn, after, client] = /^(\d{10}\.\d{3}) (\d{1,6}\.\d{3})(?: ([0-9a-f]{16}))?$/.exec(text) ?? [];
  const own = spans.getSpanContext(context);
  if (own === undefined || passedOn === undefined || after === undefined) return undefined;
  const endedAt = Date.now();
  const startedAt = Math.min(endedAt, Math.round(1_000 * (Number(passedOn) - Number(after))));
  const time = (milliseconds: number): HrTime => millisToHrTime(milliseconds);
  return {
    name: `${method} ${route}`,
    kind: SpanKind.SERVER,
    spanContext: () => own,
    ...(client !== undefined && { parentSpanContext: { ...own, spanId: client, isRemote: true } }),
    startTime: time(startedAt),
    endTime: time(endedAt),
    duration: time(endedAt - startedAt),
    ended: true,
    status: { code: status >= 500 ? SpanStatusCode.ERROR : SpanStatusCode.UNSET },
    attributes: {
      [ATTR_HTTP_REQUEST_METHOD]: method,
      [ATTR_HTTP_RESPONSE_STATUS_CODE]: status,
      [ATTR_HTTP_REQUEST_HEADER('x-request-id')]: [requestId],
    },
    links: [],
    events: [],
    resource,
    instrumentationScope: { name: 'branchloans' },
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}
