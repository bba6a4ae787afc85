import { z } from 'zod';
import { api, type Components, CONTENT_TAG, operations } from './operation';
import { timestamp } from './values';

/** What the service says about itself. */
const bytes = z.int().min(0).meta({ description: 'Bytes' });
const percent = z.number().min(0).max(100);
const source = z
  .enum(['cgroup-v2', 'cgroup-v1', 'host'])
  .meta({ description: "Whose limit and use it is: the container's where it has a limit, else the host's" });

export const applicationStatusSchema = z.strictObject({
  status: z.enum(['ok', 'degraded', 'shutting-down']).meta({
    description: 'degraded: the database is down, or its schema is older than this release',
  }),
  timestamp,
  version: z.string(),
  commit: z.string(),
  environment: z.string(),
  started_at: timestamp.meta({ description: 'Of the process that answers' }),
  uptime_seconds: z.number().min(0),
  database: z.strictObject({
    status: z.enum(['up', 'down']),
    latency_ms: z.number().min(0).nullable().meta({ description: 'Null when it is down' }),
    schema_version: z.int().min(0).nullable().meta({ description: 'Null when it is unknown' }),
    release_schema_version: z.int().min(0).meta({ description: 'What this release brings' }),
  }),
});
export type ApplicationStatus = z.infer<typeof applicationStatusSchema>;

export const systemMetricsSchema = z.strictObject({
  timestamp,
  cpu: z.strictObject({
    source,
    percent: percent.meta({ description: 'Of what `count` CPUs can do, over the interval' }),
    count: z.number().positive().meta({ description: "A container's share may be a fraction" }),
    interval_seconds: z.number().min(0).meta({ description: 'Since the last time that this process was asked' }),
  }),
  memory: z.strictObject({ source, total: bytes, available: bytes, percent, used: bytes }),
  disk: z
    .strictObject({ total: bytes, used: bytes, free: bytes, percent })
    .meta({ description: "The file system of the process's root" }),
});

export const SYSTEM_COMPONENTS: Components = {
  ApplicationStatus: applicationStatusSchema,
  SystemMetrics: systemMetricsSchema,
  Echo: z.unknown().meta({ description: 'Any JSON', examples: [{ amount: '1.10' }] }),
};

export const SYSTEM_OPERATIONS = operations([
  {
    // The page /status shows it to everybody, and /health has most of it.
    id: 'applicationStatus',
    access: 'public',
    method: 'GET',
    paths: api('/status'),
    summary: 'How the application is: its release, how long it runs, and its database',
    answer: { status: 200, schema: 'ApplicationStatus' },
    problems: ['invalid-parameter'],
  },
  {
    id: 'statusPage',
    access: 'public',
    method: 'GET',
    paths: ['/status'],
    summary: 'The same as a page, which keeps itself current',
    answer: { status: 200, mediaType: 'text/html' },
    problems: ['invalid-parameter'],
  },
  {
    id: 'statusScript',
    access: 'public',
    method: 'GET',
    paths: ['/status/status.js'],
    summary: 'The script of that page',
    answer: { status: 200, mediaType: 'text/javascript', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    // How near to its limits a service is, is worth knowing to whoever wants to push it over them.
    id: 'systemMetrics',
    access: 'admin',
    method: 'GET',
    paths: api('/metrics'),
    summary: 'CPU, memory and disk: of the container where it has limits, else of the host',
    answer: { status: 200, schema: 'SystemMetrics' },
    problems: ['invalid-parameter'],
  },
  {
    id: 'echo',
    access: 'loans:read',
    method: 'POST',
    paths: api('/echo'),
    summary: 'Gives the JSON back as it came, every number as it was written: to try a client, or a key',
    answer: { status: 200, schema: 'Echo' },
    body: 'Echo',
    problems: [
      'malformed-request',
      'malformed-json',
      'invalid-utf8',
      'payload-too-large',
      'unsupported-media-type',
      'invalid-parameter',
    ],
  },
]);
