/** Something that the user can mend; the message says how. */
export class EmbeddedError extends Error {
  override readonly name = 'EmbeddedError';
}
