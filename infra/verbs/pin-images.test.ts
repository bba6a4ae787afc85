import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { pinImages } from './pin-images';

const NGINX = `sha256:${'a'.repeat(64)}`;
const GRAFANA = `sha256:${'b'.repeat(64)}`;
const IMAGES = { nginx: `nginx:1.30.5@sha256:${'0'.repeat(64)}`, grafana: 'host:5000/grafana/grafana:13.2.3' };

let directory: string;
let file: string;
const path = process.env['PATH'];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'pin-'));
  file = join(directory, 'images.json');
  writeFileSync(file, JSON.stringify(IMAGES));
  process.env['PATH'] = `${directory}${delimiter}${path ?? ''}`;
  jest.spyOn(console, 'log').mockImplementation(() => undefined);
});
afterEach(() => {
  process.env['PATH'] = path;
  jest.restoreAllMocks();
  rmSync(directory, { recursive: true });
});

/** A docker that notes what is pulled, and tells the names with digests of each image. */
function engine(digests: Readonly<Record<string, readonly string[]>>, unknown = 'none'): void {
  const answers = Object.entries(digests).map(([tag, names]) => `${tag}) echo '${JSON.stringify(names)}' ;;`);
  const script = [
    '#!/bin/sh',
    'for tag; do :; done',
    `if [ "$1" = pull ]; then echo "$tag" >> '${directory}/pulled'; [ "$tag" != '${unknown}' ] || { echo 'manifest unknown' >&2; exit 1; }; exit; fi`,
    `case "$tag" in\n${answers.join('\n')}\nesac`,
  ];
  writeFileSync(join(directory, 'docker'), `${script.join('\n')}\n`, { mode: 0o700 });
}
const written = () => JSON.parse(readFileSync(file, 'utf8')) as unknown;

it('writes the digest of its own repository beside each version, instead of an older one', async () => {
  engine({
    'nginx:1.30.5': [`mirror/nginx@sha256:${'c'.repeat(64)}`, `nginx@${NGINX}`],
    'host:5000/grafana/grafana:13.2.3': [`host:5000/grafana/grafana@${GRAFANA}`],
  });
  await pinImages(file);
  expect(written()).toEqual({
    nginx: `nginx:1.30.5@${NGINX}`,
    grafana: `host:5000/grafana/grafana:13.2.3@${GRAFANA}`,
  });
  // The version is asked for, not the digest of before.
  expect(readFileSync(join(directory, 'pulled'), 'utf8').split('\n').sort()).toEqual([
    '',
    'host:5000/grafana/grafana:13.2.3',
    'nginx:1.30.5',
  ]);
});

it.each([
  ['has no digest', { 'host:5000/grafana/grafana:13.2.3': [] }, 'none', /grafana:13.2.3 came from no registry/],
  ['cannot be pulled', {}, 'host:5000/grafana/grafana:13.2.3', /grafana:13.2.3.*manifest unknown/s],
])('writes nothing where one of them %s', async (_, digests, unknown, message) => {
  engine({ 'nginx:1.30.5': [`nginx@${NGINX}`], ...digests }, unknown);
  await expect(pinImages(file)).rejects.toThrow(message);
  expect(written()).toEqual(IMAGES);
});
