import { stringify } from 'yaml';

/** Checks through the public entrance: value of the label `probe` -> path. */
export const PROBES = { api: '/health', database: '/health-db', grafana: '/grafana/api/health' } as const;

/** The one module of blackbox_exporter. */
export const PROBE_MODULE = 'entrance';

/** Where the entrance is on the stack's own network; users reach it elsewhere, by the stack's address. */
export const ENTRANCE = 'https://gateway:8443';

/**
 * Configuration of blackbox_exporter. It asks as a user would: TLS with the name of the entrance, a certificate that its
 * authority vouches for, and an answer of 200 in time.
 * @param url what users open, such as https://localhost:8443
 * @param authorityFile path inside the container
 */
export function renderProbes({ url, authorityFile }: { readonly url: string; readonly authorityFile: string }): string {
  const { host, hostname } = new URL(url);
  const http = {
    preferred_ip_protocol: 'ip4',
    ip_protocol_fallback: false,
    follow_redirects: false,
    fail_if_not_ssl: true,
    valid_status_codes: [200],
    headers: { Host: host },
    tls_config: { ca_file: authorityFile, server_name: hostname },
  };
  return stringify({ modules: { [PROBE_MODULE]: { prober: 'http', timeout: '5s', http } } }, { lineWidth: 0 });
}
