import { z } from 'zod';
import { type Components, CONTENT_TAG, operations } from './operation';
import { timestamp } from './values';

export const healthSchema = z.strictObject({
  status: z.literal('ok'),
  timestamp,
  uptime_seconds: z.number().min(0),
  version: z.string(),
});
export const statusSchema = z.strictObject({ status: z.literal('ok') });
export const databaseHealthSchema = z.strictObject({ status: z.literal('ok'), database_ms: z.number().min(0) });

export const PROBE_COMPONENTS: Components = {
  Health: healthSchema,
  Status: statusSchema,
  DatabaseHealth: databaseHealthSchema,
};

export const PROBE_OPERATIONS = operations([
  {
    id: 'health',
    access: 'public',
    method: 'GET',
    paths: ['/health'],
    summary: 'The process runs',
    answer: { status: 200, schema: 'Health' },
    problems: [],
  },
  {
    id: 'live',
    access: 'public',
    method: 'GET',
    paths: ['/health/live'],
    summary: 'The process runs: restart it when this fails',
    answer: { status: 200, schema: 'Status' },
    problems: [],
  },
  {
    id: 'ready',
    access: 'public',
    method: 'GET',
    paths: ['/health/ready'],
    summary: 'The database answers and the process is not shutting down: send no requests here when this fails',
    answer: { status: 200, schema: 'Status' },
    problems: ['db-unavailable', 'overloaded', 'shutting-down'],
  },
  {
    id: 'databaseHealth',
    access: 'public',
    method: 'GET',
    paths: ['/health-db'],
    summary: 'Asks the database a question and says how long the answer took',
    answer: { status: 200, schema: 'DatabaseHealth' },
    problems: ['db-check-failed'],
  },
  {
    id: 'metrics',
    access: 'public',
    method: 'GET',
    paths: ['/metrics'],
    summary: 'Metrics in the text format of Prometheus, or as OpenMetrics where that is asked for',
    answer: { status: 200, mediaType: 'text/plain' },
    problems: ['metrics-unavailable'],
  },
  {
    id: 'openApi',
    access: 'public',
    method: 'GET',
    paths: ['/openapi.json'],
    summary: 'This document',
    answer: { status: 200, mediaType: 'application/json', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    id: 'docs',
    access: 'public',
    method: 'GET',
    paths: ['/docs'],
    summary: 'This document as a page, where calls can be tried',
    answer: { status: 200, mediaType: 'text/html', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    id: 'docsStyle',
    access: 'public',
    method: 'GET',
    paths: ['/docs/style.css'],
    summary: 'The style of the page',
    answer: { status: 200, mediaType: 'text/css', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    id: 'docsScript',
    access: 'public',
    method: 'GET',
    paths: ['/docs/try-it.js'],
    summary: 'The script of the page',
    answer: { status: 200, mediaType: 'text/javascript', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    id: 'docsIcon',
    access: 'public',
    method: 'GET',
    paths: ['/docs/icon.svg'],
    summary: 'The icon of the page',
    answer: { status: 200, mediaType: 'image/svg+xml', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
]);
