import { asset, assetFile, sendAsset } from '../assets';
import type { Context } from '../context';
import { docsPage } from '../docs';
import { PAGE_POLICY } from '../html';
import { openApiDocument } from '../openapi';

export function docsHandlers(maxAmount: string) {
  const document = openApiDocument(maxAmount);
  const json = asset('application/json; charset=utf-8', JSON.stringify(document));
  const page = asset('text/html; charset=utf-8', docsPage(document));
  const style = assetFile('text/css; charset=utf-8', 'style.css');
  const script = assetFile('text/javascript; charset=utf-8', 'try-it.js');
  const icon = assetFile('image/svg+xml', 'icon.svg');
  return {
    openApi: (ctx: Context) => sendAsset(ctx, json),

    docs(ctx: Context) {
      ctx.set('Content-Security-Policy', PAGE_POLICY);
      sendAsset(ctx, page);
    },

    docsStyle: (ctx: Context) => sendAsset(ctx, style),

    docsScript: (ctx: Context) => sendAsset(ctx, script),

    docsIcon: (ctx: Context) => sendAsset(ctx, icon),
  };
}
