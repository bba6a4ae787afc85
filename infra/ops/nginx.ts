import { createHash } from 'node:crypto';
import { BODY_LIMIT_BYTES, BULK_BODY_LIMIT_BYTES } from '../../app/config';
import { addAbsentHeaders, errorPages, indent, renderAnswers, server } from './answers';
import { closedPage, OPERATOR_FIELD, renderClosed, renderMaintenance, unlessClosed, variable } from './maintenance';

/**
 * The gateway's configuration as text, for nginx >= 1.27.4 (`resolve` in upstreams, `keepalive_min_timeout`), run as
 * any user with a read-only root file system: everything it writes is under /tmp.
 */
export interface GatewayOptions {
  /** The public name. `localhost` and `127.0.0.1` are answered too; any other name gets 421. */
  readonly domain: string;
  /** Further names to answer to. */
  readonly names?: readonly string[];
  /** Ports inside the container. `api` is a clear-text way to the API alone: publish it on loopback or not at all. */
  readonly listen: { readonly https: number; readonly http: number; readonly api?: number };
  /** Where users reach `listen.https`; redirects lead there. */
  readonly publicHttpsPort: number;
  /** Paths inside the container. `upstream` holds what `renderUpstream` returned, `htpasswd` lines of `htpasswd`. */
  readonly files: {
    readonly certificate: string;
    readonly key: string;
    readonly htpasswd: string;
    readonly upstream: string;
    /** Path of a file with `VERSION_TEXT`, if `/gateway/health` is to say which files are in use. */
    readonly version?: string;
    /** While this file exists the gateway is closed: see maintenance.ts. */
    readonly maintenance: string;
    /** Holds what `renderOperators` returned. */
    readonly operators: string;
  };
  /** How long an old worker may finish requests after a reload; must exceed the 10 s that an answer may take. */
  readonly workerShutdownTimeoutSeconds: number;
  /** Requests at one time from one address. Behind NAT (or Docker's port proxy) many clients share an address. */
  readonly connectionsPerAddress?: number;
  /** Which of the requests are traced (see TracingSpec); undefined: those whose clients say so. */
  readonly tracing?: { readonly sampleRatio: number; readonly clientsDecide: boolean } | undefined;
  /** nginx's `auto` counts the host's cores, not the container's share of them. */
  readonly workerProcesses?: number;
  /** Where nginx tells its figures (exporters/gateway.js). Publish the port nowhere. */
  readonly metrics?: { readonly port: number; readonly script: string };
}

/** What the gateway waits for, in seconds. The API gives up by itself after about 2 s, and a client's body after 30 s. */
const ANSWER_SECONDS = 10;
const CLIENT_SECONDS = 10;
const EXPORT_PAUSE_SECONDS = 60;

/**
 * An idle connection is kept for so long, over a reload too: nginx would close it right then, and a client that takes it
 * out of its pool at that moment gets a reset, which it must not answer by repeating a POST. Until then the old worker
 * answers what comes over it, and says that it is the last.
 */
const KEEPALIVE_SECONDS = 60;
/** The old workers of a reload stay for as long as they may still get a request, and as that may take. */
export const LEAST_SHUTDOWN_SECONDS = KEEPALIVE_SECONDS + ANSWER_SECONDS;
/** In the gateway's container: here the current workers take what the old ones of a reload have no server for any more. */
const CURRENT = '127.0.0.1:8079';

/** The pages of Prometheus and Alertmanager set their paths in an inline script and send no policy of their own. */
const PROMETHEUS_POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "font-src 'self' data:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'";

const CONNECTIONS_PER_ADDRESS = 256;
/** Requests with a long body at one time; they share the gateway's memory. */
const BULK_REQUESTS = 16;

/** Pages that a person types without https. Everything else may carry a key, which a redirect would not reveal. */
const PAGES = '^/(?:$|(?:docs|grafana|prometheus|alertmanager|status|sre/dashboard-ui)(?:/|$))';

/** However a router reads case and a final slash: it is not for the public. */
const METRICS = '^/(?:grafana/)?metrics/?$';

/** @throws Error when a value could not stand in the configuration as one word. */
export function renderGateway(options: GatewayOptions): string {
  // nginx warns of a name that stands there twice.
  const names = [...new Set([options.domain, 'localhost', '127.0.0.1', ...(options.names ?? [])])];
  const { listen, files } = options;
  const { metrics } = options;
  for (const value of [...names, ...Object.values(files), ...(metrics === undefined ? [] : [metrics.script])]) {
    if (!/^[A-Za-z0-9._/-]+$/.test(value)) throw new Error(`"${value}" cannot stand in the gateway's configuration`);
  }
  const servers = [
    renderStrangers(listen),
    renderPublic(listen.https, names, options),
    renderClearText(listen.http, names, options),
    renderCurrent(),
    ...(listen.api === undefined ? [] : [renderApiListener(listen.api, options)]),
    ...(metrics === undefined ? [] : [renderMetricsListener(metrics.port)]),
  ];
  return `# Generated. Change infra/ops/nginx.ts instead.
${renderProcess(options)}
http {
${indent([renderClients(options), renderTls(files), renderLog(metrics), renderTraces(options), renderAnswers(), renderMaintenance(files), renderForwarding(files), ...servers].join('\n'))}
}
`;
}

/** A container that takes requests, by its name on the gateway's network, and its part of them beside the others'. */
export interface Server {
  readonly name: string;
  /** Whole, at least 1. */
  readonly weight: number;
}

/**
 * The containers that the API's requests go to. nginx resolves a name again and again, so it starts and stays up when
 * one is gone. A name that was not listed before is resolved only after the reload that adds it, while known ones keep
 * their addresses: the safest switch lists old and new together in between (`renderHandover`).
 * @param servers a name alone has weight 1; none makes the gateway answer 503. The workers share the zone, so that
 * requests are dealt out exactly by weight.
 */
export function renderUpstream(servers: readonly (string | Server)[], port = 8000): string {
  const lines = servers.map((server) => {
    const { name, weight } = typeof server === 'string' ? { name: server, weight: 1 } : server;
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) throw new Error(`"${name}" is not the name of a container`);
    if (!Number.isInteger(weight) || weight < 1) throw new Error(`${weight} is not a weight of ${name}`);
    return `server ${name}:${port} resolve${weight === 1 ? '' : ` weight=${weight}`} max_fails=3 fail_timeout=2s;`;
  });
  return `# Generated. Change infra/ops/nginx.ts instead.
map $server_port $api_is_absent {
    default ${lines.length > 0 ? '""' : '1'};
}
upstream api {
    zone api 64k;
${indent((lines.length > 0 ? lines : ['server 127.0.0.1:1 down;']).join('\n'))}
    keepalive 32;
    # Shorter than the API keeps an idle connection (75 s): whoever closes first must be the one who sends.
    keepalive_timeout 60s;
}
`;
}

/**
 * What stands between two texts of `renderUpstream` while nginx looks up new names: the servers of both, each with the
 * mean of its shares before and after, so that a canary never gets more than its percentage. Undefined where no name
 * is new, or nobody served before.
 */
export function renderHandover(before: string, after: string): string | undefined {
  const [old, next] = [weightedServersOf(before), weightedServersOf(after)];
  const known = new Set(old.map(({ name }) => name));
  if (old.length === 0 || next.every(({ name }) => known.has(name))) return undefined;
  const total = (servers: readonly Server[]) => servers.reduce((sum, { weight }) => sum + weight, 0);
  const weights = new Map<string, number>();
  const add = (servers: readonly Server[], factor: number) => {
    for (const { name, weight } of servers) weights.set(name, (weights.get(name) ?? 0) + weight * factor);
  };
  add(old, total(next));
  add(next, total(old));
  return renderUpstream(inLowestTerms([...weights].map(([name, weight]) => ({ name, weight }))));
}

/** The same shares with the smallest weights. */
export function inLowestTerms(servers: readonly Server[]): Server[] {
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  const divisor = servers.reduce((common, { weight }) => gcd(common, weight), 0);
  return servers.map(({ name, weight }) => ({ name, weight: weight / divisor }));
}

/**
 * One line of a password file, salted SHA-1. That hash is fast, so it protects only passwords that cannot be guessed:
 * ours are generated with 192 random bits. The salt comes from the input, so that the same input gives the same text.
 */
export function htpasswd(user: string, password: string): string {
  if (!/^[A-Za-z0-9._-]+$/.test(user)) throw new Error(`"${user}" is not a user name`);
  const salt = createHash('sha256').update(`${user}\0${password}`).digest().subarray(0, 8);
  const digest = createHash('sha1').update(password).update(salt).digest();
  return `${user}:{SSHA}${Buffer.concat([digest, salt]).toString('base64')}`;
}

/** The names in a text of `renderUpstream`. */
export function serversOf(upstream: string): string[] {
  return weightedServersOf(upstream).map(({ name }) => name);
}

function weightedServersOf(upstream: string): Server[] {
  const lines = upstream.matchAll(/^\s*server ([A-Za-z0-9][A-Za-z0-9._-]*):\d+ resolve(?: weight=(\d+))?/gm);
  return [...lines].map(([, name = '', weight = '1']) => ({ name, weight: Number(weight) }));
}

/** On the port of `metrics`. */
export const METRICS_PATHS = { connections: '/metrics/connections', responses: '/metrics/responses' } as const;

/** Text of the file that names the version of all files; `{version}` is to be replaced. */
export const VERSION_TEXT = 'map $server_port $files_version {\n    default "{version}";\n}\n';

/** With a star in the configuration it may be absent; gone when the container restarts. */
const WIND_DOWN_FILE = '/tmp/wind-down.conf';
/** A gateway that is not stopped after all goes back to keeping connections. */
const WIND_DOWN_SECONDS = 120;

/** Ends the workers that are left from before a reload; the brackets keep this text from being found itself. */
const END_OLD_WORKERS =
  "for found in $(grep -ls 'worker process is shutting[ ]down' /proc/[0-9]*/cmdline); do " +
  'pid=${found#/proc/}; kill -TERM "${pid%/cmdline}" 2> /dev/null || true; done';

/**
 * For `sh` in a gateway that is about to be stopped: every answer ends its connection from now on, so that a stop finds
 * none to wait for. It ends when those from before had the time that a usual answer takes, and are gone.
 */
export const WIND_DOWN =
  `echo 'keepalive_requests 1;' > ${WIND_DOWN_FILE} && kill -HUP 1 && ` +
  `{ (sleep ${WIND_DOWN_SECONDS}; rm -f ${WIND_DOWN_FILE}; kill -HUP 1) > /dev/null 2>&1 & } && ` +
  `sleep ${ANSWER_SECONDS + 1} && ${END_OLD_WORKERS}`;

/** Where official images and Debian's have it. */
const NJS = '/usr/lib/nginx/modules/ngx_http_js_module.so';

function renderProcess({ workerProcesses = 2, workerShutdownTimeoutSeconds, metrics }: GatewayOptions): string {
  return `${metrics === undefined ? '' : `load_module ${NJS};\n`}worker_processes ${workerProcesses};
worker_shutdown_timeout ${workerShutdownTimeoutSeconds}s;
pid /tmp/nginx.pid;
error_log stderr warn;

events {
    worker_connections 4096;
}
`;
}

/** Time and space that a client may take. */
function renderClients({ connectionsPerAddress = CONNECTIONS_PER_ADDRESS }: GatewayOptions): string {
  return `server_tokens off;
absolute_redirect off;
client_body_temp_path /tmp/client;
proxy_temp_path /tmp/proxy;
fastcgi_temp_path /tmp/fastcgi;
uwsgi_temp_path /tmp/uwsgi;
scgi_temp_path /tmp/scgi;

client_header_timeout ${CLIENT_SECONDS}s;
client_body_timeout ${CLIENT_SECONDS}s;
send_timeout ${CLIENT_SECONDS}s;
large_client_header_buffers 4 8k;
client_max_body_size ${BODY_LIMIT_BYTES};
# A whole body fits in memory.
client_body_buffer_size ${BODY_LIMIT_BYTES};
keepalive_timeout ${KEEPALIVE_SECONDS}s;
keepalive_min_timeout ${KEEPALIVE_SECONDS}s;
include ${WIND_DOWN_FILE}*;
limit_conn_zone $binary_remote_addr zone=addresses:1m;
limit_conn_zone $server_port zone=bulk:64k;
limit_conn_status 429;
limit_conn_log_level warn;
limit_conn addresses ${connectionsPerAddress};
`;
}

/** Mozilla's intermediate guideline 5.7 without DHE. At http level: a handshake is the default server's business. */
function renderTls({ certificate, key }: GatewayOptions['files']): string {
  const suites = [
    ...['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384'],
    ...['ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305'],
  ];
  return `ssl_certificate ${certificate};
ssl_certificate_key ${key};
ssl_protocols TLSv1.2 TLSv1.3;
ssl_ciphers ${suites.join(':')};
ssl_ecdh_curve X25519:prime256v1:secp384r1;
ssl_prefer_server_ciphers on;
ssl_session_timeout 1d;
ssl_session_cache shared:tls:2m;
ssl_session_tickets off;
`;
}

/**
 * Where a path begins to be a secret, as a pattern: an API key or what begins like one, also percent-encoded, what stands
 * in an Authorization field, a JSON Web Token, a long word. (The API masks its log with app/telemetry/secrets.ts.)
 */
const SECRET =
  '(?:[bB]|%(?:25)*62)(?:[lL]|%(?:25)*6[cC])(?:_|%(?:25)*5[fF])|eyJ[0-9A-Za-z_-]{8}|' +
  '[Bb](?:earer|asic)(?:%(?:25)*20|[+:=])|[;&,](?:[a-z_-]*token|api[_-]?key|secret|password)=|[0-9A-Za-z_-]{38}';

/**
 * One JSON line a request. Without the query and without header fields of the client: both may hold secrets. Of a path
 * with a secret, what comes before it. What nginx says of a request in its error log has request line, host and referrer
 * in clear, and no format to change that, so only what is critical gets there; the access log has the upstream's status.
 */
function renderLog(metrics: GatewayOptions['metrics']): string {
  const fields = {
    timestamp: '$timestamp',
    level: '$log_level',
    message: '$request_method $path_without_query $status',
    request_id: '$edge_request_id',
    trace_id: '$trace_id',
    span_id: '$gateway_span_id',
    client: '$remote_addr',
    method: '$request_method',
    host: '$logged_host',
    path: '$path_without_query',
    protocol: '$server_protocol',
    tls: '$ssl_protocol',
    status: '$status',
    bytes: '$body_bytes_sent',
    request_time: '$request_time',
    upstream: '$upstream_addr',
    upstream_status: '$upstream_status',
    upstream_time: '$upstream_response_time',
  };
  const line = Object.entries(fields).map(([name, value]) => `"${name}":"${value}"`);
  return `error_log stderr crit;
map $request_uri $path_without_query {
    "~^(?<path_to_secret>[^?]*?bl_[a-z][a-z0-9-]*_[0-9a-z]{12})_" \${path_to_secret}_***;
    "~^(?<path_before_secret>[^?]*?)(?:${SECRET})" \${path_before_secret}***;
    "~^(?<path_part>[^?]*)" $path_part;
}
map $host $logged_host {
    "~*bl_" ***;
    default $host;
}
# ISO 8601 with milliseconds, as the API writes it; both parts are of the same look at the clock.
map "$time_iso8601|$msec" $timestamp {
    "~^(?<utc_second>[^+|]+)[+]00:00[|][0-9]+(?<utc_fraction>[.][0-9]{3})$" $utc_second\${utc_fraction}Z;
    default $time_iso8601;
}
map $status $log_level {
    ~^5 error;
    default info;
}
log_format json escape=json '{${line.join(',')}}';
access_log /dev/stdout json;
${metrics === undefined ? '' : renderCounting(metrics.script)}`;
}

/** Whether a line is logged is asked when a request has ended, so that is where it is counted; the line itself is never logged. */
function renderCounting(script: string): string {
  return `js_import gateway from ${script};
js_shared_dict_zone zone=figures:1m type=number;
js_set $counted gateway.count;
access_log /dev/null json if=$counted;
`;
}

/** For Prometheus. A request to it counts among nginx's own, but not among the answers. */
function renderMetricsListener(port: number): string {
  return server(`listen ${port} default_server;
server_name _;
access_log off;
location = ${METRICS_PATHS.connections} {
    js_content gateway.connections;
}
location = ${METRICS_PATHS.responses} {
    js_content gateway.responses;
}
location = /stub_status {
    internal;
    stub_status;
}`);
}

/** W3C Trace Context: version 00 as it is, and of later ones the part that is known. */
const traceparent = (captured: 'trace' | 'span' | 'flags'): string => {
  const name = (part: string) => (part === captured ? `?<client_${part}>` : '?:');
  const parts = [
    `(${name('trace')}(?!0{32})[0-9a-f]{32})`,
    `(${name('span')}(?!0{16})[0-9a-f]{16})`,
    `(${name('flags')}[0-9a-f]{2})`,
  ];
  return `"~^(?!ff|00.{54})[0-9a-f]{2}-${parts.join('-')}(?:$|-)" $client_${captured};`;
};

/**
 * The trace of a request: the client's, or one that begins here with nginx's own number of the request. The gateway is
 * a part of it with a span of its own, which the API sends, since nginx cannot: X-Gateway-Span says when the request was
 * passed on, how long it had been here, and whose child it is.
 */
function renderTraces({ tracing = { sampleRatio: 0, clientsDecide: true } }: GatewayOptions): string {
  const { sampleRatio, clientsDecide } = tracing;
  const percent = Math.round(sampleRatio * 10_000) / 100;
  const shares = [...(percent > 0 ? [`${percent}% 01;`] : []), ...(percent < 100 ? ['* 00;'] : [])];
  const decided = clientsDecide ? '    "~[13579bdf]$" 01;\n    "~." 00;\n' : '';
  const clients = (['trace', 'span', 'flags'] as const).map(
    (part) => `map $http_traceparent $clients_${part} {\n    ${traceparent(part)}\n}`,
  );
  return `${clients.join('\n')}
map $clients_trace $trace_id {
    "" $request_id;
    default $clients_trace;
}
map $request_id $gateway_span_id {
    "~^(?<half_of_id>.{16})" $half_of_id;
}
split_clients $request_id $sampled_here {
${indent(shares.join('\n'))}
}
map $clients_flags $trace_flags {
${decided}    default $sampled_here;
}
map $clients_trace $trace_state {
    "" "";
    default $http_tracestate;
}
`;
}

/** How requests are passed on. One that may have had an effect is sent again only where its key makes that harmless. */
function renderForwarding({ upstream, version }: GatewayOptions['files']): string {
  const other = ['prometheus:9090', 'alertmanager:9093', 'grafana:3000'].map((address) => {
    const name = address.split(':')[0] ?? '';
    return `upstream ${name} {\n    zone ${name} 64k;\n    server ${address} resolve;\n    keepalive 4;\n    keepalive_timeout 30s;\n}`;
  });
  return `# Docker's own; containers get new addresses.
resolver 127.0.0.11 valid=5s ipv6=off;
resolver_timeout 2s;
${[upstream, version].flatMap((file) => (file === undefined ? [] : `include ${file};`)).join('\n')}
${other.join('\n')}

map $http_upgrade $connection_upgrade {
    default upgrade;
    "" "";
}
# What a request ends with instead of being sent again from the start: a service that had it and was silent would be
# so again; and of what had it and broke off, nobody could tell without a key whether it was done.
map "$upstream_connect_time|$upstream_status|$request_method:$http_idempotency_key" $ends_with {
    "~-\\|" "";
    "~504\\|" 504;
    "~\\|(?:POST:$|PATCH:|LOCK:)" 502;
}
# What no server had goes to the current workers: this one may be left from before a reload, and know only servers that
# are gone.
map "$upstream_connect_time" $again {
    "~-$" @current;
    default @again;
}
upstream current {
    server ${CURRENT};
}
# nginx joins the lines of a field with ", ". Of the others that hold one value it refuses two lines itself, or passes
# both on to the API, which refuses them.
map "$http_x_request_id;${variable(OPERATOR_FIELD)}" $given_twice {
    "~, " 1;
}
map "$server_protocol $http_expect" $refused_expectation {
    "~^HTTP/1[.]0 " "";
    "~*^[^ ]+ (?:100-continue)?$" "";
    default 1;
}
proxy_http_version 1.1;
# Ample on one host. nginx gives up a retry when names change during it, so a dead server must be noticed fast.
proxy_connect_timeout 500ms;
proxy_send_timeout ${ANSWER_SECONDS}s;
proxy_read_timeout ${ANSWER_SECONDS}s;
proxy_next_upstream error timeout;
proxy_next_upstream_tries 2;
proxy_next_upstream_timeout 3s;
proxy_buffer_size 8k;
proxy_buffers 16 8k;
# A long answer is read at the client's pace instead of being stored.
proxy_max_temp_file_size 0;
proxy_redirect off;
proxy_hide_header X-Request-ID;
proxy_hide_header X-Powered-By;
proxy_hide_header Strict-Transport-Security;
${forwardedFields('""')}
`;
}

/** Whoever asks for another name, or none: an absolute address built from it would lead elsewhere. */
function renderStrangers({ https, http }: GatewayOptions['listen']): string {
  return server(`listen ${https} ssl default_server;
listen ${http} default_server;
http2 on;
server_name _;
location / {
    return 421;
}`);
}

function renderPublic(port: number, names: readonly string[], options: GatewayOptions): string {
  const { files } = options;
  return server(`listen ${port} ssl;
http2 on;
server_name ${names.join(' ')};
${renderApi(options)}
# Of no use to a program, and the first that a person asks for.
location = / {
    ${unlessClosed()}
    if ($request_method !~ ^(?:GET|HEAD)$) {
        return 404;
    }
    return 302 /status;
}
location ~* ${METRICS} {
    return 404;
}
location = /grafana {
    return 301 /grafana/;
}
location = /prometheus {
    return 301 /prometheus/;
}
location = /alertmanager {
    return 301 /alertmanager/;
}
# No address after the name of the upstream: with one, nginx would strip the prefix.
location /grafana/ {
    client_max_body_size 1m;
    proxy_ignore_client_abort off;
    proxy_read_timeout 60s;
${indent(forwardedFields('$connection_upgrade', { Upgrade: '$http_upgrade' }))}
${indent(addAbsentHeaders({ 'Content-Security-Policy': undefined }))}
    proxy_pass http://grafana;
}
${['prometheus', 'alertmanager'].map((name) => renderMonitor(name, files.htpasswd)).join('\n')}`);
}

/** Of Prometheus' family: neither asks for a password itself. */
function renderMonitor(name: string, htpasswdFile: string): string {
  return `location /${name}/ {
    auth_basic "Prometheus";
    auth_basic_user_file ${htpasswdFile};
    client_max_body_size 1m;
    # A query for a page that was closed is of no use.
    proxy_ignore_client_abort off;
    # A query may take Prometheus two minutes.
    proxy_read_timeout 125s;
${indent(forwardedFields('""', { Authorization: '""' }))}
${indent(addAbsentHeaders({ 'Content-Security-Policy': PROMETHEUS_POLICY }))}
    proxy_pass http://${name};
}`;
}

function renderClearText(port: number, names: readonly string[], { publicHttpsPort, files }: GatewayOptions): string {
  const suffix = publicHttpsPort === 443 ? '' : `:${publicHttpsPort}`;
  return server(`listen ${port};
server_name ${names.join(' ')};
location / {
    return 403;
}
location ~ ${PAGES} {
    if ($request_method !~ ^(?:GET|HEAD)$) {
        return 403;
    }
    return 308 https://$host${suffix}$request_uri;
}
# For the container's own health check.
location = /gateway/health {
    if ($remote_addr != 127.0.0.1) {
        return 403;
    }
    access_log off;
    default_type "text/plain; charset=utf-8";
    return 200 "${files.version === undefined ? 'ok' : '$files_version'}\\n";
}`);
}

function renderApiListener(port: number, options: GatewayOptions): string {
  return server(`listen ${port} default_server;
server_name _;
${renderApi(options)}`);
}

/** What comes here has passed the gateway's limits once, is logged there, and has all fields that it is passed on with. */
function renderCurrent(): string {
  return server(`listen ${CURRENT};
access_log off;
client_max_body_size ${BULK_BODY_LIMIT_BYTES};
limit_conn bulk ${CONNECTIONS_PER_ADDRESS};
proxy_set_header Host $http_host;
proxy_set_header Connection "";
proxy_read_timeout ${EXPORT_PAUSE_SECONDS}s;
location / {
    proxy_pass http://api;
}`);
}

/**
 * The API, and those of its paths that have limits of their own. Where a container dies with a request, the request
 * goes to another one from the start: nginx by itself sends no POST again, and gives up a retry during which the
 * container's name disappears.
 */
function renderApi({ connectionsPerAddress = CONNECTIONS_PER_ADDRESS }: GatewayOptions): string {
  const forward = `${unlessClosed()}
    if ($given_twice) {
        return 400;
    }
    if ($refused_expectation) {
        return 417;
    }
    if ($api_is_absent) {
        return 503;
    }
    recursive_error_pages on;
${indent(errorPages(502, 504))}
    ${closedPage()}
    error_page 502 504 = $again;
    proxy_pass http://api;`;
  const again = `if ($ends_with = 502) {
        return 502;
    }
    if ($ends_with = 504) {
        return 504;
    }
    proxy_pass http://api;`;
  return `# A client that has closed its side after its request waits for the answer, and what it asked for is done anyway.
proxy_ignore_client_abort on;
location @again {
    proxy_next_upstream error timeout non_idempotent;
    ${again}
}
location @current {
    proxy_pass http://current;
}
location / {
    ${forward}
}
location ~ ^/api/(?:v1/)?loans/bulk$ {
    client_max_body_size ${BULK_BODY_LIMIT_BYTES};
    client_body_buffer_size ${BULK_BODY_LIMIT_BYTES};
    limit_conn addresses ${connectionsPerAddress};
    limit_conn bulk ${BULK_REQUESTS};
    ${forward}
}
location ~ ^/api/(?:v1/)?loans/export$ {
    # Many loans may have to be looked at before the next one that is sent.
    proxy_read_timeout ${EXPORT_PAUSE_SECONDS}s;
    ${forward}
}
${renderClosed()}`;
}

/** `proxy_set_header` is inherited only by a level that has none of its own, so this is always the whole list. */
function forwardedFields(connection: string, further: Readonly<Record<string, string>> = {}): string {
  const fields: Record<string, string> = {
    Connection: connection,
    Host: '$http_host',
    'X-Request-ID': '$edge_request_id',
    traceparent: '00-$trace_id-$gateway_span_id-$trace_flags',
    tracestate: '$trace_state',
    'X-Gateway-Span': '"$msec $request_time $clients_span"',
    // Set, never appended to: what a client claims about itself ends here.
    'X-Forwarded-For': '$remote_addr',
    'X-Forwarded-Proto': '$scheme',
    'X-Forwarded-Host': '$http_host',
    'X-Real-IP': '$remote_addr',
    Forwarded: '""',
    Proxy: '""',
    // Between the operator and the gateway.
    [OPERATOR_FIELD]: '""',
    ...further,
  };
  return Object.entries(fields)
    .map(([name, value]) => `proxy_set_header ${name} ${value};`)
    .join('\n');
}
