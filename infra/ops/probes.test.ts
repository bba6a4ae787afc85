import { parse } from 'yaml';
import { renderProbes } from './probes';

test.each([
  ['https://localhost:8443', 'localhost:8443', 'localhost'],
  ['https://branchloans.com', 'branchloans.com', 'branchloans.com'],
])('asks %s by its name, over TLS that its authority vouches for', (url, host, name) => {
  const { modules } = parse(renderProbes({ url, authorityFile: '/files/authority.pem' })) as {
    modules: Record<string, { http: object }>;
  };
  expect(modules['entrance']!.http).toMatchObject({
    headers: { Host: host },
    tls_config: { server_name: name, ca_file: '/files/authority.pem' },
    fail_if_not_ssl: true,
    follow_redirects: false,
    valid_status_codes: [200],
  });
});
