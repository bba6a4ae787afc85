/**
 * Clients put secrets where they do not belong: an API key into a path, a request id or a referrer. Logs, traces, error
 * reports and problem documents are read by more people than keys are for, and kept for longer. So text of a client
 * passes through here before it gets into one of them.
 *
 * What stays of an API key is what it says openly, so that its owner knows which one to revoke: `bl_<environment>_<id>_***`.
 */
const SECRETS = new RegExp(
  [
    // An API key, also in the middle of a word; or what begins like one: cut off, or with a typing error in it.
    String.raw`bl_[a-z][a-z0-9-]*_[0-9a-z]{12}_\w*`,
    String.raw`(?<![0-9a-z])bl_[\w-]*`,
    // A JSON Web Token.
    String.raw`(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]*)*`,
    // What stands in an Authorization field.
    String.raw`(?<![a-z])(?:bearer|basic)(?:[\s:+]|%20)+[\w.~+/=-]{8,}`,
    // As in a query or a form.
    String.raw`(?<![a-z])(?:api[-_]?key|(?:access|auth|id|refresh)[-_]?token|token|secret|password|passwd|authorization)=[^&;\s"\\]+`,
  ].join('|'),
  'gi',
);
const OPEN_PART = /^bl_[a-z][a-z0-9-]*_[0-9a-z]{12}(?=_)/i;
const NAME = /^(?:[a-z]+(?=[\s:+%])|[\w-]+=)/i;
/** No word of ours, and no id, is as long. */
const LONG_WORD = /[\w-]{38,}/g;
/** What is percent-encoded twice is still easy to read. */
const MOST_ENCODINGS = 3;

/** The text without the secrets that can be recognized in it. Takes time in proportion to its length. */
export function withoutSecrets(text: string): string {
  return text.replace(SECRETS, (found) => {
    const open = OPEN_PART.exec(found)?.[0];
    if (open !== undefined) return `${open}_***`;
    if (/^bl_/i.test(found)) return 'bl_***';
    return `${/^eyJ/i.test(found) ? '' : (NAME.exec(found)?.[0] ?? '')}***`;
  });
}

export function hasSecret(text: string): boolean {
  return withoutSecrets(text) !== text;
}

/** The longest path of the contract has less than 100 characters. */
const LONGEST_PATH = 2_000;

/**
 * The same for the path of a request, in which any long word is taken for a secret, and percent-encoding hides nothing.
 * A path without secrets stays as it is, but for what is beyond its first 2,000 characters.
 */
export function pathWithoutSecrets(whole: string): string {
  // Before the patterns, which take time for each character.
  const path = whole.length > LONGEST_PATH ? `${whole.slice(0, LONGEST_PATH)}...` : whole;
  let decoded = path;
  for (let time = 0; time < MOST_ENCODINGS && decoded.includes('%'); time++) decoded = decodeAscii(decoded);
  return maskPath(maskPath(decoded) === decoded ? path : decoded);
}

function maskPath(path: string): string {
  return withoutSecrets(path).replace(LONG_WORD, (word) => (/\d/.test(word) && /[a-z]/i.test(word) ? '***' : word));
}

/** Only what is printable: a path stays one line. */
function decodeAscii(text: string): string {
  return text.replace(/%([2-6][0-9a-f]|7[0-9a-e])/gi, (_all, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
