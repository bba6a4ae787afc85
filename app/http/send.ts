import type { Answer } from '../db/idempotency';
import type { Context } from './context';

const JSON_TYPE = 'application/json; charset=utf-8';

export function sendJson(ctx: Context, status: number, value: unknown): void {
  send(ctx, status, JSON_TYPE, JSON.stringify(value));
}

export function send(ctx: Context, status: number, contentType: string, body: string): void {
  sendAnswer(ctx, { status, headers: { 'Content-Type': contentType }, body });
}

export function jsonAnswer(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return jsonTextAnswer(status, JSON.stringify(value), headers);
}

export function jsonTextAnswer(status: number, body: string, headers: Readonly<Record<string, string>> = {}): Answer {
  return { status, headers: { ...headers, 'Content-Type': JSON_TYPE }, body };
}

export function sendAnswer(ctx: Context, { status, headers, body }: Answer): void {
  ctx.status = status;
  for (const name in headers) ctx.res.setHeader(name, headers[name] ?? '');
  ctx.body = body;
}
