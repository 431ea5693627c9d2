// What Grafana's Prometheus data source does: replaces variables and macros, and queries Prometheus.

const GRID_CELL = 38; // a row of the grid, with its margin
const TOP = 112; // title and variables

export async function loadDashboard(dashboard, settings) {
  const { prometheus, to, range, width } = settings;
  const problems = [];
  const api = async (path, parameters) => {
    const response = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const answer = await response.json();
    if (answer.status !== 'success') {
      throw new Error(`${answer.error}: ${parameters.query ?? path}`);
    }
    return answer.data;
  };

  const variables = {};
  for (const variable of dashboard.templating.list.filter((variable) => variable.type === 'query')) {
    const values = await labelValues(api, interpolate(variable.definition, variables, {}), to, range);
    const chosen = settings.variables[variable.name] ?? (variable.includeAll ? undefined : values[0]);
    variables[variable.name] = {
      label: variable.label,
      text: chosen ?? 'All',
      value: chosen ?? variable.allValue ?? values.join('|'),
    };
  }

  const panels = [];
  for (const panel of dashboard.panels) {
    const points = Math.max(100, Math.floor((width * panel.gridPos.w) / 24));
    const step = Math.max(settings.scrape, niceStep(range / points));
    const macros = {
      $__rate_interval: `${Math.max(step + settings.scrape, 4 * settings.scrape)}s`,
      $__interval: `${step}s`,
      $__range: `${range}s`,
    };
    const results = [];
    for (const target of panel.targets ?? []) {
      const query = interpolate(target.expr, variables, macros);
      try {
        const data = target.instant
          ? await api('query', { query, time: to })
          : await api('query_range', { query, start: align(to - range, step), end: align(to, step), step });
        results.push({ target, step, result: data.result });
        if (data.result.length === 0) {
          problems.push(`no data in '${panel.title}' ${target.refId}: ${query}`);
        }
      } catch (error) {
        problems.push(`'${panel.title}': ${error.message}`);
      }
    }
    panels.push({ ...panel, title: interpolate(panel.title, variables, {}), results });
  }

  const alerts = await api('query_range', {
    query: 'ALERTS{alertname=~"Clerk.*",alertstate="firing"}',
    start: to - range,
    end: to,
    step: settings.scrape,
  });
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return {
    title: dashboard.title,
    links: dashboard.links.map((link) => link.title),
    variables: Object.values(variables),
    from: (to - range) * 1000,
    to: to * 1000,
    width,
    height: TOP + bottom * GRID_CELL + 8,
    top: TOP,
    cell: GRID_CELL,
    panels,
    alerts: alerts.result.length,
    problems,
  };
}

// Longest names first: `$__range` must not match a part of `$__rate_interval`.
export function interpolate(text, variables, macros) {
  const all = { ...macros };
  for (const [name, { value }] of Object.entries(variables)) {
    all[`$${name}`] = value;
  }
  const names = Object.keys(all).sort((a, b) => b.length - a.length);
  return names.reduce((result, name) => result.replaceAll(name, all[name]), text);
}

async function labelValues(api, definition, to, range) {
  const [, metric, label] = /^label_values\((.+),\s*(\w+)\)$/.exec(definition);
  return api(`label/${label}/values`, { 'match[]': metric, start: to - range, end: to });
}

function align(time, step) {
  return Math.floor(time / step) * step;
}

function niceStep(seconds) {
  return [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600].find((step) => step >= seconds) ?? 7200;
}
