import { containerName, type NameService } from './container';

const DOCKER = ['127.0.0.11'];
const service = (servers: string[], names: Readonly<Record<string, string>>): NameService => ({
  getServers: () => servers,
  resolvePtr: (asked) => {
    const name = names[asked];
    return name === undefined ? Promise.reject(new Error(`ENOTFOUND ${asked}`)) : Promise.resolve([name]);
  },
});

it('is the name by which Docker knows the address of the container, on whichever of its networks it answers', async () => {
  const docker = service(DOCKER, { '12.0.18.172.in-addr.arpa': 'bl-api-1-97fff87.bl-front' });
  expect(await containerName(docker, ['172.19.0.3', '172.18.0.12'], 'c60feb7ff47f')).toBe('bl-api-1-97fff87');
});

it.each([
  ['does not answer', {}],
  ['gives no container', { '12.0.18.172.in-addr.arpa': '' }],
])('is the id where Docker %s: no other container has that either', async (_, names) => {
  expect(await containerName(service(DOCKER, names), ['172.18.0.12'], 'c60feb7ff47f', 1)).toBe('c60feb7ff47f');
  expect(await containerName(service(DOCKER, names), [], 'c60feb7ff47f')).toBe('c60feb7ff47f');
});

it('is asked again where Docker is slow: under two names one container would be two', async () => {
  const answers = [[], new Error('ETIMEOUT'), ['bl-api-1-97fff87.bl-front']];
  const slow: NameService = {
    getServers: () => DOCKER,
    resolvePtr: () => {
      const answer = answers.shift() ?? [];
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  };
  expect(await containerName(slow, ['172.18.0.12'], 'c60feb7ff47f')).toBe('bl-api-1-97fff87');
});

it('is not asked of other name services: what they call an address is the name of the address', async () => {
  const other = service(['10.0.0.2'], { '12.0.18.172.in-addr.arpa': 'ip-172-18-0-12.internal' });
  expect(await containerName(other, ['172.18.0.12'], 'machine')).toBeUndefined();
});
