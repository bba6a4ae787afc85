import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What stands in for a collector of traces, or for an error tracker: it keeps what it gets. */
export interface Receiver {
  readonly port: number;
  /** Everything that came, as text. */
  bodies(): readonly string[];
  /** How many requests came, also those that were not answered well. */
  asked(): number;
  /** From now on; `undefined` never answers. */
  answer(status: number | undefined, headers?: Record<string, string>): void;
  close(): Promise<void>;
}

export interface ReceivedSpan {
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  /** Of OTLP: 2 server, 3 client. */
  readonly kind: number;
  /** Of OTLP: 2 error. */
  readonly status: number | undefined;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly endedAt: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Ids of the spans that it is linked with. */
  readonly links: readonly string[];
}

export async function startReceiver(port = 0): Promise<Receiver> {
  let bodies: string[] = [];
  let asked = 0;
  let answer: [number | undefined, Record<string, string>] = [200, {}];
  const server = createServer((request, response) => {
    void textOf(request).then((text) => {
      asked++;
      const [status, headers] = answer;
      if (status === undefined) return;
      if (status < 300) bodies = [...bodies, text];
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end('{}');
    });
  });
  server.listen(port, '0.0.0.0');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    bodies: () => bodies,
    asked: () => asked,
    answer: (status, headers = {}) => (answer = [status, headers]),
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk as string;
  return text;
}

interface Otlp {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly Attribute[] };
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[];
  }[];
}

interface Attribute {
  readonly key: string;
  readonly value: { readonly arrayValue?: { readonly values: readonly object[] } } & object;
}

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly status?: { readonly code?: number };
  readonly attributes: readonly Attribute[];
  readonly links?: readonly { readonly spanId: string }[];
}

/** The spans in what a receiver got by OTLP. */
export function spansOf(receiver: Receiver): ReceivedSpan[] {
  return receiver
    .bodies()
    .flatMap((text) => (JSON.parse(text) as Otlp).resourceSpans)
    .flatMap(({ resource, scopeSpans }) => {
      const service = String(attributesOf(resource.attributes)['service.name']);
      return scopeSpans.flatMap(({ spans }) =>
        spans.map((span) => ({
          service,
          traceId: span.traceId,
          spanId: span.spanId,
          parentSpanId: span.parentSpanId,
          name: span.name,
          kind: span.kind,
          status: span.status?.code,
          startedAt: Number(span.startTimeUnixNano) / 1e6,
          endedAt: Number(span.endTimeUnixNano) / 1e6,
          attributes: attributesOf(span.attributes),
          links: (span.links ?? []).map(({ spanId }) => spanId),
        })),
      );
    });
}

function attributesOf(attributes: readonly Attribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, valueOf(value)]));
}

function valueOf(value: Attribute['value']): unknown {
  if (value.arrayValue !== undefined) return value.arrayValue.values.map(valueOf);
  return Object.values(value)[0];
}
