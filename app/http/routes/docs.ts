import type { Context } from '../context';
import { DOCS_STYLE, docsPage } from '../docs';
import { openApiDocument } from '../openapi';
import { send } from '../send';

/** The page brings its own style from here, and nothing else. */
const PAGE_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

export function docsHandlers(maxAmount: string) {
  const document = openApiDocument(maxAmount);
  const json = JSON.stringify(document);
  const page = docsPage(document);
  return {
    openApi(ctx: Context) {
      send(ctx, 200, 'application/json; charset=utf-8', json);
    },

    docs(ctx: Context) {
      ctx.set('Content-Security-Policy', PAGE_POLICY);
      send(ctx, 200, 'text/html; charset=utf-8', page);
    },

    docsStyle(ctx: Context) {
      send(ctx, 200, 'text/css; charset=utf-8', DOCS_STYLE);
    },
  };
}
