import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { assertSame, digestOf } from './layout';
import { output, PipelineError, type Run } from './run';

/**
 * The gate between build and push. Trivy reports everything; what fails is decided here, from its JSON, so that the table,
 * the gate and the exceptions are one thing and can be tested without a scanner.
 */

export type Kind = 'vulnerability' | 'misconfiguration' | 'secret';

export interface Finding {
  readonly kind: Kind;
  readonly id: string;
  readonly severity: string;
  /** Where: a file of the image, a Dockerfile, a package list. */
  readonly target: string;
  readonly what: string;
  /** What to do; undefined where nobody has a fix. */
  readonly fix: string | undefined;
}

interface Report {
  readonly SchemaVersion?: number;
  readonly Results?: readonly {
    readonly Target: string;
    readonly Class?: string;
    readonly Vulnerabilities?: readonly Record<string, string>[];
    readonly Misconfigurations?: readonly Record<string, string>[];
    readonly Secrets?: readonly (Record<string, string> & { readonly StartLine?: number })[];
  }[];
}

/** All that a report of Trivy names. @throws PipelineError when it is no such report: an empty one must not pass */
export function findingsOf(json: string): Finding[] {
  let report: Report;
  try {
    report = JSON.parse(json) as Report;
  } catch {
    throw new PipelineError('Trivy wrote no report: nothing was scanned, so nothing passes');
  }
  if (report.SchemaVersion !== 2) {
    throw new PipelineError(`This gate reads Trivy's report version 2, not ${String(report.SchemaVersion)}`);
  }
  return (report.Results ?? []).flatMap(({ Target: target, ...result }) => [
    ...(result.Vulnerabilities ?? []).map((each) => ({
      kind: 'vulnerability' as const,
      id: each['VulnerabilityID'] ?? '?',
      severity: each['Severity'] ?? 'UNKNOWN',
      target,
      what: `${each['PkgName'] ?? '?'} ${each['InstalledVersion'] ?? ''}: ${each['Title'] ?? ''}`.trim(),
      fix: each['FixedVersion'] ? `update to ${each['FixedVersion']}` : undefined,
    })),
    ...(result.Misconfigurations ?? [])
      .filter((each) => each['Status'] === 'FAIL')
      .map((each) => ({
        kind: 'misconfiguration' as const,
        id: each['ID'] ?? each['AVDID'] ?? '?',
        severity: each['Severity'] ?? 'UNKNOWN',
        target,
        what: each['Message'] ?? each['Title'] ?? '',
        fix: each['Resolution'] ?? 'see its identifier',
      })),
    ...(result.Secrets ?? []).map((each) => ({
      kind: 'secret' as const,
      id: each['RuleID'] ?? '?',
      severity: each['Severity'] ?? 'UNKNOWN',
      target: each.StartLine === undefined ? target : `${target}:${each.StartLine}`,
      // Never what was found: it would stand in the log.
      what: each['Title'] ?? '',
      fix: 'remove it from every layer and revoke it',
    })),
  ]);
}

export interface Exception {
  readonly kind: Kind;
  readonly id: string;
  /** Targets that it holds for; all where empty. */
  readonly paths: readonly string[];
  readonly reason: string;
  /** Day from which on it holds no more, as `YYYY-MM-DD`. */
  readonly expires: string;
}

const SECTIONS: Readonly<Record<string, Kind>> = {
  vulnerabilities: 'vulnerability',
  misconfigurations: 'misconfiguration',
  secrets: 'secret',
};
const KEYS = ['id', 'paths', 'statement', 'expired_at'];
const LONGEST_DAYS = 180;

/**
 * Reads a file in the form of Trivy's `.trivyignore.yaml`, with more asked of it: a reason and an expiry.
 * @param today `YYYY-MM-DD`
 * @throws PipelineError with every entry that lacks one, has expired, or would hold for more than 180 days
 */
export function exceptionsOf(text: string, today: string): Exception[] {
  const file = (parse(text) ?? {}) as Record<string, unknown>;
  const faults: string[] = [];
  const exceptions = Object.entries(file).flatMap(([section, entries]) => {
    const kind = SECTIONS[section];
    if (kind === undefined || !Array.isArray(entries)) {
      faults.push(`"${section}" must be a list under one of ${Object.keys(SECTIONS).join(', ')}`);
      return [];
    }
    return (entries as Record<string, unknown>[]).map((entry, index): Exception => {
      const { id, paths = [], statement, expired_at: expiry } = entry;
      const place = typeof id === 'string' ? id : `${section}[${index}]`;
      const unknown = Object.keys(entry).filter((key) => !KEYS.includes(key));
      if (typeof id !== 'string' || id === '') faults.push(`${place}: id is missing`);
      if (unknown.length > 0) faults.push(`${place}: ${unknown.join(', ')} is not known here; give ${KEYS.join(', ')}`);
      if (typeof statement !== 'string' || statement.trim().length < 10) {
        faults.push(`${place}: "statement" must give the reason`);
      }
      const expires = typeof expiry === 'string' ? expiry : '';
      if (!/^\d{4}-\d{2}-\d{2}$/.test(expires) || Number.isNaN(Date.parse(expires))) {
        faults.push(`${place}: "expired_at" must be a day such as 2027-01-31`);
      } else if (expires <= today) {
        faults.push(`${place}: has expired on ${expires}: fix it, or look again and give a new day`);
      } else if (Date.parse(expires) - Date.parse(today) > LONGEST_DAYS * 86_400_000) {
        faults.push(`${place}: "expired_at" is more than ${LONGEST_DAYS} days ahead`);
      }
      return { kind, id: String(id), paths: paths as string[], reason: String(statement), expires };
    });
  });
  if (faults.length > 0) {
    throw new PipelineError(`.trivyignore.yaml:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`);
  }
  return exceptions;
}

export interface Verdict {
  /** These fail the gate. */
  readonly blocking: readonly Finding[];
  readonly ignored: readonly { readonly finding: Finding; readonly by: Exception }[];
  /** Below the severities that count, or without a fix. */
  readonly passed: readonly Finding[];
}

export function judge(
  findings: readonly Finding[],
  rule: { readonly severities: readonly string[]; readonly ignoreUnfixed: boolean },
  exceptions: readonly Exception[],
): Verdict {
  const verdict = { blocking: [] as Finding[], ignored: [] as Verdict['ignored'][number][], passed: [] as Finding[] };
  for (const finding of findings) {
    const counts =
      rule.severities.includes(finding.severity) &&
      !(rule.ignoreUnfixed && finding.kind === 'vulnerability' && finding.fix === undefined);
    const by = exceptions.find(
      ({ kind, id, paths }) =>
        kind === finding.kind &&
        id === finding.id &&
        (paths.length === 0 || paths.some((path) => finding.target.replace(/:\d+$/, '') === path)),
    );
    if (!counts) verdict.passed.push(finding);
    else if (by !== undefined) verdict.ignored.push({ finding, by });
    else verdict.blocking.push(finding);
  }
  return verdict;
}

/** For a person, in Markdown: what blocks first, with what to do. */
export function reportOf({ blocking, ignored, passed }: Verdict, title: string): string {
  const line = ({ severity, kind, id, target, what, fix }: Finding) =>
    `- **${severity}** ${kind} ${id} in \`${target}\`: ${what}${fix === undefined ? '' : ` (${fix})`}`;
  return [
    `### ${title}`,
    blocking.length === 0 ? 'Nothing that blocks.' : `${blocking.length} finding(s) block:`,
    ...blocking.map(line),
    ...ignored.map(({ finding, by }) => `${line(finding)}; ignored until ${by.expires}: ${by.reason}`),
    ...(passed.length === 0 ? [] : [`${passed.length} more below the severities that count, or without a fix.`]),
  ].join('\n');
}

export interface Scan {
  readonly layout: string;
  /** Of the layout, as the step before handed it over; undefined where there was none. */
  readonly digest: string | undefined;
  /** Directory whose Dockerfiles, configuration and files are scanned as well; undefined scans the image alone. */
  readonly sources: string | undefined;
  /** Directories of the sources that never ship. */
  readonly skipped: readonly string[];
  readonly severities: readonly string[];
  readonly ignoreUnfixed: boolean;
  readonly exceptions: string;
  /** Without the vulnerability database: secrets and misconfigurations only. */
  readonly offline: boolean;
  /** Directory for Trivy's reports. */
  readonly reports: string;
  /** `YYYY-MM-DD` */
  readonly today: string;
}

export interface Scanned {
  readonly digest: string;
  readonly text: string;
  readonly blocking: number;
}

/** Files by which Trivy is silenced, or told to look for less, without a word in its report. */
const SILENT = ['.trivyignore', 'trivy.yaml', 'trivy-secret.yaml'];

/** Of Trivy's own variables, those that only say where its database lies; the others would set what is decided here. */
const ABOUT_THE_DATABASE =
  /^TRIVY_(CACHE_DIR|SKIP_\w*UPDATE|\w*REPOSITORY|USERNAME|PASSWORD|REGISTRY_TOKEN|INSECURE|TIMEOUT)$/;

/** A comment in a Dockerfile or the like by which Trivy says nothing of what follows: no reason, no end. */
function refuseComments(report: string, sources: string): void {
  const { Results: results = [] } = JSON.parse(report) as Report;
  const places = results
    .filter((result) => result.Class === 'config' && existsSync(join(sources, result.Target)))
    .flatMap(({ Target: file }) =>
      readFileSync(join(sources, file), 'utf8')
        .split('\n')
        .flatMap((line, index) => (/\b(trivy|tfsec):ignore\b/.test(line) ? [`${file}:${index + 1}`] : [])),
    );
  if (places.length > 0) {
    throw new PipelineError(
      `A comment hides findings without a reason and an end: use .trivyignore.yaml\n${places.map((place) => `  - ${place}`).join('\n')}`,
    );
  }
}

/** Releases that were made by thieves (CVE-2026-33634). */
const STOLEN = ['0.69.4', '0.69.5', '0.69.6'];

/** Scans a layout and the sources it came from. What it says of the digest, it says of the files it has read. */
export async function scan(spec: Scan, run: Run): Promise<Scanned> {
  const digest = digestOf(spec.layout);
  if (spec.digest !== undefined) assertSame('The image to be scanned', digest, spec.digest);
  const hidden = SILENT.filter((file) => [spec.sources ?? '.', '.'].some((at) => existsSync(join(at, file))));
  if (hidden.length > 0) {
    const verb = hidden.length === 1 ? 'hides' : 'hide';
    throw new PipelineError(`${hidden.join(', ')} ${verb} findings without a reason and an end: use .trivyignore.yaml`);
  }
  const exceptions = existsSync(spec.exceptions) ? exceptionsOf(readFileSync(spec.exceptions, 'utf8'), spec.today) : [];
  await requireTrivy(run);
  mkdirSync(spec.reports, { recursive: true });
  // Exceptions are applied here, with their reasons, never silently by the scanner.
  const [nothing, none] = [join(spec.reports, 'no-exceptions'), join(spec.reports, 'no-settings.yaml')];
  writeFileSync(nothing, '');
  writeFileSync(none, '{}\n');
  const common = ['--format', 'json', '--exit-code', '0', '--quiet', '--ignorefile', nothing];
  const own = ['--config', none, '--secret-config', none];
  const foreign = Object.keys(process.env).filter(
    (name) => name.startsWith('TRIVY_') && !ABOUT_THE_DATABASE.test(name),
  );
  const env = Object.fromEntries(foreign.map((name) => [name, undefined]));
  const trivy = async (name: string, args: readonly string[]) => {
    const file = join(spec.reports, `${name}.json`);
    const { code, stderr } = await run('trivy', [...args, ...common, ...own, '--output', file], { env });
    if (code !== 0) throw new PipelineError(explain(stderr));
    const report = readFileSync(file, 'utf8');
    if (name === 'sources') refuseComments(report, spec.sources ?? '.');
    return findingsOf(report);
  };
  const scanners = spec.offline ? 'secret,misconfig' : 'vuln,secret,misconfig';
  const offline = spec.offline ? ['--offline-scan', '--skip-check-update'] : [];
  const findings = [
    ...(await trivy('image', [
      ...['image', '--input', spec.layout, '--scanners', scanners, '--image-config-scanners', 'misconfig,secret'],
      ...offline,
    ])),
    ...(spec.sources === undefined
      ? []
      : await trivy('sources', [
          ...['filesystem', '--scanners', 'secret,misconfig', ...offline],
          ...[...SKIPPED, ...spec.skipped].flatMap((directory) => ['--skip-dirs', directory]),
          ...['--skip-files', 'ssl/*.key', '--skip-files', 'ssl/*.pem', spec.sources],
        ])),
  ];
  assertSame('The image after the scan', digestOf(spec.layout), digest);
  const verdict = judge(findings, spec, exceptions);
  const title = spec.offline
    ? `Scan of ${digest} WITHOUT vulnerabilities (their database was not asked for)`
    : `Scan of ${digest}`;
  return { digest, text: reportOf(verdict, title), blocking: verdict.blocking.length };
}

/** Not the project's files: made or fetched by it. */
const SKIPPED = ['node_modules', '.git', '.pulumi', '.local', 'coverage', 'dist'];

/** List of what is in the image, as SPDX. @returns the file's path */
export async function sbom(layout: string, file: string, run: Run): Promise<string> {
  digestOf(layout);
  await requireTrivy(run);
  await output(run, 'trivy', ['image', '--input', layout, '--format', 'spdx-json', '--output', file, '--quiet']);
  return file;
}

async function requireTrivy(run: Run): Promise<void> {
  const { code, stdout } = await run('trivy', ['--version', '--format', 'json']);
  if (code !== 0) {
    throw new PipelineError(
      'Trivy is not on the PATH: https://trivy.dev/docs/latest/getting-started/installation (0.70.0 or newer)',
    );
  }
  const { Version: version = '' } = JSON.parse(stdout) as { Version?: string };
  if (STOLEN.includes(version.replace(/^v/, ''))) {
    throw new PipelineError(
      `Trivy ${version} was published by thieves: remove it, change every secret of this machine`,
    );
  }
}

function explain(stderr: string): string {
  const words = stderr.trim().split('\n').slice(-3).join('\n');
  return /vulnerability DB|vulnerabilitydb|trivy-db/i.test(words)
    ? `Trivy cannot get its vulnerability database, so nothing passes. Secrets and misconfigurations alone: OFFLINE=1\n${words}`
    : `Trivy failed, so nothing passes:\n${words}`;
}
