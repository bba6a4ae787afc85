import { startService, type TestService } from './harness';
let api: TestService;
beforeAll(async () => { api = await startService(); });
afterAll(() => api.stop());
it('works', async () => {
  console.log(await api.database.sql("SELECT conrelid::regclass::text AS t, conname FROM pg_constraint WHERE NOT convalidated"));
});
