import { spawnSync } from 'node:child_process';

/** Releases for the tests: the environment's own image with a change, under an exact version. */

function build(tag: string, dockerfile: string): string {
  const { status, stderr, stdout } = spawnSync('docker', ['build', '--network', 'none', '--tag', tag, '-'], {
    input: dockerfile,
    encoding: 'utf8',
    // The classic builder: it needs no plugin.
    env: { ...process.env, DOCKER_BUILDKIT: '0' },
  });
  if (status !== 0) throw new Error(`building ${tag}: ${stdout}${stderr}`);
  return tag;
}

/** Behaves the same, but is another image. */
export function nextRelease(base: string, number: number): string {
  return build(`bl-test-release:1.0.${number}`, `FROM ${base}\nLABEL release=${number}\n`);
}

/** Migrates well, starts, and never answers. */
export function silentRelease(base: string): string {
  return broken(base, '2.0.0', `console.log("waiting for something that never comes"); setInterval(() => {}, 1000);`);
}

/** Migrates well and crashes when it starts. */
export function crashingRelease(base: string): string {
  return broken(base, '2.0.1', `throw new Error("boom at start");`);
}

/** All is well when it is asked directly; whoever comes through the gateway's TLS gets an error. */
export function publiclyBrokenRelease(base: string): string {
  const http = `const http = require("node:http"), create = http.createServer;
http.createServer = (...args) => {
  const server = create(...args), emit = server.emit;
  server.emit = function (event, request, response) {
    if (event === "request" && request.headers["x-forwarded-proto"] === "https") {
      response.writeHead(500).end("broken for the public");
      return true;
    }
    return emit.apply(this, arguments);
  };
  return server;
};`;
  const encoded = Buffer.from(http).toString('base64');
  return build(
    'bl-test-broken:2.0.2',
    `FROM ${base}\nUSER 0\nRUN echo ${encoded} | base64 -d > /app/public.js\n` +
      'ENV NODE_OPTIONS="--require /app/public.js"\nUSER 10001:10001\n',
  );
}

function broken(base: string, version: string, script: string): string {
  const main = `if (process.argv[2] === "migrate" || process.argv[2] === "seed") process.exit(0);\n${script}\n`;
  const encoded = Buffer.from(main).toString('base64');
  return build(
    `bl-test-broken:${version}`,
    `FROM ${base}\nUSER 0\nRUN echo ${encoded} | base64 -d > /app/main.js\nUSER 10001:10001\n`,
  );
}

export function removeReleases(): void {
  const { stdout } = spawnSync('docker', ['images', '--format', '{{.Repository}}:{{.Tag}}'], { encoding: 'utf8' });
  const ours = stdout.split('\n').filter((name) => name.startsWith('bl-test-'));
  if (ours.length > 0) spawnSync('docker', ['rmi', ...ours]);
}
