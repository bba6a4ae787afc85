import { type Entry, namesToDrop, type Release } from './ledger';

const release = (image: number, settings: number): Release => ({
  id: `${image}-${settings}`,
  image: `me/loans@${image}`,
  imageId: `sha256:${image}`,
  localImage: `bl-api:${image}-${settings}`,
  commit: '',
  configuration: String(settings),
});
const entry = (image: number, settings: number, outcome: Entry['outcome'] = 'active'): Entry => ({
  ...release(image, settings),
  at: '2026-11-21T12:00:00Z',
  outcome,
});

it('keeps the newest images with all their names, however many settings they ran with', () => {
  const entries = [entry(1, 1), entry(2, 1), ...Array.from({ length: 20 }, (_, settings) => entry(3, settings))];
  expect(namesToDrop(entries, release(3, 21), 3)).toEqual([]);
  expect(namesToDrop(entries, release(3, 21), 2)).toEqual(['bl-api:1-1']);
  expect(namesToDrop([...entries, entry(1, 2)], release(1, 3), 2)).toEqual(['bl-api:2-1']);
});

it('drops all names of an image together, and none of what was never active', () => {
  const entries = [entry(1, 1), entry(1, 2), entry(4, 1, 'refused'), entry(2, 1)];
  expect(namesToDrop(entries, release(3, 1), 2)).toEqual(['bl-api:1-1', 'bl-api:1-2']);
});
