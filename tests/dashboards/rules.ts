import { METRICS, type MetricDefinition } from '../../app/telemetry/names';
import * as exporters from '../../infra/ops/exporters';
import { type Dashboard, OPTIONS, type Panel, seriesOfVariable, type Step, type Target } from './model';
import { type Expression, parseExpression, type Selector } from './promql';

/**
 * What a dashboard must be: the rules of Grafana's dashboard-linter, and some that it lacks. A rule gives a line for
 * each fault; it begins with the title of the panel where the fault is in one.
 */
type Rule = (dashboard: Dashboard) => readonly string[];

const DATA_SOURCE = '${datasource}';

/** Of Grafana's list, those that are used here. */
const UNITS = [
  ...['s', 'ms', 'reqps', 'ops', 'cps', 'percentunit', 'bytes', 'Bps', 'short', 'none', 'bool_yes_no'],
  ...['dateTimeFromNow', 'locale'],
  // Of ours: Grafana's days turn into weeks, and its counts per minute read "c/m".
  ...['suffix:d', 'suffix:/min'],
];

/** Grafana's names for labels in the drop-downs that are not the name with a capital. */
const LABELS: Readonly<Record<string, string>> = { instance: 'Replica', slo: 'SLO' };

/** Labels with many values: their names and figures need room beside the graph. */
const MANY = ['name', 'instance', 'route', 'operation'];
/** Labels whose values begin with the prefix of the stack. */
const CONTAINERS = ['name', 'instance'];
const BESIDE_FROM = 12;

/** Metrics that are no counters although their names end so. */
const GAUGES_IN_TOTAL: readonly string[] = [];

const duplicates = <T>(values: readonly T[]) => values.filter((value, index) => values.indexOf(value) !== index);

const data = ({ panels }: Dashboard) => panels.filter(({ type }) => type !== 'row');
/** Panels that ask by themselves. */
const WITHOUT_QUERY = ['alertlist', 'text'];
const targetsOf = (dashboard: Dashboard) =>
  data(dashboard).flatMap((panel) =>
    (panel.targets ?? []).map((target) => ({ panel, target, expression: parseExpression(target.expr) })),
  );

const ofPanels = (fault: (panel: Panel) => string | undefined | false): Rule => {
  return (dashboard) =>
    data(dashboard).flatMap((panel) => {
      const text = fault(panel);
      return text ? [`${panel.title}: ${text}`] : [];
    });
};

const ofTargets = (faults: (expression: Expression, target: Target, panel: Panel) => readonly string[]): Rule => {
  return (dashboard) =>
    targetsOf(dashboard).flatMap(({ panel, target, expression }) =>
      faults(expression, target, panel).map((text) => `${panel.title}: ${target.refId} ${text}`),
    );
};

const isGraph = ({ type }: Panel) => type === 'timeseries';
const defaultsOf = ({ fieldConfig }: Panel) => fieldConfig?.defaults ?? {};
const labelsIn = (template: string) => [...template.matchAll(/\{\{(\w+)\}\}/g)].map(([, name = '']) => name);
const legendLabels = ({ targets = [] }: Panel) => targets.flatMap(({ legendFormat }) => labelsIn(legendFormat));
/** Properties that an override sets for what is called so. */
const propertiesOf = ({ fieldConfig }: Panel, name: string) =>
  Object.fromEntries(
    (fieldConfig?.overrides ?? [])
      .filter(({ matcher }) => matcher.options === name)
      .flatMap(({ properties }) => properties.map(({ id, value }) => [id, value])),
  );
const transformation = ({ transformations = [] }: Panel, id: string) =>
  transformations.find((it) => it.id === id)?.options;
/** Headings of the columns of a table that show values, and not the text of a label. */
const valueColumns = (panel: Panel) => {
  const { renameByName = {} } = (transformation(panel, 'organize') ?? {}) as { renameByName?: Record<string, string> };
  const values = Object.entries(renameByName).filter(([field]) => /^Value( #[A-Z])?$/.test(field));
  return [...new Set(values.map(([, heading]) => heading))];
};
const GREY = 'text';

const ofSelectors = (faults: (selector: Selector) => readonly string[]): Rule =>
  ofTargets(({ selectors }) => selectors.flatMap((selector) => faults(selector)));

export const seriesNames = (definition: MetricDefinition) =>
  definition.type === 'histogram'
    ? ['_bucket', '_count', '_sum'].map((end) => definition.name + end)
    : [definition.name];

/** Series of the API -> what they are. */
const OWN = new Map<string, MetricDefinition>(
  Object.values(METRICS).flatMap((metric: MetricDefinition) => seriesNames(metric).map((name) => [name, metric])),
);

const namesIn = (metrics: Readonly<Record<string, string>>) => Object.values(metrics);
const { JOBS } = exporters;
/** Job -> what its targets export. What every scrape has by itself is in the list of Prometheus. */
const SEAM: Readonly<Record<string, readonly string[]>> = {
  [JOBS.api]: [...OWN.keys(), ...namesIn(exporters.RUNTIME_METRICS)],
  [JOBS.prometheus]: namesIn(exporters.PROMETHEUS_METRICS),
  [JOBS.alertmanager]: namesIn(exporters.ALERTMANAGER_METRICS),
  [JOBS.postgres]: namesIn(exporters.POSTGRES_METRICS),
  [JOBS.nginx]: namesIn(exporters.NGINX_METRICS),
  [JOBS.accessLog]: namesIn(exporters.ACCESS_LOG_METRICS).flatMap((name) => [name, `${name}_bucket`]),
  [JOBS.host]: namesIn(exporters.HOST_METRICS),
  [JOBS.containers]: namesIn(exporters.CONTAINER_METRICS),
  [JOBS.probe]: namesIn(exporters.PROBE_METRICS),
};
const { up, alerts, alertsForState, scrapeDuration, scrapeSamples } = exporters.PROMETHEUS_METRICS;
/** Series that are of no job, or of any. */
const OF_ANY_JOB: readonly string[] = [up, alerts, alertsForState, scrapeDuration, scrapeSamples];
const isRecorded = (metric: string) => metric.startsWith('slo:');

/** Amounts, which are in units of a currency. */
const AMOUNTS: readonly string[] = [METRICS.loansAmount, METRICS.loansOutstanding, METRICS.loanAmountRequested].flatMap(
  seriesNames,
);

export const RULES = {
  'template-datasource': ({ templating }) => {
    const sources = templating.list.filter(({ type }) => type === 'datasource');
    const [source] = sources;
    const good =
      sources.length === 1 &&
      source?.name === 'datasource' &&
      source.label === 'Data source' &&
      source.query === 'prometheus';
    return good ? [] : ['there must be one variable "datasource" of Prometheus, labelled "Data source"'];
  },

  // Each drop-down filters what is shown, and what is filtered has a drop-down. `job` filters nothing that a panel does
  // not say itself, and an address of one job is none of another.
  'template-variables': (dashboard) => {
    const names = dashboard.templating.list.filter(({ type }) => type === 'query').map(({ name }) => name);
    const used = new Set(
      targetsOf(dashboard).flatMap(({ target }) =>
        [...target.expr.matchAll(/\$([a-z]+)\b/g)].map(([, name = '']) => name),
      ),
    );
    return [
      ...(names.includes('env') ? [] : ['no variable env']),
      ...(names.includes('job') ? ['a variable job'] : []),
      ...names.filter((name) => !used.has(name)).map((name) => `${name} filters nothing`),
      ...[...used].filter((name) => !names.includes(name)).map((name) => `${name} has no drop-down`),
    ];
  },

  'template-form': ({ templating }) =>
    templating.list
      .filter(({ type }) => type === 'query')
      .flatMap(({ name, label, datasource, multi, allValue, query, regex = '' }) => {
        const text = typeof query === 'string' ? query : query.query;
        const series = seriesOfVariable(text);
        return [
          ...(label === (LABELS[name] ?? name.charAt(0).toUpperCase() + name.slice(1))
            ? []
            : [`${name}: label ${label}`]),
          ...(datasource?.uid === DATA_SOURCE ? [] : [`${name}: another data source`]),
          ...(multi === true && allValue === '.+' ? [] : [`${name}: not multi with All as .+`]),
          ...(series === undefined || parseExpression(series).fault !== undefined ? [`${name}: ${text}`] : []),
          ...(text.startsWith('query_result') === regex.includes('="([^"]+)"') ? [] : [`${name}: regex ${regex}`]),
          ...(/^label_values\(up\b/.test(text) && name !== 'env' ? [`${name}: addresses of up`] : []),
        ];
      }),

  'template-on-time-change-reload': ({ templating }) =>
    templating.list.filter(({ type, refresh }) => type === 'query' && refresh !== 2).map(({ name }) => name),

  'panel-datasource': ofPanels(({ datasource, targets = [] }) => {
    const others = [datasource, ...targets.map((target) => target.datasource)].filter((it) => it?.uid !== DATA_SOURCE);
    return others.length > 0 && 'another data source';
  }),

  'panel-title-description': ofPanels(
    ({ title, description = '' }) => (title.trim() === '' || description.trim() === '') && 'no title or description',
  ),

  'panel-units': ofPanels((panel) => {
    const { unit = '' } = defaultsOf(panel);
    return ![...WITHOUT_QUERY, 'table'].includes(panel.type) && !UNITS.includes(unit) && `unit "${unit}"`;
  }),

  // What holds for all columns holds for texts too: an id becomes "630809T ops/s", a name "NaN".
  'table-units': ofPanels((panel) => {
    if (panel.type !== 'table') return false;
    const { unit, decimals, mappings = [] } = defaultsOf(panel);
    if (unit !== undefined || decimals !== undefined || mappings.length > 0) return 'a format for columns of text too';
    const without = valueColumns(panel).filter(
      (heading) => !UNITS.includes(propertiesOf(panel, heading)['unit'] as string),
    );
    return without.length > 0 && `no unit of ${without.join(', ')}`;
  }),

  // Columns by name, in an order: what a metric has of other labels pushes them beyond the edge.
  'table-columns': ofPanels((panel) => {
    if (panel.type !== 'table') return false;
    const { include } = (transformation(panel, 'filterFieldsByName') ?? {}) as { include?: { names: string[] } };
    const { indexByName = {}, renameByName = {} } = (transformation(panel, 'organize') ?? {}) as Record<
      string,
      Record<string, unknown>
    >;
    const names = include?.names ?? [];
    const complete = names.every((name) => name in indexByName && name in renameByName);
    return (names.length === 0 || !complete) && 'columns without a place or a heading';
  }),

  // Without a soft end a graph of zeros has an axis up to 100, which is 10000 % of a share.
  axis: ofPanels((panel) => {
    if (!isGraph(panel)) return false;
    const { unit, min, max, custom = {} } = defaultsOf(panel);
    const share = unit === 'percentunit';
    if (custom.axisSoftMin !== undefined) return !(share && max === 1 && custom.axisSoftMin >= 0.5) && 'a soft start';
    const { axisSoftMax = 0 } = custom;
    return !(min === 0 && axisSoftMax > 0 && (!share || axisSoftMax <= 1)) && `an axis of zeros up to ${axisSoftMax}`;
  }),

  // Shares of one whole that are stacked are no more than it.
  'stacked-shares': ofPanels(
    (panel) =>
      isGraph(panel) &&
      defaultsOf(panel).unit === 'percentunit' &&
      defaultsOf(panel).custom?.stacking?.mode === 'normal' &&
      (panel.targets ?? []).some(({ expr }) => parseExpression(expr).divisors.length > 0) &&
      defaultsOf(panel).max !== 1 &&
      'an axis beyond 100 %',
  ),

  // 99.951 % is missed looks met as 100.0 %.
  decimals: ofPanels((panel) => {
    const enough = (decimals: unknown) => typeof decimals === 'number' && decimals >= 2;
    const { unit, decimals, thresholds } = defaultsOf(panel);
    // Bounds that differ by tenths of a percent: of failures, and of objectives.
    const fine = (steps: readonly Step[] = []) => steps.some(({ value }) => value !== null && value > 0 && value < 0.1);
    const wanted = unit === 'percentunit' && (fine(thresholds?.steps) || legendLabels(panel).includes('slo'));
    const columns = valueColumns(panel).filter((heading) => {
      const own = propertiesOf(panel, heading) as { unit?: string; decimals?: number; thresholds?: { steps: Step[] } };
      const ofObjective = JSON.stringify(panel.targets).includes('slo:');
      return own.unit === 'percentunit' && (ofObjective || fine(own.thresholds?.steps)) && !enough(own.decimals);
    });
    return (wanted && !enough(decimals)) || columns.length > 0 ? 'decimals that hide a miss' : false;
  }),

  // A source that is well may have nothing to show. Then it says so, and "No data" means that the source is lost.
  'no-value': ofPanels((panel) => {
    const empty = ({ expr }: Target) => {
      const { divisors, selectors } = parseExpression(expr);
      return (
        divisors.some((divisor) => /\b(rate|increase)\(/.test(divisor)) ||
        / >= 0$/.test(expr) ||
        (selectors.some(({ metric }) => metric === alerts) && !/ or vector\(0\)$|ALERTS_FOR_STATE/.test(expr))
      );
    };
    const targets = panel.targets ?? [];
    return (
      targets.length > 0 &&
      targets.every(empty) &&
      (defaultsOf(panel).noValue ?? '') === '' &&
      'does not say why it is empty'
    );
  }),

  // Grafana writes what is missing in the colour of the lowest values, which is green where high ones are bad.
  'no-data-colour': ofPanels((panel) => {
    const { thresholds, mappings = [] } = defaultsOf(panel);
    const columns = valueColumns(panel).map((heading) => propertiesOf(panel, heading));
    if (columns.some((own) => 'thresholds' in own && !JSON.stringify(own['mappings'] ?? '').includes(`"${GREY}"`)))
      return 'a colour for no data';
    if (!['stat', 'gauge'].includes(panel.type) || (thresholds?.steps.length ?? 0) < 2) return false;
    const missing = mappings.find(({ type, options }) => type === 'special' && options.match === 'null+nan');
    return missing?.options.result?.color !== GREY && 'a colour for no data';
  }),

  // Colours by order are other ones with each status that comes or goes.
  'status-colours': ofPanels((panel) => {
    const ofAnswers = (panel.targets ?? []).some(({ expr }) => /\b(http_request|nginx_http_response)/.test(expr));
    if (!ofAnswers || !legendLabels(panel).some((label) => label.startsWith('status'))) return false;
    const expected = { '/^2/': 'green', '/^4/': 'yellow', '/^5/': 'red' };
    const wrong = Object.entries(expected).filter(
      ([pattern, colour]) =>
        (propertiesOf(panel, pattern)['color'] as { fixedColor?: string } | undefined)?.fixedColor !== colour,
    );
    return wrong.length > 0 && `no colour of its own for ${wrong.map(([pattern]) => pattern).join(', ')}`;
  }),

  'severity-colours': ofPanels((panel) => {
    if (!(panel.targets ?? []).some(({ legendFormat }) => legendFormat === 'critical')) return false;
    const own = propertiesOf(panel, 'critical')['thresholds'] as { steps: Step[] } | undefined;
    return own?.steps.at(-1)?.color !== 'red' && 'critical is not red';
  }),

  // The good colour is none, and it has some room: else an area covers the graph of what is well.
  'threshold-areas': ofPanels((panel) => {
    const { thresholds, custom } = defaultsOf(panel);
    const steps = thresholds?.steps ?? [];
    if (!isGraph(panel) || steps.length < 2) return false;
    if (custom?.thresholdsStyle?.mode !== 'dashed+area' || steps.some(({ color }) => color === 'green'))
      return 'bounds that are no areas';
    const good = steps.findIndex(({ color }) => color === 'transparent');
    const [from, to] = [steps[good]?.value ?? 0, steps[good + 1]?.value ?? Infinity];
    return (from >= 1 || to < 0.05 * (custom.axisSoftMax ?? 1)) && 'no room for what is good';
  }),

  // Requests by duration: durations at the side, requests in the cells.
  heatmap: ofPanels(
    ({ type, options }) =>
      type === 'heatmap' &&
      (options?.yAxis?.unit !== 's' || options.cellValues?.unit !== 'reqps') &&
      'units of its sides',
  ),

  'stat-layout': ofPanels(({ type, targets = [], options, gridPos }) => {
    if (type !== 'stat') return false;
    const single = targets.length === 1 && labelsIn(targets[0]!.legendFormat).length === 0;
    if (single !== (options?.textMode === 'value')) return 'repeats its title, or has values without a name';
    return gridPos.w <= 8 && options?.orientation !== 'horizontal' && 'values that are stretched';
  }),

  'amount-units': ofPanels((panel) => {
    const amounts = (panel.targets ?? []).some(({ expr }) =>
      parseExpression(expr).selectors.some(({ metric }) => AMOUNTS.includes(metric)),
    );
    const found = [
      defaultsOf(panel).unit,
      ...valueColumns(panel).map((heading) => propertiesOf(panel, heading)['unit']),
    ];
    return amounts && !found.includes('locale') && 'amounts without separators of thousands';
  }),

  'panel-no-targets': ofPanels(
    ({ type, targets = [] }) => !WITHOUT_QUERY.includes(type) && targets.length === 0 && 'no query',
  ),

  'target-promql': ofTargets(({ fault }) => (fault === undefined ? [] : [`does not parse ${fault}`])),

  // The rise in a step of a graph is another number at each zoom: graphs show rises in a second or a minute.
  'target-rate-interval': ofTargets(({ selectors }, { instant = false }) =>
    selectors.flatMap(({ metric, within, range }) => {
      if (range === undefined) return [];
      const allowed = [
        'rate[$__rate_interval]',
        'deriv[6h]',
        ...(instant ? ['increase[$__range]', 'changes[$__range]'] : []),
      ];
      const found = `${within ?? ''}[${range}]`;
      return allowed.includes(found) ? [] : [`${found} of ${metric}`];
    }),
  ),

  // Prometheus extrapolates: without rounding a request is 1.07 requests.
  'whole-counts': ofTargets(({ divisors }, { expr }) =>
    /\bincrease\(/.test(expr) && divisors.length === 0 && !/\b(round|histogram_quantile)\(/.test(expr)
      ? ['counts parts of events']
      : [],
  ),

  // `.+` of a drop-down is all; recorded series and alerts keep the environment alone.
  'target-env': ofSelectors(({ metric, matchers }) =>
    matchers.some(({ label, operator, value }) => label === 'env' && operator === '=~' && /^\$env\|?$/.test(value))
      ? []
      : [`${metric} without env=~"$env"`],
  ),

  // One container of the API, or one track, is chosen for all that the API says.
  'target-replica': (dashboard) => {
    const chosen = dashboard.templating.list
      .map(({ name }) => name)
      .filter((name) => ['instance', 'track'].includes(name));
    return ofSelectors(({ metric, matchers }) => {
      const ofApi = matchers.some(({ label, value }) => label === 'job' && value === JOBS.api);
      return chosen
        .filter((name) => matchers.some(({ label, value }) => label === name && value === `$${name}`) !== ofApi)
        .map((name) => `${metric} ${ofApi ? 'without' : 'with'} ${name}`);
    })(dashboard);
  },

  // The engine runs helpers with names of its own choice.
  'own-containers': ofSelectors(({ metric, matchers }) =>
    matchers.some(({ label, value }) => label === 'job' && value === JOBS.containers) &&
    !matchers.some(({ label, value }) => label === 'name' && value === `${OPTIONS.prefix}-.+`)
      ? [`${metric} of any container`]
      : [],
  ),

  'target-counter-agg': ofSelectors(({ metric, within = '' }) =>
    metric.endsWith('_total') &&
    !GAUGES_IN_TOTAL.includes(metric) &&
    !['rate', 'irate', 'increase', 'changes', 'count'].includes(within)
      ? [`${metric} without rate or increase`]
      : [],
  ),

  uneditable: ({ editable }) => (editable ? ['can be edited, and the change is lost'] : []),

  'ids-and-letters': (dashboard) => [
    ...duplicates(dashboard.panels.map(({ id }) => id)).map((id) => `id ${id} twice`),
    ...data(dashboard).flatMap(({ title, targets = [] }) =>
      targets
        .filter(({ refId }, index) => refId !== String.fromCharCode('A'.charCodeAt(0) + index))
        .map(({ refId }) => `${title}: query ${refId}`),
    ),
  ],

  grid: ({ panels }) => {
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)},${y + Math.floor(cell / w)}`),
    );
    const lines = new Map<number, number>();
    for (const { gridPos } of panels) lines.set(gridPos.y, (lines.get(gridPos.y) ?? 0) + gridPos.w);
    return [
      ...duplicates(cells).map((cell) => `two panels at ${cell}`),
      ...panels.filter(({ gridPos: { x, w } }) => x + w > 24).map(({ title }) => `${title}: beyond the grid`),
      ...[...lines].filter(([, width]) => width !== 24).map(([y]) => `a line that is not full at ${y}`),
    ];
  },

  'titles-in-a-row': ({ panels }) => {
    let row = '';
    return duplicates(panels.map(({ type, title }) => `${(row = type === 'row' ? title : row)}: ${title}`));
  },

  legend: ofPanels((panel) => {
    const { type, targets = [], options, gridPos } = panel;
    const legends = targets.map(({ legendFormat }) => legendFormat);
    if (legends.includes('') || duplicates(legends).length > 0) return 'queries without a legend of their own';
    if (type !== 'timeseries') return false;
    const { showLegend, displayMode, placement, calcs = [], sortBy, sortDesc } = options?.legend ?? {};
    if (showLegend !== true) return 'hides its legend';
    // Grafana's name of lastNotNull.
    if (displayMode !== 'table' || !['lastNotNull', 'max'].every((it) => calcs.includes(it)))
      return 'a legend without figures';
    if (sortBy !== 'Last *' || sortDesc !== true) return 'a legend without an order';
    if (placement !== (gridPos.w >= BESIDE_FROM ? 'right' : 'bottom')) return 'a legend at the wrong side';
    return (
      gridPos.w < BESIDE_FROM && MANY.some((label) => legendLabels(panel).includes(label)) && 'no room for its legend'
    );
  }),

  // Each name of a container begins with that of the stack.
  'legend-prefix': ofPanels((panel) => {
    const prefix = `${OPTIONS.prefix}-`;
    if (panel.type === 'table') {
      const { renameByName = {} } = (transformation(panel, 'organize') ?? {}) as {
        renameByName?: Record<string, string>;
      };
      const repeats = (panel.targets ?? []).some(({ expr }) => /"(api|containers)"/.test(expr))
        ? CONTAINERS.filter(
            (label) =>
              label in renameByName &&
              !JSON.stringify(propertiesOf(panel, renameByName[label]!)['mappings'] ?? '').includes(prefix),
          )
        : [];
      return repeats.length > 0 && 'repeats the name of the stack';
    }
    if (!CONTAINERS.some((label) => legendLabels(panel).includes(label))) return false;
    const { regex = '' } = (transformation(panel, 'renameByRegex') ?? {}) as { regex?: string };
    return !regex.includes(prefix) && 'repeats the name of the stack';
  }),

  'known-metrics': ofSelectors(({ metric, matchers }) => {
    if (OF_ANY_JOB.includes(metric) || isRecorded(metric)) return [];
    const job = matchers.find(({ label, operator }) => label === 'job' && operator === '=')?.value ?? '';
    return SEAM[job]?.includes(metric) ? [] : [`the job "${job}" exports no ${metric}`];
  }),

  'known-labels': ofTargets(({ selectors, grouped }, { legendFormat }) => {
    const metrics = selectors.map(({ metric }) => OWN.get(metric));
    // Whose labels are not ours to know.
    if (metrics.includes(undefined)) return [];
    const known = new Set([
      'job',
      'instance',
      'env',
      'track',
      'le',
      ...metrics.flatMap((metric) => metric?.labels ?? []),
    ]);
    const matched = selectors.flatMap(({ matchers }) => matchers.map(({ label }) => label));
    const shown = labelsIn(legendFormat);
    return [...matched, ...grouped, ...shown].filter((name) => !known.has(name)).map((name) => `no label ${name}`);
  }),

  // A legend that names a label which the expression has dropped shows nothing.
  'legend-labels': ofTargets(({ aggregations: [outermost] }, { expr, legendFormat }) => {
    if (outermost === undefined || !expr.includes(' by (')) return [];
    const shown = labelsIn(legendFormat);
    const kept = new Set(parseExpression(expr).grouped);
    return shown.filter((name) => !kept.has(name)).map((name) => `{{${name}}} is not there any more`);
  }),

  divisor: ofTargets(({ divisors }) =>
    divisors
      .filter((divisor) => !/^(\(.* > 0\)|on \(\) .*|\d+)$/s.test(divisor))
      .map((divisor) => `may divide by 0: ${divisor}`),
  ),

  // A sum over several is of no currency.
  'amounts-by-currency': ofTargets(({ selectors, aggregations }) =>
    selectors.some(({ metric }) => AMOUNTS.includes(metric))
      ? aggregations.filter(({ by }) => !by.includes('currency')).map(({ text }) => `adds up currencies: ${text}`)
      : [],
  ),

  'links-and-marks': (dashboard) => {
    const { links, annotations } = dashboard;
    const menu = links.find(({ type }) => type === 'dashboards');
    return [
      ...(menu?.tags.includes('loans') && menu.asDropdown && menu.keepTime && menu.includeVars
        ? []
        : ['no menu of dashboards that keeps what is chosen']),
      ...(links[0]?.url === '/d/loans-overview' ? [] : ['the overview is not first']),
      // Grafana puts its own path before one that begins with a slash.
      ...['prometheus/', 'alertmanager/', 'status', 'sre/dashboard-ui']
        .filter((path) => !links.some(({ url }) => url === OPTIONS.url + path))
        .map((path) => `no link to ${path}`),
      // The menu of the controls is closed: what is in it is not seen.
      ...(JSON.stringify(dashboard).includes('inControlsMenu') ? ['links or marks in a closed menu'] : []),
      ...annotations.list.flatMap(({ name, expr, datasource }) =>
        expr === undefined || parseExpression(expr).fault !== undefined || datasource?.uid !== DATA_SOURCE
          ? [`annotation ${name}`]
          : [],
      ),
      ...['Deploys', 'Restarts', 'Alerts']
        .filter((name) => !annotations.list.some((it) => it.name === name))
        .map((name) => `no marks: ${name}`),
    ];
  },

  // The folder is called Loans.
  identity: ({ uid, title, description, tags }) =>
    /^loans-[a-z]+$/.test(uid) &&
    !title.startsWith('Loans') &&
    description !== '' &&
    tags.includes('loans') &&
    tags.includes('generated')
      ? []
      : ['wants a uid of its own, a title that does not repeat its folder, a description and its tags'],

  wording: ofPanels(({ title, description = '' }) => {
    const strange = /\b(nobody|somebody|everybody|whoever|whom)\b/i.exec(`${title} ${description}`);
    return strange !== null && `"${strange[0]}"`;
  }),

  // 30 days of raw series take seconds, and a lot of memory.
  'slo-reads-recorded-series': (dashboard) =>
    dashboard.uid === 'loans-slo'
      ? ofSelectors(({ metric }) => (isRecorded(metric) || metric === alerts ? [] : [metric]))(dashboard)
      : [],
} as const satisfies Record<string, Rule>;

export type RuleName = keyof typeof RULES;

export interface Exception {
  readonly rule: RuleName;
  readonly dashboard: string;
  /** Titles of panels; undefined where the fault is in none. */
  readonly panels?: readonly string[];
  readonly reason: string;
}

export const EXCEPTIONS: readonly Exception[] = [];

/** Metrics of the service that no panel shows and no rule watches -> why they are measured all the same. */
export const UNUSED_METRICS: Readonly<Record<string, string>> = {};

export interface Fault {
  readonly rule: RuleName;
  readonly text: string;
  /** The exception that covers it. */
  readonly exception: Exception | undefined;
}

export function faultsOf(dashboard: Dashboard): Fault[] {
  return (Object.keys(RULES) as RuleName[]).flatMap((rule) =>
    RULES[rule](dashboard).map((text) => ({
      rule,
      text,
      exception: EXCEPTIONS.find(
        (it) =>
          it.rule === rule &&
          it.dashboard === dashboard.uid &&
          (it.panels === undefined || it.panels.some((panel) => text.startsWith(`${panel}: `))),
      ),
    })),
  );
}
