{
  _config+:: {
    // Matchers for every metric of the exporter, and up, such as 'cluster="eu-1", namespace="auth"'. Labels of targets:
    // recorded series keep them, except instance and pod.
    selector: '',

    // Where an alert's runbook is. %s is the alert's name.
    runbookURLPattern: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/%s.md',

    // Grafana's address in front of the links to dashboards. By default Prometheus' external label grafana_url.
    grafanaURL: '{{ $externalLabels.grafana_url }}',

    // What the severities are called where alerts are routed.
    severities: { critical: 'critical', warning: 'warning', info: 'info' },

    // Labels to add to every alert, such as { team: 'identity' }.
    alertLabels: {},

    // Tags to add to the dashboards.
    dashboardTags: [],

    // Shares are from 0 to 1. What counts as low is not here: it is low_threshold of the exporter, which counts the
    // windows.
    thresholds: {
      // ClerkRateLimitBlockedForLong: a Retry-After lasts for longer than this.
      blockedSeconds: 60,
      // ClerkRateLimitHeadersMalformed: of the responses.
      headersMalformedRatio: 0.01,
      // ClerkProbeFailing: of the probes.
      probeFailureRatio: 0.5,
      // ClerkClockOffset: in either direction.
      clockOffsetSeconds: 5,
      // ClerkGatewayQueueSaturated: of the requests.
      queueWaitRatio: 0.1,
      // ClerkGatewayShedding: of the requests.
      shedRatio: 0.01,
      // ClerkGatewayRetryAmplification: retries in proportion to the requests.
      retryRatio: 0.1,
      // ClerkCacheTierDown: of the lookups.
      cacheErrorRatio: 0.5,
      // ClerkWebhookSignatureFailures: at least so many, and of the webhooks.
      webhookBadSignatures: 3,
      webhookBadSignatureRatio: 0.1,
      // ClerkTelemetrySpansLate: of the spans.
      spansLateRatio: 0.01,
    },

    // Other durations than those of the rules, by alert: how long a condition must hold ('for'), and how long the alert
    // lasts after it (keep_firing_for). Such as { ClerkProbeFailing: '5m' }. Not for alerts whose description states the
    // duration: see fixed in alerts/alerts.libsonnet.
    pendingFor: {},
    keepFiringFor: {},
  },
}
