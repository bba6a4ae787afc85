/** Prefix of the labels that every container of a stack carries: `<LABEL>.stack` and `<LABEL>.component`. */
export const LABEL = 'org.branchloans';
