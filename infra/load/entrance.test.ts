import { requireConfirmation } from './entrance';

afterEach(() => delete process.env['CONFIRM']);

it('production is not touched without its name, and others need none', () => {
  expect(() => requireConfirmation('production', 'chaos', 'break parts')).toThrow(
    'This would break parts of production, nothing was done. If that is wanted: make chaos STACK=production CONFIRM=production',
  );
  process.env['CONFIRM'] = 'yes';
  expect(() => requireConfirmation('production', 'load', 'put a load upon the users')).toThrow(/nothing was done/);
  process.env['CONFIRM'] = 'production';
  expect(() => requireConfirmation('production', 'load', 'put a load upon the users')).not.toThrow();
  delete process.env['CONFIRM'];
  expect(() => requireConfirmation('staging', 'load', 'put a load upon the users')).not.toThrow();
});
