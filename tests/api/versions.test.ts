import { type Answer, LOAN, startService, type TestService } from './harness';
import { OLD_INSERT, withReleases } from './migrations';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

const get = (path: string, headers: Record<string, string> = {}) => api.ask('GET', path, { headers });
const move = (path: string, to: string, headers: Record<string, string> = {}): Promise<Answer> =>
  api.ask('POST', `${path}/transitions`, {
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ to }),
  });
const approve = (path: string, headers?: Record<string, string>) => move(path, 'approved', headers);

async function created(): Promise<{ path: string; tag: string }> {
  const { headers } = await api.post(LOAN);
  return { path: headers.location!, tag: headers.etag! };
}

describe('the entity tag', () => {
  it('is strong, the same wherever the version is shown, and another after each change', async () => {
    const { path, tag } = await created();
    expect(tag).toMatch(/^"[\x21\x23-\x7e]+"$/);
    expect((await get(path)).headers.etag).toBe(tag);
    expect((await get(path.replace('/v1', ''))).headers.etag).toBe(tag);
    const moved = await approve(path);
    expect(moved.headers.etag).toMatch(/^"[\x21\x23-\x7e]+"$/);
    expect(moved.headers.etag).not.toBe(tag);
    expect((await get(path)).headers.etag).toBe(moved.headers.etag);
    expect((await created()).tag).not.toBe(tag);
  });
});

describe('If-None-Match', () => {
  it.each([
    ['the tag', (tag: string) => tag],
    ['the tag as a weak one', (tag: string) => `W/${tag}`],
    ['a list with the tag', (tag: string) => `"x", W/"y" ,, ${tag}`],
    ['an asterisk', () => '*'],
  ])('with %s saves the body', async (_name, field) => {
    const { path, tag } = await created();
    const answer = await get(path, { 'if-none-match': field(tag) });
    expect([answer.status, answer.text, answer.headers.etag]).toEqual([304, '', tag]);
    expect(answer.headers['content-type']).toBeUndefined();
    expect((await api.ask('HEAD', path, { headers: { 'if-none-match': field(tag) } })).status).toBe(304);
  });

  it.each(['"x"', '""', '', 'x', '"x', '*, *', ','])('with %s gets the whole answer', async (field) => {
    const { path } = await created();
    const answer = await get(path, { 'if-none-match': field });
    expect([answer.status, answer.json().status]).toEqual([200, 'pending']);
  });

  it('of an older version gets the whole answer', async () => {
    const { path, tag } = await created();
    await approve(path);
    expect((await get(path, { 'if-none-match': tag })).status).toBe(200);
  });
});

describe('If-Match on a transition', () => {
  it.each([
    ['the tag', (tag: string) => tag, 200],
    ['a list with the tag', (tag: string) => `"x",${tag}`, 200],
    ['an asterisk', () => '*', 200],
    ['another tag', () => '"x"', 412],
    ['the tag as a weak one', (tag: string) => `W/${tag}`, 412],
    ['nothing', () => '', 400],
    ['no quotes', (tag: string) => tag.slice(1, -1), 400],
    ['half a tag', (tag: string) => tag.slice(0, -1), 400],
    ['an asterisk in a list', (tag: string) => `*, ${tag}`, 400],
  ])('with %s', async (_name, field, status) => {
    const { path, tag } = await created();
    const answer = await approve(path, { 'if-match': field(tag) });
    expect(answer.status).toBe(status);
    if (status === 412) expect(answer.json().type).toBe('urn:problem:version-mismatch');
    if (status === 400) expect(answer.json().type).toBe('urn:problem:malformed-request');
    expect((await get(path)).json().status).toBe(status === 200 ? 'approved' : 'pending');
  });

  it('of an older version is refused before the move is looked at', async () => {
    const { path, tag } = await created();
    await approve(path);
    expect((await approve(path, { 'if-match': tag })).status).toBe(412);
    expect((await approve(path)).status).toBe(409);
  });

  it('on a loan that does not exist is 404', async () => {
    const path = '/api/loans/00000000-0000-0000-0000-00000000ffff';
    expect((await approve(path, { 'if-match': '*' })).status).toBe(404);
  });
});

describe('the release before this one', () => {
  it('goes on to write loans, which this one reads and moves', async () => {
    const [row] = await api.database.sql<{ id: string }>(OLD_INSERT);
    const path = `/api/loans/${row!.id}`;
    const { etag } = (await get(path)).headers;
    const moved = await move(path, 'repaid', { 'if-match': etag! });
    expect([moved.status, moved.json().status]).toEqual([200, 'repaid']);
  });

  it('keeps its rows where they are: the column costs no rewrite', async () => {
    await withReleases(async (database, upTo) => {
      await upTo(1);
      await database.sql(OLD_INSERT);
      const fileNode = () => database.sql("SELECT pg_relation_filenode('loans') AS node");
      const before = await fileNode();
      await upTo(2);
      expect(await fileNode()).toEqual(before);
      expect(await database.sql('SELECT version FROM loans')).toEqual([{ version: 0 }]);
    });
  });
});
