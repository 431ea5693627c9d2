// The groups with the settings of _config. Recording and alerting rules stay in one group, so that an alert uses what was
// recorded in the same evaluation: all are in prometheusAlerts, and prometheusRules has none.
local groups = import 'groups.libsonnet';

// Alerts whose description or whose conditions state how long the condition holds.
local fixed = [
  'ClerkBudgetNotShared',
  'ClerkExporterAbsent',
  'ClerkExporterFileReloadFailed',
  'ClerkRedisRefused',
  'ClerkTelemetryStopped',
];

{
  local config = $._config,

  local values = {
    [name]: '%g' % config.thresholds[name]
    for name in std.objectFields(config.thresholds)
  } + {
    only: if config.selector == '' then '' else '{%s}' % config.selector,
    first: if config.selector == '' then '' else config.selector + ', ',
  },

  // A mistyped name must not be ignored.
  local names = std.set([
    rule.alert
    for group in groups(values)
    for rule in group.rules
    if std.objectHas(rule, 'alert')
  ]),
  local override(durations, alert) =
    local unknown = [name for name in std.objectFields(durations) if !std.member(names, name)];
    local known = [name for name in std.objectFields(durations) if std.member(fixed, name)];
    assert unknown == [] : 'no such alert: %s' % std.join(', ', unknown);
    assert known == [] : 'the description states the duration of %s' % std.join(', ', known);
    if std.objectHas(durations, alert) then durations[alert] else null,

  local duration(key, durations, rule) =
    local other = override(durations, rule.alert);
    if other == null then {} else { [key]: other },

  local alert(rule) =
    rule
    + duration('for', config.pendingFor, rule)
    + duration('keep_firing_for', config.keepFiringFor, rule)
    + {
      labels: config.alertLabels + { severity: config.severities[rule.labels.severity] },
      annotations+: {
        runbook_url: config.runbookURLPattern % rule.alert,
        dashboard_url: std.strReplace(super.dashboard_url, '{{ $externalLabels.grafana_url }}', config.grafanaURL),
      },
    },

  prometheusAlerts+:: {
    groups+: [
      group { rules: [if std.objectHas(rule, 'alert') then alert(rule) else rule for rule in group.rules] }
      for group in groups(values)
    ],
  },
  prometheusRules+:: { groups+: [] },
}
