import { htmlPage } from './html';

/**
 * The page /sre/dashboard-ui without figures: its script (browser/dashboard.js) asks for them, with a key where the
 * environment wants one, and makes the tables. So the page itself is no secret.
 */
export function dashboardPage(): string {
  const section = (id: string, title: string) =>
    `<section aria-labelledby="${id}-title" id="${id}" hidden><h2 id="${id}-title">${title}</h2><div class="scroll" role="group" aria-labelledby="${id}-title" tabindex="0"></div></section>`;
  const body = `<main class="dashboard">
<h1>Branch Loans: operations</h1>
<p class="state" role="status">Asking for figures</p>
<noscript><p>This page needs JavaScript. The same figures as JSON: /sre/dashboard.</p></noscript>
<form class="try" hidden>
<p>An API key with the scope <code>sre:read</code> is needed: <code>make api-key NAME=on-call SCOPES=sre:read</code>. Only this page knows it, until it is closed.</p>
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required>
<p><button type="submit">Show</button></p>
</form>
<p id="origin" hidden></p>
<ul id="reasons" hidden></ul>
${section('traffic', 'Traffic')}
${section('objectives', 'Objectives')}
${section('resources', 'Resources')}
${section('capacity', 'Capacity')}
${section('breakers', 'Circuit breakers')}
${section('alerts', 'Alerts')}
<p><a href="/status">Status for users</a>, <a href="/docs">API</a>. Graphs over longer times are in <a href="/grafana/">Grafana</a>.</p>
</main>`;
  return htmlPage({ title: 'Branch Loans: operations', body, script: '/sre/dashboard.js' });
}
