// Stands in for Grafana where its image cannot be had. It checks what the stack is responsible for (secrets,
// mounts, paths, the sub path behind the gateway) and says on every page that Grafana did not run.
import { createServer } from 'node:http';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const env = process.env;
const prefix = new URL(env.GF_SERVER_ROOT_URL ?? 'http://localhost/').pathname.replace(/\/$/, '');
const user = env.GF_SECURITY_ADMIN_USER ?? 'admin';
const password = secret('GF_SECURITY_ADMIN_PASSWORD');
secret('GF_SECURITY_SECRET_KEY');

/** As Grafana does: `$__file{/path}` is replaced by the file's text. Unlike Grafana it does not start without. */
function secret(name) {
  const value = env[name] ?? '';
  const file = /^\$__file\{(.+)\}$/.exec(value)?.[1];
  let text = value;
  try {
    if (file !== undefined) text = readFileSync(file, 'utf8').trim();
  } catch (error) {
    console.error(`${name}: cannot read ${file}: ${error.code}`);
    process.exit(1);
  }
  if (text === '') {
    console.error(`${name} is empty: the stack must set it`);
    process.exit(1);
  }
  return text;
}

function filesBelow(folder, ending) {
  try {
    return readdirSync(folder, { recursive: true }).filter((name) => name.toString().endsWith(ending));
  } catch {
    return [];
  }
}

const provisioning = env.GF_PATHS_PROVISIONING ?? '/etc/grafana/provisioning';
const datasources = () => filesBelow(join(provisioning, 'datasources'), '.yaml');
function dashboards() {
  return filesBelow(join(provisioning, 'dashboards'), '.yaml').flatMap((file) => {
    const path = /^\s*path:\s*['"]?([^'"\n]+)/m.exec(readFileSync(join(provisioning, 'dashboards', file), 'utf8'))?.[1];
    return path === undefined
      ? []
      : filesBelow(path.trim(), '.json').map((name) => JSON.parse(readFileSync(join(path.trim(), name), 'utf8')).title);
  });
}

const page = `<!doctype html><html lang="en"><title>Grafana did not run</title>
<h1>Grafana did not run</h1><p>This is a stand-in: the image of Grafana could not be had on this machine.</p></html>`;

const authorized = (request) =>
  request.headers.authorization === `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

function answer(request) {
  const path = new URL(request.url, 'http://x').pathname;
  const route = path.startsWith(prefix) ? path.slice(prefix.length) || '/' : path;
  if (route === '/api/health') return [200, { database: 'ok', version: 'stand-in', note: 'Grafana did not run' }];
  if (route === '/') return [302, '', { location: `${prefix}/login` }];
  if (route === '/login') return [200, page];
  if (!['/api/org', '/api/datasources', '/api/search'].includes(route)) return [404, { message: 'Not found' }];
  if (!authorized(request)) return [401, { message: 'Unauthorized' }];
  if (route === '/api/org') return [200, { id: 1, name: 'Main Org.' }];
  return [
    200,
    route === '/api/search' ? dashboards().map((title) => ({ title })) : datasources().map((name) => ({ name })),
  ];
}

const server = createServer((request, response) => {
  const [status, body, headers = {}] = answer(request);
  const json = typeof body !== 'string';
  response.writeHead(status, { 'content-type': json ? 'application/json' : 'text/html; charset=utf-8', ...headers });
  response.end(json ? JSON.stringify(body) : body);
});
// Read once before listening, so that a dashboard that is no JSON stops it at start.
const found = `${datasources().length} datasource files, ${dashboards().length} dashboards`;
server.listen(3000, () => console.log(`stand-in for Grafana on 3000${prefix} (${found}): Grafana did not run`));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
