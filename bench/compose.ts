import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { freePort } from '../infra/embedded/ports';
import images from '../infra/images.json';
import type { CertificateFiles } from '../ssl/certificates';
import { ask, type Target } from '../infra/load/load';

/**
 * The same service as its users would run it with Docker Compose and nothing else: API, Postgres, and nginx with the
 * same certificate before them. Written with the care that Compose allows: the migrations run before a new release, nginx
 * looks the API's names up each second (else it would go on asking an address that is gone), as many API containers.
 */
export interface ComposeService {
  readonly image: string;
  readonly replicas: number;
  /** Settings of the API, `NAME=value` each; those of its database are replaced. */
  readonly settings: readonly string[];
}

/** Why there is no Compose. */
export class NoCompose extends Error {}

const DATABASE = {
  DATABASE_HOST: 'database',
  DATABASE_PORT: '5432',
  DATABASE_NAME: 'postgres',
  DATABASE_USER: 'postgres',
  DATABASE_PASSWORD_FILE: '',
};
const POSTGRES = `set -eu
if [ ! -s "$$PGDATA/PG_VERSION" ]; then
  initdb --username postgres --auth trust --encoding UTF8 --locale C.UTF-8 --data-checksums
  echo 'host all all all trust' >> "$$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections=200 -c shared_buffers=256MB`;
const NGINX = `pid /tmp/nginx.pid;
events {}
http {
  resolver 127.0.0.11 valid=1s ipv6=off;
  access_log off;
  ssl_session_cache shared:tls:2m;
  server {
    listen 443 ssl;
    ssl_certificate /certificate/tls.pem;
    ssl_certificate_key /certificate/tls.key;
    location / {
      set $api http://api:8000;
      proxy_pass $api;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Request-ID $http_x_request_id;
    }
  }
}
`;

/** How to call it here. @throws NoCompose */
export function findCompose(): { readonly command: readonly string[]; readonly version: string } {
  for (const command of [['docker', 'compose'], ['docker-compose']]) {
    const [program = '', ...args] = command;
    const { status, stdout } = spawnSync(program, [...args, 'version', '--short'], { encoding: 'utf8' });
    if (status === 0) return { command, version: `${command.join(' ')} ${stdout.trim()}` };
  }
  throw new NoCompose('neither `docker compose` nor `docker-compose` is on the PATH');
}

export class ComposeDeployment {
  readonly version: string;
  private readonly command: readonly string[];
  private key = '';

  private constructor(
    private readonly project: string,
    private readonly directory: string,
    private readonly port: number,
    private readonly authority: string,
  ) {
    ({ command: this.command, version: this.version } = findCompose());
  }

  /**
   * Brings it up for the first time.
   * @param directory for its files; made if it is not there
   * @throws NoCompose
   */
  static async create(
    directory: string,
    service: ComposeService,
    { certificateFile, keyFile, caFile }: CertificateFiles & { readonly caFile: string },
  ): Promise<ComposeDeployment> {
    mkdirSync(directory, { recursive: true });
    const project = `bl-compose-${process.pid}`;
    const deployment = new ComposeDeployment(project, directory, await freePort(), readFileSync(caFile, 'utf8'));
    writeFileSync(join(directory, 'nginx.conf'), NGINX);
    writeFileSync(join(directory, 'tls.pem'), readFileSync(certificateFile));
    writeFileSync(join(directory, 'tls.key'), readFileSync(keyFile), { mode: 0o600 });
    try {
      await deployment.up(service);
      const create = ['api-key', 'create', '--name', 'the load', '--scopes', 'loans:read,loans:write'];
      deployment.key = (await deployment.run(['exec', '-T', 'api', 'node', '/app/main.js', ...create])).trim();
      const { url, authority, key } = deployment.target;
      const deadline = Date.now() + 30_000;
      while ((await ask(`${url}/api/v1/stats`, authority, { key }).catch(() => undefined))?.status !== 200) {
        if (Date.now() > deadline) throw new Error(`no answer:\n${await deployment.run(['logs', '--tail', '20'])}`);
        await sleep(200);
      }
    } catch (error) {
      await deployment.remove();
      throw error;
    }
    return deployment;
  }

  get target(): Target {
    return { url: `https://localhost:${this.port}`, authority: this.authority, key: this.key };
  }

  /** What a user does: writes the change into the file, and `up -d`. */
  async up({ image, replicas, settings }: ComposeService): Promise<void> {
    const environment = {
      ...Object.fromEntries(settings.map((setting) => /^([^=]*)=([^]*)$/.exec(setting)?.slice(1) ?? [setting, ''])),
      ...DATABASE,
    } as Record<string, string>;
    delete environment['DATABASE_PASSWORD_FILE'];
    const restart = 'unless-stopped';
    const services = {
      database: {
        ...{ image: images.postgres, restart, user: '999:999', entrypoint: ['sh', '-c', POSTGRES], shm_size: '256m' },
        environment: { PGDATA: '/tmp/data' },
        healthcheck: {
          test: ['CMD', 'pg_isready', '-q', '-h', '127.0.0.1', '-U', 'postgres'],
          interval: '1s',
          retries: 60,
        },
      },
      migrate: {
        ...{ image, command: ['migrate'], environment },
        depends_on: { database: { condition: 'service_healthy' } },
      },
      api: {
        ...{ image, environment, restart },
        depends_on: { migrate: { condition: 'service_completed_successfully' } },
      },
      gateway: {
        ...{ image: images.nginx, restart, depends_on: ['api'] },
        entrypoint: ['nginx', '-c', '/etc/nginx/nginx.conf', '-g', 'daemon off;'],
        ports: [`127.0.0.1:${this.port}:443`],
        volumes: [
          './nginx.conf:/etc/nginx/nginx.conf:ro',
          './tls.pem:/certificate/tls.pem:ro',
          './tls.key:/certificate/tls.key:ro',
        ],
      },
    };
    writeFileSync(join(this.directory, 'docker-compose.yml'), stringify({ services }));
    await this.run(['up', '-d', '--scale', `api=${replicas}`]);
  }

  async sql(statement: string): Promise<string> {
    const options = ['-h', '/tmp', '-U', 'postgres', '--no-psqlrc', '--tuples-only', '--no-align'];
    return this.run(['exec', '-T', 'database', 'psql', ...options, '--command', statement]);
  }

  async remove(): Promise<void> {
    await this.run(['down', '--volumes', '--timeout', '2']);
  }

  /** @returns what it prints on standard output */
  private async run(args: readonly string[]): Promise<string> {
    const [program = '', ...first] = this.command;
    const file = ['--project-name', this.project, '--file', join(this.directory, 'docker-compose.yml')];
    return (await promisify(execFile)(program, [...first, ...file, ...args], { maxBuffer: 2 ** 26 })).stdout;
  }
}
