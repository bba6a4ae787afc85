// Run by nginx (its module njs): counts what the gateway answered, and tells it to Prometheus. A request costs three
// additions in nginx's own memory; nothing is sent anywhere, so there is nothing to wait for and nothing to lose.
// njs knows a part of the language: no destructuring.

/** Upper bounds in seconds. */
const BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10];
/** Any other word is `other`: clients must not make series. */
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
/** Each method starts at 0 for these, so that the first failure is a rise. A series that is born with 1 has no rise. */
const FAILURES = ['500', '502', '503', '504'];
/** Probes and what operators look at are not what users wait for; the latter may take minutes. */
const NOT_OF_USERS = /^\/(?:(?:grafana|prometheus|alertmanager)(?:[/?]|$)|health(?:-db|\/live|\/ready)?(?:\?|$))/;

/**
 * Evaluated when nginx logs a request.
 * @returns nothing, so that nginx writes no line for it
 */
function count(r) {
  // Not $uri: an error page has another one.
  if (NOT_OF_USERS.test(r.variables.request_uri)) return '';
  const asked = r.variables.request_method;
  const method = METHODS.indexOf(asked) < 0 ? 'other' : asked;
  const status = r.variables.status;
  const seconds = Number(r.variables.request_time);
  const kind = `${method}|${status.charAt(0)}xx`;
  let bucket = 0;
  while (bucket < BOUNDS.length && seconds > BOUNDS[bucket]) bucket += 1;
  const figures = ngx.shared.figures;
  figures.incr(`count|${method}|${status}`, 1, 0);
  figures.incr(`bucket|${kind}|${bucket}`, 1, 0);
  figures.incr(`sum|${kind}`, seconds, 0);
  return '';
}

const text = (lines) => `${lines.join('\n')}\n`;

function answer(r, lines) {
  r.headersOut['Content-Type'] = 'text/plain; version=0.0.4; charset=utf-8';
  r.return(200, text(lines));
}

/** Status and time of the answers: `nginx_http_response_*`. */
function responses(r) {
  const counts = {};
  METHODS.concat('other').forEach((method) => {
    FAILURES.forEach((status) => {
      counts[`method="${method}",status="${status}"`] = 0;
    });
  });
  const buckets = {};
  const sums = {};
  ngx.shared.figures.items(10000).forEach((item) => {
    const key = item[0].split('|');
    const figure = key[0];
    const index = key[3];
    const labels = `method="${key[1]}",status="${key[2]}"`;
    if (figure === 'count') counts[labels] = item[1];
    else if (figure === 'sum') sums[labels] = item[1];
    else {
      buckets[labels] = buckets[labels] || {};
      buckets[labels][index] = item[1];
    }
  });
  const lines = [
    '# HELP nginx_http_response_count_total Answers of the gateway.',
    '# TYPE nginx_http_response_count_total counter',
  ].concat(
    Object.keys(counts)
      .sort()
      .map((labels) => `nginx_http_response_count_total{${labels}} ${counts[labels]}`),
  );
  const name = 'nginx_http_response_time_seconds_hist';
  lines.push(`# HELP ${name} From the first byte of a request to the last one of its answer.`);
  lines.push(`# TYPE ${name} histogram`);
  Object.keys(buckets)
    .sort()
    .forEach((labels) => {
      let total = 0;
      BOUNDS.map(String)
        .concat('+Inf')
        .forEach((bound, index) => {
          total += buckets[labels][index] || 0;
          lines.push(`${name}_bucket{${labels},le="${bound}"} ${total}`);
        });
      lines.push(`${name}_sum{${labels}} ${sums[labels] || 0}`, `${name}_count{${labels}} ${total}`);
    });
  answer(r, lines);
}

/** In the order of stub_status. */
const CONNECTIONS = [
  ['nginx_connections_active', 'gauge', 'Open connections of clients.'],
  ['nginx_connections_accepted', 'counter', 'Connections of clients that were accepted.'],
  ['nginx_connections_handled', 'counter', 'Those of them that were not dropped for want of room.'],
  ['nginx_http_requests_total', 'counter', 'Requests, those for these figures included.'],
  ['nginx_connections_reading', 'gauge', 'Connections whose request is being read.'],
  ['nginx_connections_writing', 'gauge', 'Connections whose request is being answered.'],
  ['nginx_connections_waiting', 'gauge', 'Open connections without a request.'],
];

/** nginx's own counters, which it tells in a text of its own. */
async function connections(r) {
  const reply = await r.subrequest('/stub_status');
  const values = reply.responseText.match(/\d+/g);
  answer(
    r,
    CONNECTIONS.map((metric, index) => {
      const name = metric[0];
      return `# HELP ${name} ${metric[2]}\n# TYPE ${name} ${metric[1]}\n${name} ${values[index]}`;
    }),
  );
}

export default { count, responses, connections };
