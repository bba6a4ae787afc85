import defaults from './images.json';
import { imagesFor } from './operator';

const { node, netshoot, ...rest } = defaults;
const others = Object.values(rest);
const IMAGE = 'me/loans:1.4.0';
const OFF = { database: false, probes: false, host: false, containers: false };

it.each<[string, Record<string, unknown>, string[]]>([
  ['all that there are, once, but the tools of chaos', {}, [...others, node]],
  ['that of Node for the exporter of the containers', { image: IMAGE }, [...others, IMAGE, node]],
  [
    'that of Node for the build',
    { exporters: { containers: false }, canary: { image: IMAGE, percent: 5 } },
    [...others, IMAGE, node],
  ],
  [
    'nothing for exporters that are switched off',
    { exporters: OFF, image: IMAGE },
    [rest.postgres, rest.nginx, rest.prometheus, rest.grafana, rest.alertmanager, IMAGE],
  ],
  [
    'what the settings name instead',
    { images: { 'node-exporter': 'mine/node-exporter:v1.0' } },
    [...others.filter((image) => image !== rest['node-exporter']), 'mine/node-exporter:v1.0', node],
  ],
])('demands %s', (_, changes, images) => {
  const settings = Object.fromEntries(Object.entries(changes).map(([key, value]) => [`branchloans:${key}`, value]));
  expect(imagesFor(settings).sort()).toEqual([...images].sort());
  expect(imagesFor(settings)).not.toContain(netshoot);
});
