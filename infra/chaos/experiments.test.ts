import {
  CHAOS_LABEL,
  type Command,
  type Container,
  type Experiment,
  EXPERIMENTS,
  type Facts,
  type Fault,
} from './experiments';

const container = (name: string): Container => ({
  ...{ name: `bl-${name}`, image: `sha256:${name}`, user: '999:999', cpuQuota: 200_000, cpuPeriod: 100_000 },
});
const facts: Facts = {
  ...{ prefix: 'bl', api: [container('api-1'), container('api-2')], database: container('database') },
  ...{ gateway: container('gateway'), prometheus: container('prometheus') },
  ...{ databaseName: 'loans', role: 'loans_user', roleLimit: -1, freeMib: 200 },
  capacity: undefined,
  network: { image: 'tools:1', netem: true, statistic: true },
};
const named = (name: string) => EXPERIMENTS.find((experiment) => experiment.name === name)!;
const faultOf = (experiment: Experiment, more: Partial<Facts> = {}) => experiment.fault({ ...facts, ...more }, 10);
const made = (experiment: Experiment, more: Partial<Facts> = {}): Fault => {
  const fault = faultOf(experiment, more);
  if ('impossible' in fault) throw new Error(fault.impossible);
  return fault;
};

it('each has a name of its own, and bounds that an outage cannot keep unless it is the hypothesis', () => {
  expect(new Set(EXPERIMENTS.map(({ name }) => name)).size).toBe(EXPERIMENTS.length);
  for (const experiment of EXPERIMENTS) {
    const { failedShare, told, felt } = experiment.expects(facts);
    if (failedShare === 1) expect([experiment.name, told, felt]).toEqual([experiment.name, true, 'failures']);
  }
});

describe.each(EXPERIMENTS.map((experiment) => [experiment.name, experiment] as const))('%s', (_name, experiment) => {
  const variants: Partial<Facts>[] = [{}, { network: { image: 'tools:1', netem: false, statistic: true } }];

  it.each(variants)('whatever is made can be taken back, and touches this stack alone', (more) => {
    const { inject, undo, repeat } = made(experiment, more);
    if (inject.length > 0) expect(undo.length).toBeGreaterThan(0);
    const own = [...facts.api, facts.database, facts.gateway, facts.prometheus!].map(({ name }) => name);
    const commands: Command[] = [...inject, ...undo, ...(repeat === undefined ? [] : [repeat.command])];
    for (const command of commands) {
      expect(
        own.some((name) => command.some((word) => word.endsWith(name))) || command.at(-1) === 'bl-chaos-pulses',
      ).toBe(true);
      expect(command[0]).toMatch(/^(run|exec|kill|start|stop|pause|unpause|update|rm)$/);
    }
  });

  it.each(variants)('what runs beside the stack is found again, and has no more rights than it needs', (more) => {
    const { inject, undo } = made(experiment, more);
    for (const command of [...inject, ...undo].filter(([verb]) => verb === 'run')) {
      expect(command).toEqual(expect.arrayContaining(['--rm', '--cap-drop', 'ALL']));
      expect(command).not.toContain('--privileged');
      expect(command.join(' ')).not.toMatch(/--pid host|--network host|docker\.sock/);
      if (command.includes('--detach')) expect(command).toContain(`${CHAOS_LABEL}=bl`);
    }
  });
});

it('what takes something over ends by itself, later than the fault', () => {
  const texts = ['api-memory', 'api-clock', 'database-locked'].map((name) => made(named(name)).inject.flat().join(' '));
  expect(texts).toEqual([
    expect.stringMatching(/ 40$/),
    expect.stringMatching(/ 3600 40$/),
    expect.stringContaining('pg_sleep(40)'),
  ]);
  expect(
    made(named('database-latency'), { network: { missing: 'no image' } })
      .inject.flat()
      .at(-1),
  ).toBe('40');
});

it('uses what the kernel can do, and says what it cannot', () => {
  const netem = { image: 'tools:1', netem: true, statistic: false };
  expect(made(named('database-latency'), { network: netem }).means).toMatch(/^netem/);
  expect(made(named('database-latency'), { network: { ...netem, netem: false } }).means).toMatch(
    /stand still.*no netem/,
  );
  expect(made(named('database-loss'), { network: { ...netem, netem: false, statistic: true } }).means).toMatch(
    /^iptables/,
  );
  const missing = { missing: 'the image tools:1 cannot be pulled' };
  for (const name of ['database-loss', 'database-black-hole']) {
    expect(faultOf(named(name), { network: missing })).toEqual({ impossible: missing.missing });
  }
  expect(faultOf(named('database-loss'), { network: { ...netem, netem: false } })).toHaveProperty('impossible');
});

it('fills no disk that others use, nor a large one', () => {
  const disk = named('database-disk-full');
  expect(faultOf(disk, { freeMib: undefined })).toEqual({ impossible: expect.stringContaining('would harm others') });
  expect(faultOf(disk, { freeMib: 50_000 })).toEqual({ impossible: expect.stringMatching(/^50000 MiB/) });
});

it('the disk that takes long to fill has the time for it, and must be full', () => {
  const { inject, makingSeconds } = made(named('database-disk-full'));
  expect(makingSeconds).toBe(300);
  expect(inject[0]?.at(-1)).toMatch(/^timeout 300 dd .*; test ".*df .*" -lt 16 \|\| .*exit 1/);
});

it('takes no connection from a role that has none: there would be nothing to give back', () => {
  expect(faultOf(named('database-connections'), { roleLimit: 0 })).toEqual({
    impossible: expect.stringContaining('ALTER ROLE "loans_user" CONNECTION LIMIT -1'),
  });
});

it('gives back the very limits that were there', () => {
  expect(made(named('api-cpu')).inject[0]).toEqual([
    'update',
    '--cpu-period',
    '100000',
    '--cpu-quota',
    '40000',
    'bl-api-1',
  ]);
  expect(made(named('api-cpu')).undo[1]).toEqual([
    'update',
    '--cpu-period',
    '100000',
    '--cpu-quota',
    '200000',
    'bl-api-2',
  ]);
  expect(made(named('database-connections'), { roleLimit: 40 }).undo.flat().at(-1)).toBe(
    'ALTER ROLE "loans_user" CONNECTION LIMIT 40',
  );
});

it('more load is several times what is borne, as far as one process can make it', () => {
  const rateFor = (capacity: number | undefined) => made(named('high-load'), { capacity }).rate;
  expect([undefined, 90, 270.5, 900].map(rateFor)).toEqual([600, 600, 812, 1_000]);
  expect(EXPERIMENTS.filter((experiment) => made(experiment).rate !== undefined)).toEqual([named('high-load')]);
});

it('one container alone may be missed, two may not', () => {
  for (const name of ['api-stop', 'api-kill']) {
    expect(named(name).expects(facts).failedShare).toBe(0.02);
    expect(named(name).expects({ ...facts, api: facts.api.slice(0, 1) }).failedShare).toBe(1);
  }
});
