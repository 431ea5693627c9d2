{
  local config = $._config,
  grafanaDashboards+:: {
    'clerk-overview.json': (import 'clerk-overview.json') + { tags+: config.dashboardTags },
    'clerk-instance.json': (import 'clerk-instance.json') + { tags+: config.dashboardTags },
    'clerk-gateway.json': (import 'clerk-gateway.json') + { tags+: config.dashboardTags },
  },
}
