import { spawnSync } from 'node:child_process';
import { cpSync } from 'node:fs';
import { join, resolve } from 'node:path';
import images from '../../infra/images.json';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, type Run, TestEnvironment } from './environment';
import { nextRelease, removeReleases } from './images';
import { ask } from './load';

/** What will change, and what is not as it was deployed: said by the verbs, on a real engine. */

jest.setTimeout(300_000);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'preview and drift', () => {
  let environment: TestEnvironment;
  const name = (part: string) => `${environment.prefix}-${part}`;
  const api = () => Object.keys(environment.containers()).find((each) => each.startsWith(name('api-1')))!;

  /** A verb as an operator calls it, and the commands that it names. */
  const shell = (command: string): Run => {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
      cwd: environment.directory,
      encoding: 'utf8',
      env: { ...process.env, PULUMI_CONFIG_PASSPHRASE: 'a passphrase of the tests', NODE_OPTIONS: '' },
    });
    return { code: status ?? 1, output: stdout + stderr };
  };
  const make = (verb: string) => shell(`make -s --old-file=node_modules/.package-lock.json ${verb}`);
  const previewOf = (section: string, change: object): string => {
    let before: unknown;
    const key = `branchloans:${section}`;
    environment.configure((settings) => {
      before = settings[key];
      settings[key] = { ...(before as object), ...change };
    });
    const { code, output } = make('preview');
    environment.configure((settings) => (settings[key] = before));
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    return output;
  };
  const up = async () => {
    const { code, output } = await environment.up();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
  };

  beforeAll(async () => {
    environment = await TestEnvironment.create('development');
    cpSync(resolve(__dirname, '../../Makefile'), join(environment.directory, 'Makefile'));
  });
  afterAll(async () => {
    spawnSync('docker', ['rm', '--force', name('stray')]);
    await environment.remove();
    spawnSync('docker', ['volume', 'rm', name('other')]);
    removeReleases();
  });

  it('preview of a new environment says what is made, and makes nothing', () => {
    const { code, output } = make('preview');
    expect([code, output]).toEqual([0, expect.stringContaining('is made for the first time: Database (files in ')]);
    expect(environment.leftovers()).toEqual([]);
  });

  describe('once it is up', () => {
    beforeAll(up);

    it('nothing changes, and nothing drifted', () => {
      expect(make('preview')).toEqual({ code: 0, output: 'Nothing changes.\n' });
      expect(make('drift')).toEqual({ code: 0, output: 'development: no drift.\n' });
    });

    it.each([
      [
        'gateway',
        () => ({ ports: { ...environment.ports, api: environment.ports.api + 1 } }),
        /Gateway: its container is replaced in place \(ports .*some seconds without an entrance/,
      ],
      [
        'database',
        () => ({ memory: '600m' }),
        /Database: its container is replaced in place \(memory 512 -> 600 MiB\): some seconds without a database; .* Its data stays in \S+-postgres\./,
      ],
      ['api', () => ({ replicas: 2 }), /API: replicas 1 -> 2: 1 container more[^]*No part is interrupted/],
      [
        'api',
        () => ({ retentionYears: 5 }),
        /BEFORE YOU GO ON:\n.*closed more than 5 years ago become pseudonyms.*cannot be undone/,
      ],
    ] as const)('preview of a change of %s', (section, change, sentence) => {
      expect(previewOf(section, change())).toMatch(sentence);
    });

    it('preview of wrong settings says what is wrong, as up does', () => {
      environment.configure((settings) => (settings['branchloans:domain'] = 'Loans.Example'));
      const { code, output } = make('preview');
      environment.configure((settings) => (settings['branchloans:domain'] = 'branchloans.com'));
      expect([code === 0, output]).toEqual([
        false,
        expect.stringMatching(/^Pulumi\.development\.yaml: .*\n {2}- domain: /),
      ]);
    });

    it('preview of another image', () => {
      const image = nextRelease(environment.output('image'), 1);
      environment.configure((settings) => (settings['branchloans:image'] = image));
      const { output } = make('preview');
      environment.configure((settings) => delete settings['branchloans:image']);
      expect(output).toMatch(
        /API: release changes to image branchloans-test-\d+-api:1\.0\.1 \(from .*beside the old.*No outage/,
      );
      expect(output).toMatch(/API: migrations run before the switch/);
    });

    it('drift names what is changed, stopped, stray or cut off, with remedies that help', async () => {
      const nginx = images.nginx;
      const volume = name('gateway-files');
      docker(['update', '--memory', '300m', '--memory-swap', '300m', name('grafana')]);
      docker(['stop', '--time', '1', name('prometheus')]);
      docker(
        ['run', '--detach', '--name', name('stray'), '--network', 'none', '--entrypoint', 'sleep'].concat([
          ...['--label', `org.branchloans.environment=${environment.prefix}`, nginx, '600'],
        ]),
      );
      docker(['network', 'disconnect', name('data'), name('database')]);
      docker(
        ['run', '--rm', '--user', '0:0', '--volume', `${volume}:/files`, '--entrypoint', 'sh', nginx, '-c'].concat([
          'sed -i "s/server [^ ]*:8000/server somebody:8000/" /files/current/upstream.conf',
        ]),
      );
      const gone = api();
      docker(['rm', '--force', gone]);
      const state = environment.state();

      const { code, output } = make('drift');
      expect(code).not.toBe(0);
      const findings = [...output.matchAll(/^ {2}- (.*)\n {4}(.*)\n {4}remedy: (.*)$/gm)].map(([, ...each]) => each);
      expect(findings).toHaveLength(6);
      expect(findings).toEqual(
        expect.arrayContaining([
          [expect.stringMatching(/^Stray: .*-stray /), expect.any(String), `docker rm --force ${name('stray')}`],
          [
            `Database: ${name('database')} is not connected to ${name('data')}.`,
            '`up` does not see it, nor does `up --refresh`.',
            `docker network connect --alias database ${name('data')} ${name('database')}`,
          ],
          [
            `Prometheus: ${name('prometheus')} does not run (exited).`,
            expect.any(String),
            `docker start ${name('prometheus')}`,
          ],
          [
            expect.stringMatching(/^Grafana: memory .* is 300, deployed was 512/),
            expect.any(String),
            expect.any(String),
          ],
          [expect.stringMatching(/^API: the container .*-api-1 is gone/), expect.any(String), expect.any(String)],
          [
            expect.stringMatching(new RegExp(`^Gateway: .*upstream\\.conf.*somebody.*deployed were ${gone}`)),
            expect.any(String),
            expect.stringMatching(/^pulumi up --target-replace '.*gateway-files-switch' -s development$/),
          ],
        ]),
      );
      expect(environment.state()).toBe(state);

      const remedies = [...new Set(findings.map(([, , remedy]) => remedy!))];
      for (const remedy of remedies) {
        const run = shell(remedy.startsWith('pulumi') ? `${remedy} --yes --skip-preview --non-interactive` : remedy);
        expect([remedy, run.code, run.code === 0 ? '' : run.output]).toEqual([remedy, 0, '']);
      }
      expect(make('drift')).toEqual({ code: 0, output: 'development: no drift.\n' });
      expect((await ask(`${environment.url}/api/loans`, environment.authority)).status).toBe(200);
    });

    it('a database that moves to another volume is told loudly, starts empty, and leaves the old one', async () => {
      const old = environment.volume;
      environment.configure((settings) => {
        settings['branchloans:database'] = {
          ...(settings['branchloans:database'] as object),
          volume: `./${name('other')}`,
        };
        settings['branchloans:sampleLoans'] = false;
      });
      expect(make('preview').output).toMatch(
        new RegExp(`BEFORE YOU GO ON:\\n.*from ${old} to ${name('other')}: .*EMPTY database.* stays where it is`),
      );
      await up();
      const [mount] = environment.containers()[name('database')]!.Mounts as unknown as { Name: string }[];
      expect(mount!.Name).toBe(name('other'));
      expect(docker(['volume', 'ls', '--quiet', '--filter', `name=${old}`]).trim()).toBe(old);
      const deadline = Date.now() + 30_000;
      let body = '';
      // Its connections to the old server end first.
      while (body !== '[]' && Date.now() < deadline)
        ({ body } = await ask(`${environment.url}/api/loans`, environment.authority));
      expect(body).toBe('[]');
    });

    it('a deploy that failed is told instead of drift', async () => {
      environment.configure((settings) => (settings['branchloans:image'] = 'bl-test-absent.invalid/none:1.0.0'));
      expect((await environment.up()).code).not.toBe(0);
      const { code, output } = make('drift');
      expect([code === 0, output]).toEqual([
        false,
        expect.stringMatching(/the last deploy did not end well[^]*failed/),
      ]);
    });
  });
});
