/** A suite that is skipped where there is a reason; the reason is in its name, and in the summary of `make test`. */
export function describeUnless(reason: string | undefined, name: string, tests: () => void): void {
  if (reason === undefined) describe(name, tests);
  else describe.skip(`${name} (skipped: ${reason})`, tests);
}
