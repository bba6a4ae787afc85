/** What the gateway answers by itself: problem documents, and the header fields of every answer; text for nginx. */

/** On every answer that does not bring its own; HSTS is apart because clear text must not carry it (RFC 6797, 7.2). */
const SECURITY_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'strict-origin-when-cross-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  'Cache-Control': 'no-store',
} as const;
const HSTS = 'max-age=31536000; includeSubDomains';

/** The problem documents that the gateway makes itself: status -> last part of the type, title, detail. */
export const GATEWAY_PROBLEMS: Readonly<Record<number, readonly [slug: string, title: string, detail: string]>> = {
  400: ['malformed-request', 'The request is not well-formed HTTP', 'The gateway could not read the request.'],
  401: ['unauthorized', 'Credentials are missing or wrong', 'This page asks for a user name and a password.'],
  403: ['encryption-required', 'Clear text is refused', 'Use https. What was sent with this request is now exposed.'],
  404: ['not-found', 'There is nothing here', 'The gateway serves nothing at this address.'],
  405: ['method-not-allowed', 'The resource does not support this method', 'The gateway does not forward this method.'],
  408: ['request-timeout', 'The request took too long to arrive', 'The rest of the request did not arrive in time.'],
  411: ['length-required', 'The length of the body is missing', 'Send Content-Length.'],
  413: ['payload-too-large', 'The body is too large', 'Send a smaller body.'],
  414: ['uri-too-long', 'The address is too long', 'Send a shorter path and query.'],
  421: ['misdirected-request', 'This gateway does not serve that name', 'Check the host name of the request.'],
  429: ['too-many-connections', 'Too many requests at one time', 'Wait for some of your requests to finish.'],
  431: ['headers-too-large', 'The header fields are too large', 'Send fewer or shorter header fields.'],
  500: ['internal', 'Something went wrong on our side', 'The failure was recorded under this request_id.'],
  501: ['not-implemented', 'The gateway does not know this transfer coding', 'Send the body plain or chunked.'],
  502: ['upstream-unavailable', 'The service behind the gateway does not answer', 'Try again in a moment.'],
  503: ['service-unavailable', 'No instance of the service is in operation', 'Try again in a moment.'],
  504: ['upstream-timeout', 'The service behind the gateway answers too slowly', 'Try again in a moment.'],
  505: ['version-not-supported', 'The gateway does not speak this version of HTTP', 'Use HTTP/1.1 or HTTP/2.'],
};

/** nginx's own numbers for faults of a request -> the status they leave with. 499 never reaches anybody. */
const INTERNAL_STATUSES = { 494: 431, 495: 400, 496: 400, 497: 403 };

/** Problem documents, request ids and header fields. An added field whose value is empty is not sent. */
export function renderAnswers(): string {
  const documents = Object.entries(GATEWAY_PROBLEMS).map(([status, [slug, title, detail]]) => {
    const members = JSON.stringify({ type: `urn:problem:${slug}`, title, status: Number(status), detail });
    return `${status} '${members.slice(0, -1)}$problem_instance,"request_id":"$edge_request_id"}';`;
  });
  const absent = Object.entries(SECURITY_HEADERS).map(
    ([name, value]) => `map ${upstreamField(name)} ${addedField(name)} {\n    "" "${value}";\n}`,
  );
  return `map $http_x_request_id $edge_request_id {
    "~^[A-Za-z0-9._-]{1,128}$" $http_x_request_id;
    default $request_id;
}
# The path, where it needs no escaping in JSON.
map $request_uri $problem_instance {
    "~^(?<plain_path>/[A-Za-z0-9/._~%:@+,=-]*)(?:\\?|$)" ',"instance":"$plain_path"';
}
map $status $problem {
${indent(documents.join('\n'))}
}
map $status $problem_retry_after {
    "~^(?:429|50[234])$" 2;
}
map $status $problem_allow {
    405 "GET, HEAD, POST";
}
${errorPages()}
# nginx would write a page of its own under a redirect.
error_page 301 308 /.redirect;

map $https $hsts {
    on "${HSTS}";
}
map "$https:$upstream_http_strict_transport_security" $added_strict_transport_security {
    "on:" "${HSTS}";
}
${absent.join('\n')}
${addAbsentHeaders()}
`;
}

/** What nginx answers itself, as problem documents. Inherited only by a level that has no `error_page` of its own. */
export function errorPages(...except: number[]): string {
  const same = Object.keys(GATEWAY_PROBLEMS).filter((status) => !except.includes(Number(status)));
  const other = Object.entries(INTERNAL_STATUSES).map(([own, status]) => `error_page ${own} =${status} /.problem;`);
  return [`error_page ${same.join(' ')} /.problem;`, ...other].join('\n');
}

/** A server of nginx with the two places that its own answers come from; the status is that of the fault, not the 200. */
export function server(body: string): string {
  return `
server {
${indent(body)}
    location = /.problem {
        internal;
        default_type "application/problem+json; charset=utf-8";
${indent(addOwnHeaders({ 'Retry-After': '$problem_retry_after', Allow: '$problem_allow' }), 8)}
        return 200 $problem;
    }
    location = /.redirect {
        internal;
        default_type "text/plain; charset=utf-8";
${indent(addOwnHeaders(), 8)}
        return 200 "";
    }
}`;
}

/** Adds what the service behind did not send. `add_header` is inherited like `proxy_set_header`. */
export function addAbsentHeaders(overrides: Readonly<Record<string, string | undefined>> = {}): string {
  const values: Record<string, string | undefined> = {
    ...Object.fromEntries(Object.keys(SECURITY_HEADERS).map((name) => [name, addedField(name)])),
    'Strict-Transport-Security': addedField('Strict-Transport-Security'),
    'X-Request-ID': '$edge_request_id',
    ...overrides,
  };
  return addHeaders(values);
}

/** All of them, for an answer that nginx makes: what a failed upstream may have sent does not count. */
export function addOwnHeaders(further: Readonly<Record<string, string>> = {}): string {
  return addHeaders({
    ...SECURITY_HEADERS,
    'Strict-Transport-Security': '$hsts',
    'X-Request-ID': '$edge_request_id',
    ...further,
  });
}

function addHeaders(values: Readonly<Record<string, string | undefined>>): string {
  return Object.entries(values)
    .filter((entry) => entry[1] !== undefined)
    .map(([name, value]) => `add_header ${name} "${value ?? ''}" always;`)
    .join('\n');
}

const snakeCase = (name: string) => name.toLowerCase().replaceAll('-', '_');
const upstreamField = (name: string) => `$upstream_http_${snakeCase(name)}`;
const addedField = (name: string) => `$added_${snakeCase(name)}`;

export function indent(text: string, spaces = 4): string {
  return text.replace(/^(?=.)/gm, ' '.repeat(spaces));
}
