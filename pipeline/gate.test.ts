import { exceptionsOf, findingsOf, judge, reportOf } from './gate';

/** As Trivy 0.70 writes it; vulnerabilities recorded, since their database is not to be had everywhere. */
const report = JSON.stringify({
  SchemaVersion: 2,
  Results: [
    {
      Target: 'image (debian 12.15)',
      Class: 'os-pkgs',
      Vulnerabilities: [
        {
          VulnerabilityID: 'CVE-2026-0001',
          PkgName: 'openssl',
          InstalledVersion: '3.0.1',
          FixedVersion: '3.0.2',
          Severity: 'CRITICAL',
          Title: 'overflow',
        },
        { VulnerabilityID: 'CVE-2026-0002', PkgName: 'zlib', InstalledVersion: '1', Severity: 'HIGH', Title: 'no fix' },
        {
          VulnerabilityID: 'CVE-2026-0003',
          PkgName: 'tar',
          InstalledVersion: '1',
          FixedVersion: '2',
          Severity: 'MEDIUM',
        },
      ],
    },
    {
      Target: 'Dockerfile',
      Misconfigurations: [
        { ID: 'DS-0002', Severity: 'HIGH', Status: 'FAIL', Message: 'no USER', Resolution: 'Add USER' },
        { ID: 'DS-0001', Severity: 'HIGH', Status: 'PASS', Message: 'fine' },
      ],
    },
    {
      Target: '/app/.env',
      Secrets: [{ RuleID: 'aws-access-key-id', Severity: 'CRITICAL', Title: 'AWS key', StartLine: 3, Match: 'AKIA…' }],
    },
  ],
});
const rule = { severities: ['CRITICAL', 'HIGH'], ignoreUnfixed: true };
const today = '2026-11-21';
const ids = (findings: readonly { id: string }[]) => findings.map(({ id }) => id);

describe('the gate', () => {
  it('blocks what counts and can be fixed, and shows the rest', () => {
    const { blocking, passed, ignored } = judge(findingsOf(report), rule, []);
    expect(ids(blocking)).toEqual(['CVE-2026-0001', 'DS-0002', 'aws-access-key-id']);
    expect(ids(passed)).toEqual(['CVE-2026-0002', 'CVE-2026-0003']);
    expect(ignored).toEqual([]);
  });

  it('blocks what nobody has fixed when asked to', () => {
    const { blocking } = judge(findingsOf(report), { ...rule, ignoreUnfixed: false }, []);
    expect(ids(blocking)).toContain('CVE-2026-0002');
  });

  it.each(['', 'trivy: error', '{}', '{"SchemaVersion": 1}'])('lets nothing pass with the report "%s"', (text) => {
    expect(() => findingsOf(text)).toThrow(/nothing passes|version 2/);
  });

  it('names place and remedy, never the secret', () => {
    const text = reportOf(judge(findingsOf(report), rule, []), 'Scan');
    expect(text).toContain('**CRITICAL** vulnerability CVE-2026-0001');
    expect(text).toContain('update to 3.0.2');
    expect(text).toContain('`/app/.env:3`');
    expect(text).not.toContain('AKIA');
  });
});

describe('an exception', () => {
  const kinds = [
    ['vulnerabilities', 'CVE-2026-0001'],
    ['misconfigurations', 'DS-0002'],
    ['secrets', 'aws-access-key-id'],
  ] as const;
  const all = ['CVE-2026-0001', 'DS-0002', 'aws-access-key-id'];

  describe.each(kinds)('of %s', (section, id) => {
    const entry = (more: string) => `${section}:\n  - id: ${id}\n    statement: It is not reached from here\n${more}`;

    it('with reason and expiry lets its own finding pass, and says so', () => {
      const verdict = judge(findingsOf(report), rule, exceptionsOf(entry('    expired_at: 2026-12-31\n'), today));
      expect(ids(verdict.blocking)).toEqual(all.filter((each) => each !== id));
      expect(reportOf(verdict, 'Scan')).toContain('ignored until 2026-12-31: It is not reached from here');
    });

    it('lets nothing of another kind pass', () => {
      for (const [other] of kinds.filter(([each]) => each !== section)) {
        const text = entry('    expired_at: 2026-12-31\n').replace(section, other);
        expect(ids(judge(findingsOf(report), rule, exceptionsOf(text, today)).blocking)).toEqual(all);
      }
    });

    it.each([
      ['no expiry', '', /"expired_at" must be a day/],
      ['expired yesterday', '    expired_at: 2026-11-20\n', /has expired on 2026-11-20/],
      ['expired today', '    expired_at: 2026-11-21\n', /has expired on 2026-11-21/],
      ['far away', '    expired_at: 2028-01-01\n', /more than 180 days ahead/],
      ['no day', '    expired_at: soon\n', /"expired_at" must be a day/],
      ['unknown key', '    expired_at: 2026-12-31\n    until: x\n', /until is not known here/],
    ])('is refused: %s', (_, more, message) => {
      expect(() => exceptionsOf(entry(more), today)).toThrow(message);
    });

    it.each([
      [`  - id: ${id}\n    expired_at: 2026-12-31\n`, /"statement" must give the reason/],
      [`  - id: ${id}\n    statement: ok\n    expired_at: 2026-12-31\n`, /"statement" must give the reason/],
      ['  - statement: long enough reason\n    expired_at: 2026-12-31\n', /id is missing/],
    ])('is refused without reason or id', (entries, message) => {
      expect(() => exceptionsOf(`${section}:\n${entries}`, today)).toThrow(message);
    });
  });

  it('holds for its paths only', () => {
    const [ofPath] = exceptionsOf(
      'secrets:\n  - id: aws-access-key-id\n    paths: [/app/other]\n    statement: An example of the documents\n    expired_at: 2026-12-31\n',
      today,
    );
    expect(ids(judge(findingsOf(report), rule, [ofPath!]).blocking)).toContain('aws-access-key-id');
    expect(ids(judge(findingsOf(report), rule, [{ ...ofPath!, paths: ['/app/.env'] }]).blocking)).toHaveLength(2);
  });

  it('is refused without a kind', () => {
    expect(() => exceptionsOf('everything: []\nall: true\n', today)).toThrow(/must be a list under one of/);
  });

  it('file may be empty', () => expect(exceptionsOf('', today)).toEqual([]));
});
