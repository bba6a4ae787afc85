import { spawnSync } from 'node:child_process';
import images from '../../infra/images.json';

/** Releases for the tests: the environment's own image with a change, under an exact version. */

const made = new Set<string>();

/** Under a name of this process: tests that run at the same time neither share an image nor remove one another's. */
function build(name: string, dockerfile: string): string {
  const tag = name.replace(':', `-${process.pid}:`);
  made.add(tag);
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

function broken(base: string, version: string, script: string): string {
  const main = `if (process.argv[2] === "migrate" || process.argv[2] === "seed") process.exit(0);\n${script}\n`;
  const encoded = Buffer.from(main).toString('base64');
  return build(
    `bl-test-broken:${version}`,
    `FROM ${base}\nUSER 0\nRUN echo ${encoded} | base64 -d > /app/main.js\nUSER 10001:10001\n`,
  );
}

type Part = 'nginx' | 'postgres' | 'prometheus' | 'grafana';

/** Behaves the same, but is another image. */
export function changedPart(part: Part): string {
  return build(`bl-test-${part}:1.0.1`, `FROM ${images[part]}\nLABEL changed=yes\n`);
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
  const encoded = Buffer.from(`#!/bin/sh\n${script}\n`).toString('base64');
  return build(
    `bl-test-${part}:2.0.0`,
    `FROM ${images[part]}\nUSER 0\nENV PATH=/broken:$PATH\n` +
      `RUN mkdir -p /broken && echo ${encoded} | base64 -d > ${file} && chmod 755 ${file}\n`,
  );
}

export function removeReleases(): void {
  if (made.size > 0) spawnSync('docker', ['rmi', ...made]);
  made.clear();
}
