/**
 * The catalogue of problems that the service may answer with, by the last part of their type
 * (RFC 9457: `urn:problem:<slug>`). Every failure leaves as one of these.
 */
export const PROBLEMS = {
  'malformed-request': { status: 400, title: 'The request is not well-formed HTTP' },
  'malformed-json': { status: 400, title: 'The body is not well-formed JSON' },
  'invalid-utf8': { status: 400, title: 'The body is not valid UTF-8' },
  'idempotency-key-invalid': { status: 400, title: 'The Idempotency-Key is not acceptable' },
  'invalid-id': { status: 400, title: 'The identifier is not a UUID' },
  unauthorized: { status: 401, title: 'A valid API key is needed' },
  forbidden: { status: 403, title: 'The API key does not allow this' },
  'not-found': { status: 404, title: 'There is nothing here' },
  'method-not-allowed': { status: 405, title: 'The resource does not support this method' },
  'request-timeout': { status: 408, title: 'The request took too long to arrive' },
  'illegal-transition': { status: 409, title: 'The loan cannot go to this status' },
  'not-payable': { status: 409, title: 'The loan takes no repayments in its status' },
  'not-reversible': { status: 409, title: 'The repayment cannot be taken back' },
  'no-schedule': { status: 409, title: 'The loan has no schedule' },
  'duplicate-reference': { status: 409, title: 'The loan has a payment with this reference' },
  'ledger-full': { status: 409, title: 'The loan has as many repayments as it can have' },
  'idempotency-in-progress': { status: 409, title: 'A request with this Idempotency-Key is being done' },
  'version-mismatch': { status: 412, title: 'The loan has changed since it was read' },
  'payload-too-large': { status: 413, title: 'The body is too large' },
  'unsupported-media-type': { status: 415, title: 'The body is not uncompressed JSON' },
  'expectation-failed': { status: 417, title: 'The service cannot do what Expect asks for' },
  'misdirected-request': { status: 421, title: 'The service does not answer to that name' },
  'validation-error': { status: 422, title: 'The request breaks a rule' },
  'invalid-amount': { status: 422, title: 'The amount is not acceptable' },
  overpayment: { status: 422, title: 'More than is outstanding' },
  'unknown-property': { status: 422, title: 'The body has a property that does not exist' },
  'invalid-text': { status: 422, title: 'A text has characters that cannot be stored' },
  'invalid-parameter': { status: 422, title: 'A query parameter is not acceptable' },
  'idempotency-key-reused': { status: 422, title: 'The Idempotency-Key belongs to another request' },
  'quota-exceeded': { status: 429, title: 'The caller has made too many requests' },
  'headers-too-large': { status: 431, title: 'The header fields are too large' },
  internal: { status: 500, title: 'Something went wrong on our side' },
  'db-check-failed': { status: 500, title: 'The database does not answer' },
  'db-unavailable': { status: 503, title: 'The database is not available' },
  overloaded: { status: 503, title: 'The service has more work than it can do' },
  'storage-full': { status: 503, title: 'The database has no space left' },
  'shutting-down': { status: 503, title: 'This instance is shutting down' },
  'metrics-unavailable': { status: 503, title: 'The metrics could not be collected in time' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ProblemSlug = keyof typeof PROBLEMS;

/** One fault of a request: where it is (JSON pointer into the body, or the parameter's name) and what is wrong. */
export interface RequestFault {
  readonly pointer?: string;
  readonly parameter?: string;
  readonly detail: string;
}

interface ProblemOptions {
  readonly faults?: readonly RequestFault[];
  /** Header fields of the answer. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Further members of the document (RFC 9457, 3.2), by their names. */
  readonly extensions?: Readonly<Record<string, unknown>>;
  /** For the log only. */
  readonly cause?: unknown;
}

/** A failure that a client may be told about. Anything else that is thrown is masked as `internal`. */
export class Problem extends Error {
  readonly status: number;
  readonly title: string;
  readonly faults: readonly RequestFault[];
  readonly headers: Readonly<Record<string, string>>;
  readonly extensions: Readonly<Record<string, unknown>>;

  constructor(
    readonly slug: ProblemSlug,
    readonly detail: string,
    options: ProblemOptions = {},
  ) {
    super(`${slug}: ${detail}`, { cause: options.cause });
    this.name = 'Problem';
    this.status = PROBLEMS[slug].status;
    this.title = PROBLEMS[slug].title;
    this.faults = options.faults ?? [];
    this.headers = options.headers ?? {};
    this.extensions = options.extensions ?? {};
  }

  get type(): string {
    return `urn:problem:${this.slug}`;
  }
}
