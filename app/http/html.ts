/** What all our pages share. They work without scripts, and bring nothing but files of ours. */
/**
 * Of a page, which takes its style and its script from us and nothing from elsewhere. A script may not make HTML of
 * text (trusted types), so what the API answers stays text.
 */
export const PAGE_POLICY =
  "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; " +
  "require-trusted-types-for 'script'; trusted-types 'none'";

interface Page {
  /** As text. */
  readonly title: string;
  /** As HTML. */
  readonly body: string;
  /** Path of a module of ours. */
  readonly script?: string;
}

export function htmlPage({ title, body, script }: Page): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escape(title)}</title>
<link rel="icon" href="/docs/icon.svg">
<link rel="stylesheet" href="/docs/style.css">${script === undefined ? '' : `\n<script type="module" src="${script}"></script>`}
</head>
<body>
${body}
</body>
</html>
`;
}

/** Text as it may stand in HTML, in an attribute too. */
export function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
