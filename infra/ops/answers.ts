import { createHash } from 'node:crypto';

/**
 * What the gateway answers by itself, text for nginx: a problem document, or for a browser a page that says the same;
 * and the header fields of every answer.
 */

/** On every answer that does not bring its own. */
const SECURITY_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'strict-origin-when-cross-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  'Cache-Control': 'no-store',
} as const;
/** Not over clear text (RFC 6797, 7.2), and of no service behind us: TLS ends here. */
const HSTS = 'max-age=31536000; includeSubDomains';

const STYLE =
  ':root{color-scheme:light dark}' +
  'body{margin:0 auto;max-width:36rem;padding:12vh 1.5rem;font:1.125rem/1.6 system-ui,sans-serif}' +
  'h1{font-size:1.75rem;line-height:1.25}small{font-weight:normal}a{color:inherit}code{overflow-wrap:anywhere}';

/** The style stands in the page, since everything else may be away; nothing but this text may be a style. */
export const PAGE_POLICY =
  `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; ` +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

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
  417: ['expectation-failed', 'The gateway cannot do what Expect asks for', 'Expect nothing, or 100-continue.'],
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
  const word = (variable: string, index: 0 | 1 | 2) =>
    `map $status ${variable} {\n${Object.entries(GATEWAY_PROBLEMS)
      .map(([status, words]) => `    ${status} "${words[index]}";`)
      .join('\n')}\n}`;
  const absent = Object.entries(SECURITY_HEADERS).map(
    ([name, value]) => `map ${upstreamField(name)} ${addedField(name)} {\n    "" "${value}";\n}`,
  );
  return `# nginx's own number of the request as a UUID of version 4.
map $request_id $request_uuid {
    "~^(?<uuid_1>.{8})(?<uuid_2>.{4}).(?<uuid_3>.{3}).(?<uuid_4>.{3})(?<uuid_5>.{12})$" $uuid_1-$uuid_2-4$uuid_3-a$uuid_4-$uuid_5;
}
map $http_x_request_id $edge_request_id {
    # An API key is no name of a request: it would be in every log.
    "~*(?:^|[^0-9a-z])bl_|bl_[a-z][a-z0-9-]*_[0-9a-z]{12}_|^eyJ[0-9a-z_-]{8}" $request_uuid;
    "~^[A-Za-z0-9._-]{1,128}$" $http_x_request_id;
    default $request_uuid;
}
# Who takes anything gets the document: only who names HTML, and no JSON, gets a page.
map $http_accept $as_page {
    "~*application/(?:problem\\+)?json" "";
    "~*text/html" -page;
    default "";
}
# The path as it is logged, where it needs no escaping in JSON.
map $path_without_query $problem_instance {
    "~^(?<plain_path>/[A-Za-z0-9/._~%:@+,=*-]*)$" ',"instance":"$plain_path"';
}
${word('$problem_slug', 0)}
${word('$problem_title', 1)}
${word('$problem_detail', 2)}
map $status $problem_way_on {
    421 "";
    "~^(?:429|50[0234])$" '<p><a href="">Try again</a></p>';
    default '<p><a href="/status">How is the service?</a></p>';
}
map $status $problem_retry_after {
    "~^(?:429|50[234])$" 2;
}
map $status $problem_allow {
    405 "GET, HEAD, POST";
}
${errorPages()}
# nginx would write a page of its own under a redirect.
error_page 301 302 308 /.redirect;

map $https $hsts {
    on "${HSTS}";
}
${absent.join('\n')}
${addAbsentHeaders()}
`;
}

/** What nginx answers itself, as problem documents or pages. Inherited only by a level that has no `error_page` of its own. */
export function errorPages(...except: number[]): string {
  const same = Object.keys(GATEWAY_PROBLEMS).filter((status) => !except.includes(Number(status)));
  const other = Object.entries(INTERNAL_STATUSES).map(
    ([own, status]) => `error_page ${own} =${status} /.problem$as_page;`,
  );
  return [`error_page ${same.join(' ')} /.problem$as_page;`, ...other].join('\n');
}

/** The pair of places that an answer of the gateway's comes from, `name` and `name-page`; see $as_page. */
export function answerPlaces(
  name: string,
  { document, page, headers }: { document: string; page: string; headers: Readonly<Record<string, string>> },
): string {
  const place = (end: string, type: string, text: string, further: Readonly<Record<string, string>>) =>
    `location = ${name}${end} {
    internal;
    default_type "${type}; charset=utf-8";
${indent(addOwnHeaders({ ...headers, Vary: 'Accept', ...further }))}
    return 200 '${text}';
}`;
  return `${place('', 'application/problem+json', document, {})}
${place('-page', 'text/html', page, { 'Content-Security-Policy': PAGE_POLICY })}`;
}

/** A problem document. @param members of it in JSON, and what it has besides is put in by nginx */
export function renderDocument(members: string): string {
  return `{${members}$problem_instance,"request_id":"$edge_request_id"}`;
}

/** A page that needs nothing else, in one line. @param title, body HTML, in which nginx's variables may stand, and no ' */
export function renderPage(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} - Branch Loans</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${body}
<p>Request: <code>$edge_request_id</code></p>
</main>
</body>
</html>`.replaceAll('\n', '');
}

export const PROBLEM_PAGE = renderPage(
  '$status $problem_title',
  `<h1><small>$status</small> $problem_title</h1>
<p>$problem_detail</p>
$problem_way_on
<p>Name the request when you ask somebody about it.</p>`,
);

/** A server of nginx with the places that its own answers come from; the status is that of the fault, not the 200. */
export function server(body: string): string {
  return `
server {
${indent(body)}
${indent(
  answerPlaces('/.problem', {
    document: renderDocument(
      '"type":"urn:problem:$problem_slug","title":"$problem_title","status":$status,"detail":"$problem_detail"',
    ),
    page: PROBLEM_PAGE,
    headers: { 'Retry-After': '$problem_retry_after', Allow: '$problem_allow' },
  }),
)}
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
    'Strict-Transport-Security': '$hsts',
    'X-Request-ID': '$edge_request_id',
    ...overrides,
  };
  return addHeaders(values);
}

/** All of them, for an answer that nginx makes: what a failed upstream may have sent does not count. */
function addOwnHeaders(further: Readonly<Record<string, string>> = {}): string {
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
