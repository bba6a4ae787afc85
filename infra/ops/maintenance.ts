import { answerPlaces, renderDocument, renderPage } from './answers';

/**
 * Maintenance: while a file exists nginx answers for the API itself. It looks for the file with every request, so
 * closing and opening take no reload and no deploy, and hold when the gateway is restarted or replaced. Probes and
 * whoever shows the operators' token go through; Grafana and Prometheus have logins of their own.
 */

/** Name of the file, beside the versions in the volume of the gateway's files; a deploy leaves it alone. */
export const MAINTENANCE_FLAG = '.maintenance';

/** Header field with the operators' token. It ends at the gateway: neither the API nor a log sees it. */
export const OPERATOR_FIELD = 'X-Operator-Token';

/** Short, since nobody knows how long it takes: who asks again in vain is told the same again. */
export const RETRY_AFTER_SECONDS = 60;

/** The gateway's 503 for a closed service; the type tells it from a service that is just not there. */
export const MAINTENANCE_PROBLEM = {
  type: 'urn:problem:maintenance',
  title: 'The service is closed for maintenance',
  status: 503,
  detail: 'Nothing was done with this request. Send it again after the time in Retry-After.',
} as const;

/** What a browser shows. */
export const PAGE = renderPage(
  'Closed for maintenance',
  `<h1>Branch Loans is closed for maintenance</h1>
<p>We are working on it and will be back soon. What you were told is saved is safe; what you send now is not accepted.</p>
<p>Please try again in a minute.</p>`,
);

/** A status that no service answers with, inside nginx only. */
const CLOSED = 599;

/** The file with the operators' token. @throws Error when the token is too short, or could not stand in a pattern */
export function renderOperators(token: string): string {
  // Names of a map are compared without regard to case, patterns are not.
  if (!/^[A-Za-z0-9_-]{16,}$/.test(token)) throw new Error("This is not an operators' token");
  return `map ${variable(OPERATOR_FIELD)} $is_operator {\n    "~^${token}$" 1;\n}\n`;
}

/** Who is kept out, and what they get. For nginx's http block, after `renderAnswers`. */
export function renderMaintenance({ maintenance, operators }: { maintenance: string; operators: string }): string {
  return `include ${operators};
map $uri $is_probe {
    "~^/health(?:-db|/live|/ready)?$" 1;
}
# What must exist to keep this request out. A device is not a file.
map "$is_operator$is_probe" $closed_by {
    "" ${maintenance};
    default /dev/null;
}
${closedPage()}
`;
}

/** Inherited only by a level that has no `error_page` of its own. */
export function closedPage(): string {
  return `error_page ${CLOSED} =503 /.closed$as_page;`;
}

/** Stands before everything else in a location that may be closed. */
export function unlessClosed(): string {
  return `if (-f $closed_by) {
        return ${CLOSED};
    }`;
}

/** The places that the answers come from, for a server with such locations. */
export function renderClosed(): string {
  return answerPlaces('/.closed', {
    document: renderDocument(JSON.stringify(MAINTENANCE_PROBLEM).slice(1, -1)),
    page: PAGE,
    headers: { 'Retry-After': String(RETRY_AFTER_SECONDS) },
  });
}

/** nginx's name for a header field of the request. */
export function variable(field: string): string {
  return `$http_${field.toLowerCase().replaceAll('-', '_')}`;
}
