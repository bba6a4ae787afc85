import { onBehalfOf, requestFields, type ServedRequest } from './requests';

const trace = {
  traceId: undefined,
  sampled: false,
  logFields: () => ({}),
  headers: () => ({}),
  end: () => undefined,
};
const requests = (ids: readonly string[]): ServedRequest[] => ids.map((id) => ({ id, trace }));

it.each([
  [[], {}],
  [['a'], { request_id: 'a' }],
  [['a', 'a'], { request_id: 'a' }],
  [['a', 'b', 'a'], { request_id: 'a', request_ids: ['a', 'b'] }],
])('work for %j is logged with %j', (ids, fields) => {
  expect(onBehalfOf(requests(ids), requestFields)).toEqual(fields);
});

it('a line does not grow with the load', () => {
  const many = Array.from({ length: 1_000 }, (_, index) => String(index));
  expect(onBehalfOf(requests(many), requestFields).request_ids).toEqual(many.slice(0, 50));
});

it('what is set off by the work is for the same request, and what is beside it for none', async () => {
  const later = onBehalfOf(requests(['a']), async () => {
    await new Promise((resolve) => setImmediate(resolve));
    return requestFields();
  });
  expect(requestFields()).toEqual({});
  expect(await later).toEqual({ request_id: 'a' });
});
