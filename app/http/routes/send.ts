import type { Context } from '../context';

const JSON_TYPE = 'application/json; charset=utf-8';

export function sendJson(ctx: Context, status: number, value: unknown): void {
  send(ctx, status, JSON_TYPE, JSON.stringify(value));
}

export function send(ctx: Context, status: number, contentType: string, body: string): void {
  ctx.status = status;
  ctx.res.setHeader('Content-Type', contentType);
  ctx.body = body;
}
