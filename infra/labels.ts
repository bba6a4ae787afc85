/** Prefix of the labels that every container of a stack carries. */
export const LABEL = 'org.branchloans';

/** Which environment a container belongs to (its prefix, unlike the stack's name, is unique on an engine) and as what. */
export function labelsOf(spec: { readonly stack: string; readonly prefix: string }, component: string) {
  return {
    [`${LABEL}.stack`]: spec.stack,
    [`${LABEL}.environment`]: spec.prefix,
    [`${LABEL}.component`]: component,
  };
}
