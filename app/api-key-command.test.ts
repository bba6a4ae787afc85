import { readApiKeyCommand } from './api-key-command';

const read = (text: string) => readApiKeyCommand(text.split(' '));

it('reads what it is told, and fills in the rest', () => {
  const create = { verb: 'create', name: 'desk', scopes: ['loans:read'], days: null };
  expect(read('create --name desk --scopes loans:read')).toEqual(create);
  expect(read('create --name desk --scopes loans:read --expires-days 90')).toEqual({ ...create, days: 90 });
  expect(readApiKeyCommand(['create', '--name', 'der Schäfer', '--scopes', 'admin, loans:read,admin'])).toEqual({
    ...create,
    name: 'der Schäfer',
    scopes: ['loans:read', 'admin'],
  });
  expect(read('list')).toEqual({ verb: 'list' });
  expect(read('revoke --id x')).toEqual({ verb: 'revoke', id: 'x' });
  expect(read('rotate --id x')).toEqual({ verb: 'rotate', id: 'x', overlapHours: 24 });
  expect(read('rotate --id x --overlap-hours 0')).toEqual({ verb: 'rotate', id: 'x', overlapHours: 0 });
});

it.each([
  '',
  'make',
  'create',
  'create --name desk',
  'create --name desk --scopes',
  'create --name desk --scopes loans:delete',
  'create --name desk --scopes loans:read,',
  'create --name desk --scopes admin --expires-days 0',
  'create --name desk --scopes admin --expires-days 1.5',
  'create --name desk --scopes admin --expires-days 3651',
  'create --name desk --scopes admin --wings',
  'create --name desk --scopes admin more',
  'create --name  --scopes admin',
  'create --name a\u0007b --scopes admin',
  'create --name a\nb --scopes admin',
  `create --name ${'a'.repeat(101)} --scopes admin`,
  'list all',
  'list --id x',
  'revoke',
  'rotate --overlap-hours 1',
  'rotate --id x --overlap-hours -1',
  'rotate --id x --overlap-hours 8761',
])('refuses "%s"', (text) => {
  expect(read(text)).toBeUndefined();
});
