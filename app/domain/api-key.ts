/**
 * The keys that clients show: `bl_<environment>_<id>_<secret><checksum>`, letters, digits and hyphens between
 * underscores. The prefix is what scanners of repositories and logs look for; the checksum (CRC-32, base 62) tells a
 * real key from a typing error or a random find without asking anybody. It is no protection: the secret is.
 */
export const SCOPES = ['loans:read', 'loans:write', 'sre:read', 'admin'] as const;
export type Scope = (typeof SCOPES)[number];

/** What ids and secrets are made of, each character drawn evenly. */
export const ID = { alphabet: '0123456789abcdefghijklmnopqrstuvwxyz', length: 12 } as const;
/** 190 bits. */
export const SECRET = {
  alphabet: '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz',
  length: 32,
} as const;

const CHECKSUM_LENGTH = 6;
const FORM = /^bl_([a-z][a-z0-9-]*)_([0-9a-z]{12})_[0-9A-Za-z]{38}$/;

/** What a key says openly. */
export interface KeyName {
  /** The one that the key was made for. */
  readonly environment: string;
  /** Not secret: it names the key in lists, logs and the audit trail. */
  readonly id: string;
}

export function formatApiKey({ environment, id }: KeyName, secret: string): string {
  const text = `bl_${environment}_${id}_${secret}`;
  return text + checksum(text);
}

/** Undefined for what was never a key: any one character that is changed, added or left out is noticed. */
export function parseApiKey(text: string): KeyName | undefined {
  const [, environment, id] = FORM.exec(text) ?? [];
  if (environment === undefined || id === undefined) return undefined;
  const end = text.length - CHECKSUM_LENGTH;
  return text.slice(end) === checksum(text.slice(0, end)) ? { environment, id } : undefined;
}

export function isScope(text: string): text is Scope {
  return (SCOPES as readonly string[]).includes(text);
}

/** Whether these scopes allow what needs the given one; admin includes the others. */
export function allows(scopes: readonly Scope[], needed: Scope): boolean {
  return scopes.includes(needed) || scopes.includes('admin');
}

/** CRC-32 of IEEE 802.3, by table: Node's own came with version 20.15. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** @param text in ASCII */
function checksum(text: string): string {
  let crc = 0xffffffff;
  for (let index = 0; index < text.length; index++) {
    crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ text.charCodeAt(index)) & 0xff] ?? 0);
  }
  let rest = (crc ^ 0xffffffff) >>> 0;
  let digits = '';
  for (let place = 0; place < CHECKSUM_LENGTH; place++) {
    digits = (SECRET.alphabet[rest % 62] ?? '') + digits;
    rest = Math.floor(rest / 62);
  }
  return digits;
}
