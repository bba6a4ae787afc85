import { spawnSync } from 'node:child_process';
import images from '../../infra/images.json';

/** Releases for the tests: the environment's own image with a change, under an exact version. */

const made = new Set<string>();

/** @param version exact, as the program wants it */
function build(version: string, dockerfile: string, part = 'api'): string {
  const tag = `branchloans-test-${process.pid}-${part}:${version}`;
  const { status, stderr, stdout } = spawnSync('docker', ['build', '--network', 'none', '--tag', tag, '-'], {
    input: dockerfile,
    encoding: 'utf8',
    // The classic builder: it needs no plugin.
    env: { ...process.env, DOCKER_BUILDKIT: '0' },
  });
  if (status !== 0) throw new Error(`building ${tag}: ${stdout}${stderr}`);
  made.add(tag);
  return tag;
}

/** Behaves the same, but is another image. */
export function nextRelease(base: string, number: number): string {
  return build(`1.0.${number}`, `FROM ${base}\nLABEL release=${number}\n`);
}

/** Migrates well and crashes when it starts. */
export function crashingRelease(base: string): string {
  return changed(base, '2.0.0', `if (serving) throw new Error("boom at start");`);
}

/** Migrates well, starts, and listens on no port. */
export function silentRelease(base: string): string {
  return changed(
    base,
    '2.0.1',
    `if (serving) { console.log("waiting for something that never comes"); setInterval(() => {}, 1000); } else`,
  );
}

/** Answers, but never that it is ready. */
export function unreadyRelease(base: string): string {
  return changed(base, '2.0.2', answering(`path === "/health/ready"`, 503, 'the cache is cold'));
}

/** Ready, and fails whoever reads loans. */
export function failingRelease(base: string): string {
  return changed(base, '2.0.3', answering(`path.startsWith("/api/")`, 500, 'boom in a handler'));
}

/** Good, and ready after so many seconds. */
export function slowRelease(base: string, seconds: number): string {
  const start = `console.log("warming up for ${seconds} s"); setTimeout(() => require("./service.js"), ${seconds * 1_000});`;
  return changed(base, `2.1.${seconds}`, `if (serving && isPrimary) { ${start} } else`);
}

/** Good, but for so many seconds it says that the database does not answer in time, as on a busy host. */
export function hesitatingRelease(base: string, seconds: number): string {
  const late = `path === "/health-db" && process.uptime() < ${seconds}`;
  return changed(base, '2.1.1000', answering(late, 500, 'urn:problem:db-check-failed'));
}

/** Migrates well, and gives the database a wrong password when it serves. */
export function passwordlessRelease(base: string): string {
  const wrong = `fs.writeFileSync("/tmp/password", "not the password"); process.env.DATABASE_PASSWORD_FILE = "/tmp/password";`;
  return changed(base, '2.0.4', `if (serving) { const fs = require("node:fs"); ${wrong} }`);
}

/** Has a migration that changes the schema and its rows, and then fails. */
export function badMigrationRelease(base: string): string {
  const sql =
    'ALTER TABLE loans ADD COLUMN halfway text;\nUPDATE loans SET halfway = borrower_id ' +
    "WHERE borrower_id LIKE 'usr_%';\nSELECT no_such_function();\n";
  const next = `printf '%04d' $(($(ls /app/migrations | wc -l) + 1))`;
  return build(
    '2.0.5',
    `FROM ${base}\nUSER 0\nRUN echo ${encoded(sql)} | base64 -d > /app/migrations/$(${next})_halfway.sql\nUSER 10001:10001\n`,
  );
}

/** Passes every test on its own port, and fails whoever comes through TLS. */
export function publiclyBrokenRelease(base: string): string {
  return changed(base, '2.0.6', answering(`headers["x-forwarded-proto"] === "https"`, 500, 'boom behind TLS'));
}

/** Passes the gate, which asks it directly, and answers every third request that comes through the gateway with 500. */
export function flakyRelease(base: string): string {
  return changed(
    base,
    '2.0.7',
    `const { ServerResponse } = require("node:http");
const end = ServerResponse.prototype.end;
let turn = 0;
ServerResponse.prototype.end = function (...given) {
  const { url, headers } = this.req;
  if (headers["x-forwarded-proto"] && url.startsWith("/api/") && ++turn % 3 === 0) this.statusCode = 500;
  return end.apply(this, given);
};`,
  );
}

type Part = 'nginx' | 'postgres' | 'prometheus' | 'grafana';

/** Behaves the same, but is another image. */
export function changedPart(part: Part): string {
  return build('1.0.1', `FROM ${images[part]}\nLABEL changed=yes\n`, part);
}

/**
 * Passes every check of its files and then does not start; PostgreSQL is of another major version, by what it says of
 * itself.
 */
export function brokenPart(part: Part): string {
  const boom = `echo boom at start of ${part}; exit 1`;
  const real = (program: string) => `PATH=$(echo $PATH | sed s,^/broken:,,) exec ${program} "$@"`;
  const [file, script] = {
    nginx: ['/broken/nginx', `case "$*" in *-t*) ${real('nginx')};; esac; ${boom}`],
    postgres: ['/broken/postgres', `test "$1" = --version && echo "postgres (PostgreSQL) 17.6" || ${real('postgres')}`],
    prometheus: ['/bin/prometheus', boom],
    grafana: ['/run.sh', boom],
  }[part] as [string, string];
  return build(
    '2.0.0',
    `FROM ${images[part]}\nUSER 0\nENV PATH=/broken:$PATH\n` +
      `RUN mkdir -p /broken && echo ${encoded(`#!/bin/sh\n${script}\n`)} | base64 -d > ${file} && chmod 755 ${file}\n`,
    part,
  );
}

/** For a release that answers some requests itself. */
function answering(condition: string, status: number, words: string): string {
  return `const http = require("node:http");
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (name, request, response) {
  if (name !== "request") return emit.apply(this, arguments);
  const { headers, url } = request;
  const path = url.split("?")[0];
  if (!(${condition})) return emit.apply(this, arguments);
  console.log("${words}: " + path);
  response.writeHead(${status}, { "content-type": "application/problem+json" });
  response.end(JSON.stringify({ title: "${words}" }));
  return true;
};`;
}

/** The service as it is, with a script that runs first. It knows `serving` and `isPrimary`. */
function changed(base: string, version: string, script: string): string {
  const main = `const { isPrimary } = require("node:cluster");
const serving = [undefined, "serve"].includes(process.argv[2]);
${script}
require("./service.js");
`;
  return build(
    version,
    `FROM ${base}\nUSER 0\nRUN mv /app/main.js /app/service.js && echo ${encoded(main)} | base64 -d > /app/main.js\nUSER 10001:10001\n`,
  );
}

function encoded(text: string): string {
  return Buffer.from(text).toString('base64');
}

/** Those that this process made: others may be in use on the same engine. */
export function removeReleases(): void {
  if (made.size > 0) spawnSync('docker', ['rmi', ...made]);
  made.clear();
}
