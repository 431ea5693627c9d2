// Generated from alerts/clerk.rules.yml, which explains the rules, by: cargo xtask generate
function(values) [
  {
    name: 'clerk-quota',
    interval: '15s',
    rules: [
      {
        record: 'clerk_instance:clerk_instance_info:development',
        expr: |||
          max by (job, namespace, cluster, clerk_instance) (
            last_over_time(clerk_instance_info{%(first)senvironment="development", exported_environment=""}[15m])
            or last_over_time(clerk_instance_info{%(first)sexported_environment="development"}[15m])
          )
        ||| % values,
      },
      {
        record: 'job_instance:clerk_exporter_start:within5m',
        expr: |||
          (time() - process_start_time_seconds%(only)s < 300 and time() - process_start_time_seconds%(only)s > -60)
          unless (abs(process_start_time_seconds%(only)s - process_start_time_seconds%(only)s offset 6m) < 1)
          and on (job, instance, namespace, cluster) clerk_ratelimit_low_threshold_ratio%(only)s
        ||| % values,
      },
      {
        record: 'job_instance:clerk_exporter_scrape:began_within5m',
        expr: |||
          (time() - process_start_time_seconds%(only)s >= 300)
          and on (job, instance, namespace, cluster) clerk_ratelimit_low_threshold_ratio%(only)s
          unless on (job, instance, namespace, cluster) (clerk_ratelimit_low_threshold_ratio%(only)s offset 5m)
        ||| % values,
      },
      {
        record: 'job_instance_bucket:clerk_ratelimit_throttled_responses:recent5m',
        expr: |||
          (
            clerk_ratelimit_throttled_responses_total%(only)s
            and on (job, instance, namespace, cluster) job_instance:clerk_exporter_start:within5m
          ) > 0
          or
          (
            clerk_ratelimit_throttled_responses_total%(only)s
            unless last_over_time(clerk_ratelimit_throttled_responses_total%(only)s[1h] offset 5m)
            unless on (job, instance, namespace, cluster) job_instance:clerk_exporter_scrape:began_within5m
          ) > 0
          or
          increase(clerk_ratelimit_throttled_responses_total%(only)s[5m])
        ||| % values,
      },
      {
        record: 'clerk_instance_bucket:clerk_ratelimit_throttled_responses:recent5m',
        expr: |||
          sum without (instance, pod, source) (
            job_instance_bucket:clerk_ratelimit_throttled_responses:recent5m{source!="telemetry"}
            or
            max without (instance, pod) (
              job_instance_bucket:clerk_ratelimit_throttled_responses:recent5m{source="telemetry"}
            )
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_bucket:clerk_ratelimit_low_windows:recent5m',
        expr: |||
          max without (instance, pod) (
            (
              clerk_ratelimit_low_windows_total%(only)s
              and on (job, instance, namespace, cluster) job_instance:clerk_exporter_start:within5m
            ) > 0
            or
            (
              clerk_ratelimit_low_windows_total%(only)s
              unless last_over_time(clerk_ratelimit_low_windows_total%(only)s[1h] offset 5m)
              unless on (job, instance, namespace, cluster) job_instance:clerk_exporter_scrape:began_within5m
            ) > 0
            or
            increase(clerk_ratelimit_low_windows_total%(only)s[5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_bucket:clerk_ratelimit_exhausted_windows:recent5m',
        expr: |||
          max without (instance, pod) (
            (
              clerk_ratelimit_exhausted_windows_total%(only)s
              and on (job, instance, namespace, cluster) job_instance:clerk_exporter_start:within5m
            ) > 0
            or
            (
              clerk_ratelimit_exhausted_windows_total%(only)s
              unless last_over_time(clerk_ratelimit_exhausted_windows_total%(only)s[1h] offset 5m)
              unless on (job, instance, namespace, cluster) job_instance:clerk_exporter_scrape:began_within5m
            ) > 0
            or
            increase(clerk_ratelimit_exhausted_windows_total%(only)s[5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_code:clerk_quota_exceeded:recent5m',
        expr: |||
          sum without (instance, pod) (
            (
              clerk_quota_exceeded_total%(only)s
              and on (job, instance, namespace, cluster) job_instance:clerk_exporter_start:within5m
            ) > 0
            or
            (
              clerk_quota_exceeded_total%(only)s
              unless last_over_time(clerk_quota_exceeded_total%(only)s[1h] offset 5m)
              unless on (job, instance, namespace, cluster) job_instance:clerk_exporter_scrape:began_within5m
            ) > 0
            or
            increase(clerk_quota_exceeded_total%(only)s[5m])
          )
        ||| % values,
      },
      {
        record: 'job_instance_caller_route:clerk_ratelimit_requests:recent1m',
        expr: |||
          sum without (result) (
            (clerk_ratelimit_requests_total%(only)s - clerk_ratelimit_requests_total%(only)s offset 1m) >= 0
            or
            (
              clerk_ratelimit_requests_total%(only)s
              unless on (job, instance, namespace, cluster)
              (
                (time() - process_start_time_seconds%(only)s >= 60)
                and on (job, instance, namespace, cluster) clerk_ratelimit_low_threshold_ratio%(only)s
                unless on (job, instance, namespace, cluster) (clerk_ratelimit_low_threshold_ratio%(only)s offset 1m)
              )
            )
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_caller_route:clerk_ratelimit_requests:recent1m',
        expr: |||
          sum without (instance, pod) (
            job_instance_caller_route:clerk_ratelimit_requests:recent1m{source!="telemetry"}
          )
          or
          max without (instance, pod) (
            job_instance_caller_route:clerk_ratelimit_requests:recent1m{source="telemetry"}
          )
        ||| % values,
      },
      {
        record: 'job_instance_caller_route:clerk_ratelimit_requests:recent5m',
        expr: |||
          sum without (result) (
            (
              clerk_ratelimit_requests_total%(only)s
              unless last_over_time(clerk_ratelimit_requests_total%(only)s[1h] offset 5m)
              unless on (job, instance, namespace, cluster) job_instance:clerk_exporter_scrape:began_within5m
            )
            or
            (
              clerk_ratelimit_requests_total%(only)s
              and on (job, instance, namespace, cluster) job_instance:clerk_exporter_start:within5m
            ) > increase(clerk_ratelimit_requests_total%(only)s[5m])
            or
            increase(clerk_ratelimit_requests_total%(only)s[5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_caller_route:clerk_ratelimit_requests:recent5m',
        expr: |||
          sum without (instance, pod) (
            job_instance_caller_route:clerk_ratelimit_requests:recent5m{source!="telemetry"}
          )
          or
          max without (instance, pod) (
            job_instance_caller_route:clerk_ratelimit_requests:recent5m{source="telemetry"}
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_bucket:clerk_ratelimit_window:paced',
        expr: |||
          max without (instance, pod) (last_over_time(clerk_ratelimit_window_seconds%(only)s[5m]) < 600)
          and on (job, namespace, cluster, clerk_instance)
          (last_over_time(clerk_gateway_policy_info{%(first)spolicy="pace", mode="on"}[5m]) == 1)
          unless on (job, namespace, cluster, clerk_instance, bucket)
          (clerk_instance_bucket:clerk_ratelimit_throttled_responses:recent5m > 0)
          unless on (job, namespace, cluster, clerk_instance, bucket)
          (max_over_time(clerk_ratelimit_unseen_requests%(only)s[5m]) > 0)
          unless on (job, namespace, cluster, clerk_instance, bucket)
          (clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{source="telemetry"} > 0)
        ||| % values,
      },
      {
        record: 'clerk_instance_bucket:clerk_ratelimit_remaining:ratio',
        expr: |||
          min without (instance, pod) (
            clerk_ratelimit_remaining%(only)s
            / on (job, instance, namespace, cluster, clerk_instance, bucket) group_left ()
            max by (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_limit%(only)s > 0)
          )
        ||| % values,
      },
      {
        record: 'job_instance_bucket:clerk_ratelimit_remaining:long_window_ratio',
        expr: |||
          (
            clerk_ratelimit_remaining%(only)s
            / on (job, instance, namespace, cluster, clerk_instance, bucket) group_left ()
            max by (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_limit%(only)s > 0)
          )
          and on (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_window_seconds%(only)s >= 600)
          unless on (job, instance, namespace, cluster, clerk_instance, bucket)
          (clerk_ratelimit_reset_timestamp_seconds%(only)s <= time())
          unless on (job, instance, namespace, cluster, clerk_instance, bucket)
          (
            (
              abs(clerk_ratelimit_reset_timestamp_seconds%(only)s - clerk_ratelimit_reset_timestamp_seconds%(only)s offset 1h) < 60
            )
            and on (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_window_seconds%(only)s <= 3600)
          )
        ||| % values,
      },
      {
        alert: 'ClerkRateLimitLow',
        expr: |||
          (
            clerk_instance_bucket:clerk_ratelimit_low_windows:recent5m > 0
            unless on (job, namespace, cluster, clerk_instance, bucket) (last_over_time(clerk_ratelimit_window_seconds%(only)s[15m]) >= 600)
            unless on (job, namespace, cluster, clerk_instance, bucket) clerk_instance_bucket:clerk_ratelimit_window:paced
          )
          or
          min without (instance, pod) (
            job_instance_bucket:clerk_ratelimit_remaining:long_window_ratio
            < on (job, instance, namespace, cluster) group_left ()
            max by (job, instance, namespace, cluster) (clerk_ratelimit_low_threshold_ratio%(only)s)
          )
        ||| % values,
        keep_firing_for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk\'s rate limit is nearly used up.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: {{ if ge $value 1.0 }}less than the configured threshold of the limit was left in about {{ $value | printf "%.0f" }} window(s) of the last 5 minutes.{{ else }}{{ $value | humanizePercentage }} of the limit is left in this window.{{ end }} When nothing is left, Clerk answers 429.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitLow.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitLow',
        expr: |||
          clerk_instance_bucket:clerk_ratelimit_low_windows:recent5m > 0
          and on (job, namespace, cluster, clerk_instance, bucket) clerk_instance_bucket:clerk_ratelimit_window:paced
        ||| % values,
        keep_firing_for: '10m',
        labels: { severity: 'info' },
        annotations: {
          summary: 'The gateway uses the whole rate limit.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: less than the configured threshold of the limit was left in about {{ $value | printf "%.0f" }} window(s) of the last 5 minutes. The gateway paces, Clerk sent no 429, and no usage by other clients was seen: this is expected with pacing.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitLow.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitThrottled',
        expr: |||
          clerk_instance_bucket:clerk_ratelimit_throttled_responses:recent5m > 0
          unless on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        keep_firing_for: '14m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Clerk throttles requests (429).',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: Clerk answered about {{ $value | printf "%.0f" }} request(s) with status 429 in the last 5 minutes.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitThrottled.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitThrottled',
        expr: |||
          clerk_instance_bucket:clerk_ratelimit_throttled_responses:recent5m > 0
          and on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        keep_firing_for: '14m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk throttles requests (429).',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: Clerk answered about {{ $value | printf "%.0f" }} request(s) with status 429 in the last 5 minutes.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitThrottled.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitExhausted',
        expr: |||
          (
            clerk_instance_bucket:clerk_ratelimit_exhausted_windows:recent5m > 0
            unless on (job, namespace, cluster, clerk_instance, bucket) (last_over_time(clerk_ratelimit_window_seconds%(only)s[15m]) >= 600)
            unless on (job, namespace, cluster, clerk_instance, bucket) clerk_instance_bucket:clerk_ratelimit_window:paced
          )
          or
          min without (instance, pod) (
            job_instance_bucket:clerk_ratelimit_remaining:long_window_ratio == 0
          )
        ||| % values,
        keep_firing_for: '12m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk\'s rate limit is used up.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: {{ if ge $value 1.0 }}nothing was left in about {{ $value | printf "%.0f" }} window(s) of the last 5 minutes.{{ else }}nothing is left in this window.{{ end }}',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitExhausted.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitExhausted',
        expr: |||
          clerk_instance_bucket:clerk_ratelimit_exhausted_windows:recent5m > 0
          and on (job, namespace, cluster, clerk_instance, bucket) clerk_instance_bucket:clerk_ratelimit_window:paced
        ||| % values,
        keep_firing_for: '12m',
        labels: { severity: 'info' },
        annotations: {
          summary: 'The gateway uses the whole rate limit.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: nothing was left in about {{ $value | printf "%.0f" }} window(s) of the last 5 minutes. The gateway paces, Clerk sent no 429, and no usage by other clients was seen: this is expected with pacing.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitExhausted.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitExhaustionForecast',
        expr: |||
          min without (instance, pod) (
            (clerk_ratelimit_seconds_to_exhaustion%(only)s > 0)
            and on (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_window_seconds%(only)s >= 600)
          )
        ||| % values,
        'for': '5m',
        keep_firing_for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk\'s rate limit will be used up before the window resets.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: at the current rate nothing is left in {{ $value | humanizeDuration }}, before the window resets.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitExhaustionForecast.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        record: 'clerk_instance_bucket:clerk_ratelimit_blocked:seconds',
        expr: |||
          max without (instance, pod) (
            (
              (clerk_ratelimit_blocked_until_timestamp_seconds%(only)s - time())
              <= on (job, instance, namespace, cluster, clerk_instance, bucket) group_left ()
              max by (job, instance, namespace, cluster, clerk_instance, bucket) (
                clerk_ratelimit_blocked_until_timestamp_seconds%(only)s
                - on (job, instance, namespace, cluster, clerk_instance, bucket) group_left ()
                max by (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_sample_timestamp_seconds%(only)s)
              )
            ) > 0
            or
            (
              clerk_ratelimit_blocked_until_timestamp_seconds%(only)s
              - on (job, instance, namespace, cluster, clerk_instance, bucket) group_left ()
              max by (job, instance, namespace, cluster, clerk_instance, bucket) (clerk_ratelimit_sample_timestamp_seconds%(only)s)
            )
            or
            (clerk_ratelimit_blocked_until_timestamp_seconds%(only)s - time())
          )
        ||| % values,
      },
      {
        alert: 'ClerkRateLimitBlockedForLong',
        expr: |||
          clerk_instance_bucket:clerk_ratelimit_blocked:seconds > %(blockedSeconds)s
          unless on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        'for': '1m',
        keep_firing_for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Clerk throttles requests for minutes.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: Clerk\'s Retry-After lasts for another {{ $value | humanizeDuration }}. Requests to the bucket fail until then.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitBlockedForLong.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitBlockedForLong',
        expr: |||
          clerk_instance_bucket:clerk_ratelimit_blocked:seconds > %(blockedSeconds)s
          and on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        'for': '1m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk throttles requests for minutes.',
          description: 'Instance {{ $labels.clerk_instance }}, bucket {{ $labels.bucket }}: Clerk\'s Retry-After lasts for another {{ $value | humanizeDuration }}. Requests to the bucket fail until then.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitBlockedForLong.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkRateLimitHeadersMalformed',
        expr: |||
          sum without (instance, pod) (increase(clerk_ratelimit_header_errors_total{%(first)serror!="clamped"}[15m]))
          / on (job, namespace, cluster, clerk_instance) group_left ()
          (
            sum by (job, namespace, cluster, clerk_instance) (increase(clerk_responses_total{%(first)ssource!="telemetry"}[15m])) > 0
            or
            sum by (job, namespace, cluster, clerk_instance) (increase(clerk_responses_total%(only)s[15m])) > 0
          )
          > %(headersMalformedRatio)s
        ||| % values,
        'for': '5m',
        keep_firing_for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Quota headers in Clerk\'s responses cannot be parsed.',
          description: 'Instance {{ $labels.clerk_instance }}: {{ $value | humanizePercentage }} of the responses have quota headers with the error {{ $labels.error }}. Quota metrics may be missing or wrong.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRateLimitHeadersMalformed.md',
        },
      },
      {
        alert: 'ClerkUserQuotaExceeded',
        expr: |||
          clerk_instance_code:clerk_quota_exceeded:recent5m{code=~"user_quota_exceeded|quota_exceeded"} > 0
          unless on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        keep_firing_for: '15m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Clerk rejects new users because the plan\'s user quota is used up.',
          description: 'Instance {{ $labels.clerk_instance }}: Clerk answered about {{ $value | printf "%.0f" }} request(s) with status 403 and code {{ $labels.code }} in the last 5 minutes.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkUserQuotaExceeded.md',
        },
      },
      {
        alert: 'ClerkUserQuotaExceeded',
        expr: |||
          clerk_instance_code:clerk_quota_exceeded:recent5m{code=~"user_quota_exceeded|quota_exceeded"} > 0
          and on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        keep_firing_for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk rejects new users because the plan\'s user quota is used up.',
          description: 'Instance {{ $labels.clerk_instance }}: Clerk answered about {{ $value | printf "%.0f" }} request(s) with status 403 and code {{ $labels.code }} in the last 5 minutes.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkUserQuotaExceeded.md',
        },
      },
      {
        alert: 'ClerkOrganizationQuotaExceeded',
        expr: 'clerk_instance_code:clerk_quota_exceeded:recent5m{code!~"user_quota_exceeded|quota_exceeded"} > 0' % values,
        keep_firing_for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk rejects requests because a quota of the plan is used up.',
          description: 'Instance {{ $labels.clerk_instance }}: Clerk answered about {{ $value | printf "%.0f" }} request(s) with status 403 and code {{ $labels.code }} in the last 5 minutes.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkOrganizationQuotaExceeded.md',
        },
      },
      {
        alert: 'ClerkUsersNearLimit',
        expr: |||
          max without (instance, pod) (
            (
              clerk_users%(only)s
              / on (job, instance, namespace, cluster, clerk_instance) group_left ()
              max by (job, instance, namespace, cluster, clerk_instance) (clerk_users_limit%(only)s > 0)
            )
            > on (job, instance, namespace, cluster) group_left ()
            (1 - max by (job, instance, namespace, cluster) (clerk_ratelimit_low_threshold_ratio%(only)s))
          )
        ||| % values,
        'for': '15m',
        keep_firing_for: '1h',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A Clerk instance is near its plan\'s user limit.',
          description: 'Instance {{ $labels.clerk_instance }} has used {{ $value | humanizePercentage }} of its users_limit. At the limit Clerk rejects sign-ups.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkUsersNearLimit.md',
        },
      },
    ],
  },
  {
    name: 'clerk-probe',
    rules: [
      {
        alert: 'ClerkKeyInvalid',
        expr: |||
          (min without (instance, pod) (last_over_time(clerk_key_valid%(only)s[5m])) == 0)
          unless on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        'for': '2m',
        keep_firing_for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Clerk rejects the secret key.',
          description: 'Instance {{ $labels.clerk_instance }}: Clerk answers 401 or 403 to the secret key. Applications with the same key fail too, and the instance\'s quota is not monitored.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkKeyInvalid.md',
        },
      },
      {
        alert: 'ClerkKeyInvalid',
        expr: |||
          (min without (instance, pod) (last_over_time(clerk_key_valid%(only)s[5m])) == 0)
          and on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        'for': '2m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Clerk rejects the secret key.',
          description: 'Instance {{ $labels.clerk_instance }}: Clerk answers 401 or 403 to the secret key. Applications with the same key fail too, and the instance\'s quota is not monitored.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkKeyInvalid.md',
        },
      },
      {
        alert: 'ClerkProbeFailing',
        expr: |||
          sum without (instance, pod, reason) (increase(clerk_probe_failures_total{%(first)sreason!~"throttled|key"}[5m]))
          / on (job, namespace, cluster, clerk_instance) group_left ()
          (sum by (job, namespace, cluster, clerk_instance) (increase(clerk_probes_total%(only)s[5m])) > 0)
          > %(probeFailureRatio)s
        ||| % values,
        'for': '2m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Most probes of Clerk fail.',
          description: 'Instance {{ $labels.clerk_instance }}: {{ $value | humanizePercentage }} of the probes in the last 5 minutes failed, not counting 429s and rejected keys. Clerk or the network path to it is failing.',
          cause: '{{ with printf "clerk_trouble_info{job=%q, namespace=%q, cluster=%q, clerk_instance=%q}" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance | query }}{{ with (first .).Labels.trouble }}{{ if eq . "clerk" }}Clerk is failing{{ else if eq . "network" }}the network: Clerk cannot be reached from the exporter{{ else if eq . "key" }}Clerk rejects the key{{ else }}the rate limit is used up{{ end }}{{ end }}{{ else }}unknown{{ end }}',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkProbeFailing.md',
        },
      },
      {
        record: 'clerk_instance:clerk_probes_due:rate6h',
        expr: |||
          sum by (job, namespace, cluster, clerk_instance) (rate(clerk_probes_total%(only)s[6h]))
          + sum by (job, namespace, cluster, clerk_instance) (rate(clerk_probes_skipped_total%(only)s[6h]))
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_probe_success:unchanged15m',
        expr: |||
          max without (instance, pod) (abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 15m)) < bool 5)
          unless on (job, namespace, cluster, clerk_instance) (
            clerk_probe_last_success_timestamp_seconds%(only)s
            unless abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 15m)) < 5
          )
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_probe_success:unchanged1h',
        expr: |||
          max without (instance, pod) (abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 1h)) < bool 5)
          unless on (job, namespace, cluster, clerk_instance) (
            clerk_probe_last_success_timestamp_seconds%(only)s
            unless abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 1h)) < 5
          )
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_probe_success:unchanged3h',
        expr: |||
          max without (instance, pod) (abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 3h)) < bool 5)
          unless on (job, namespace, cluster, clerk_instance) (
            clerk_probe_last_success_timestamp_seconds%(only)s
            unless abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 3h)) < 5
          )
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_probe_success:unchanged6h',
        expr: |||
          max without (instance, pod) (abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 6h)) < bool 5)
          unless on (job, namespace, cluster, clerk_instance) (
            clerk_probe_last_success_timestamp_seconds%(only)s
            unless abs(clerk_probe_last_success_timestamp_seconds%(only)s - last_over_time(clerk_probe_last_success_timestamp_seconds%(only)s[5m] offset 6h)) < 5
          )
        ||| % values,
      },
      {
        alert: 'ClerkProbeStale',
        expr: |||
          (
            (
              clerk_instance:clerk_probe_success:unchanged15m * 900
              and on (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_probes_due:rate6h * 900 > 2.5)
            )
            or
            (
              clerk_instance:clerk_probe_success:unchanged1h * 3600
              and on (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_probes_due:rate6h * 3600 > 2.5)
            )
            or
            (
              clerk_instance:clerk_probe_success:unchanged3h * 10800
              and on (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_probes_due:rate6h * 10800 > 2.5)
            )
            or
            (
              clerk_instance:clerk_probe_success:unchanged6h * 21600
              and on (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_probes_due:rate6h * 21600 > 2.5)
            )
          )
          unless on (job, namespace, cluster, clerk_instance) (
            clerk_ratelimit_sample_timestamp_seconds%(only)s
            unless
            abs(
              clerk_ratelimit_sample_timestamp_seconds%(only)s
              - last_over_time(clerk_ratelimit_sample_timestamp_seconds%(only)s[5m] offset 15m)
            ) < 5
          )
        ||| % values,
        'for': '1m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'No recent data for a Clerk instance.',
          description: 'Instance {{ $labels.clerk_instance }}: no probe has succeeded for at least {{ $value | humanizeDuration }}, and no other traffic showed its quota.',
          cause: '{{ with printf "clerk_trouble_info{job=%q, namespace=%q, cluster=%q, clerk_instance=%q}" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance | query }}{{ with (first .).Labels.trouble }}{{ if eq . "clerk" }}Clerk is failing{{ else if eq . "network" }}the network: Clerk cannot be reached from the exporter{{ else if eq . "key" }}Clerk rejects the key{{ else }}the rate limit is used up{{ end }}{{ end }}{{ else }}unknown{{ end }}',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkProbeStale.md',
        },
      },
      {
        alert: 'ClerkClockOffset',
        expr: |||
          max without (instance, pod) (min_over_time(clerk_clock_offset_seconds%(only)s[10m])) > %(clockOffsetSeconds)s
          or
          min without (instance, pod) (max_over_time(clerk_clock_offset_seconds%(only)s[10m])) < -%(clockOffsetSeconds)s
        ||| % values,
        'for': '5m',
        keep_firing_for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The exporter\'s clock differs from Clerk\'s.',
          description: 'Instance {{ $labels.clerk_instance }}: by the Date header of its responses, Clerk\'s clock is {{ $value | printf "%.0f" }} s ahead of the exporter\'s (negative: behind).',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkClockOffset.md',
        },
      },
    ],
  },
  {
    name: 'clerk-exporter',
    rules: [
      {
        record: 'job_instance:clerk_exporter_up:down5m',
        expr: |||
          avg_over_time(up{%(first)sjob=~"(?i).*clerk.*"}[5m]) < 0.5
          or
          (avg_over_time(up%(only)s[5m]) < 0.5)
          and on (job, instance) last_over_time(clerk_ratelimit_low_threshold_ratio%(only)s[1d])
        ||| % values,
      },
      {
        record: 'job_instance:clerk_exporter_up:spare5m',
        expr: |||
          job_instance:clerk_exporter_up:down5m
          and on (job, instance) last_over_time(clerk_instance_info%(only)s[1d])
          unless on (job, instance) (
            last_over_time(clerk_instance_info%(only)s[1d])
            unless on (job, namespace, cluster, clerk_instance) (
              clerk_instance_info%(only)s unless on (job, instance) job_instance:clerk_exporter_up:down5m
            )
          )
          unless on (job, instance) (
            last_over_time(clerk_probes_total%(only)s[1d])
            unless on (job, namespace, cluster, clerk_instance) (
              clerk_probes_total%(only)s unless on (job, instance) job_instance:clerk_exporter_up:down5m
            )
          )
          unless on (job, instance) (
            last_over_time(clerk_gateway_queue_depth%(only)s[1d])
            unless on (job, namespace, cluster, clerk_instance) (
              clerk_gateway_queue_depth%(only)s unless on (job, instance) job_instance:clerk_exporter_up:down5m
            )
          )
          or
          job_instance:clerk_exporter_up:down5m
          and on (job, instance) (
            (last_over_time(clerk_exporter_probe_leases{%(first)sstate="standby"}[1d]) > 0)
            and on (job, namespace, cluster) (
              clerk_probes_total%(only)s unless on (job, instance) job_instance:clerk_exporter_up:down5m
            )
          )
          unless on (job, instance) last_over_time(clerk_instance_info%(only)s[1d])
        ||| % values,
      },
      {
        alert: 'ClerkExporterDown',
        expr: |||
          min without (instance, pod) (
            job_instance:clerk_exporter_up:down5m unless job_instance:clerk_exporter_up:spare5m
          )
        ||| % values,
        'for': '2m',
        keep_firing_for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'The Clerk exporter cannot be scraped.',
          description: 'Only {{ $value | humanizePercentage }} of the scrapes of an exporter of job {{ $labels.job }} succeeded in the last 5 minutes, and no other one watches the same Clerk instances, or is a gateway to them.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkExporterDown.md',
        },
      },
      {
        alert: 'ClerkExporterDown',
        expr: 'min without (instance, pod) (job_instance:clerk_exporter_up:spare5m)' % values,
        'for': '2m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A replica of the Clerk exporter cannot be scraped.',
          description: 'Only {{ $value | humanizePercentage }} of the scrapes of an exporter of job {{ $labels.job }} succeeded in the last 5 minutes. Other exporters watch the same Clerk instances.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkExporterDown.md',
        },
      },
      {
        alert: 'ClerkExporterAbsent',
        expr: |||
          (
            max by (job, namespace, cluster) (last_over_time(clerk_exporter_build_info%(only)s[1d]))
            unless on (job, namespace, cluster) clerk_exporter_build_info%(only)s
            unless on (job, namespace, cluster) up%(only)s
          )
          or on ()
          label_replace(
            absent(up{%(first)sjob=~"(?i).*clerk.*"} or clerk_exporter_build_info%(only)s or job_instance:clerk_exporter_up:down5m),
            "job", "clerk-exporter", "", ""
          )
        ||| % values,
        'for': '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Prometheus has no Clerk exporter.',
          description: 'For 10 minutes job {{ $labels.job }} has had no target and no metric of an exporter. After a deliberate removal, remove these rules too; if other exporters remain, the alert ends after a day.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkExporterAbsent.md',
        },
      },
      {
        alert: 'ClerkExporterConfigReloadFailed',
        expr: |||
          min without (instance, pod) (max_over_time(clerk_exporter_config_last_reload_successful%(only)s[5m])) == 0
        ||| % values,
        'for': '5m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The Clerk exporter\'s configuration could not be loaded.',
          description: 'The last attempt of an exporter of job {{ $labels.job }} to load its configuration failed. It runs with the previous one, and a restart would fail.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkExporterConfigReloadFailed.md',
        },
      },
      {
        alert: 'ClerkExporterFileReloadFailed',
        expr: 'sum without (instance, pod) (increase(clerk_exporter_file_reload_failures_total{%(first)skind!="config"}[5m])) > 0' % values,
        'for': '10m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The Clerk exporter cannot use a changed file.',
          description: 'For 10 minutes an exporter of job {{ $labels.job }} could not use a changed file of kind {{ $labels.kind }}. It continues with the previous content, and a restart would fail.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkExporterFileReloadFailed.md',
        },
      },
    ],
  },
  {
    name: 'clerk-gateway',
    rules: [
      {
        alert: 'ClerkGatewayQueueSaturated',
        expr: |||
          (
            sum without (instance, pod) (increase(clerk_gateway_queue_wait_seconds_count%(only)s[10m]))
            - on (job, namespace, cluster, clerk_instance) group_left ()
            sum by (job, namespace, cluster, clerk_instance) (increase(clerk_gateway_queue_wait_seconds_bucket{%(first)sle="0.25"}[10m]))
          )
          / on (job, namespace, cluster, clerk_instance) group_left ()
          (sum by (job, namespace, cluster, clerk_instance) (increase(clerk_gateway_decisions_total%(only)s[10m])) > 0)
          > %(queueWaitRatio)s
        ||| % values,
        'for': '5m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Many requests wait in the gateway\'s queue.',
          description: 'Instance {{ $labels.clerk_instance }}: {{ $value | humanizePercentage }} of the requests in the last 10 minutes waited for more than 0.25 s: demand exceeds the rate limit.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkGatewayQueueSaturated.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        record: 'clerk_instance:clerk_gateway_shed:own5m',
        expr: |||
          sum without (instance, pod, priority, reason) (
            increase(clerk_gateway_shed_total{%(first)sreason=~"caller_cap|caller_paused"}[5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_gateway_shed:low5m',
        expr: |||
          sum without (instance, pod, priority, reason) (
            increase(clerk_gateway_shed_total{%(first)spriority="low", reason!~"caller_cap|caller_paused"}[5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_gateway_shed:expected5m',
        expr: |||
          sum without (instance, pod, priority, reason) (
            increase(clerk_gateway_shed_total{%(first)spriority="low"}[5m])
            or increase(clerk_gateway_shed_total{%(first)spriority!="low", reason=~"caller_cap|caller_paused"}[5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_gateway_shed:high5m',
        expr: |||
          (
            sum without (instance, pod, decision) (increase(clerk_gateway_decisions_total{%(first)sdecision="shed"}[5m]))
            - on (job, namespace, cluster, clerk_instance) group_left ()
            sum by (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_gateway_shed:expected5m)
          )
          or
          sum without (instance, pod, decision) (increase(clerk_gateway_decisions_total{%(first)sdecision="shed"}[5m]))
        ||| % values,
      },
      {
        record: 'clerk_instance:clerk_gateway_decisions:admitted5m',
        expr: |||
          (
            sum by (job, namespace, cluster, clerk_instance) (increase(clerk_gateway_decisions_total%(only)s[5m]))
            - sum by (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_gateway_shed:own5m)
          )
          or
          sum by (job, namespace, cluster, clerk_instance) (increase(clerk_gateway_decisions_total%(only)s[5m]))
        ||| % values,
      },
      {
        alert: 'ClerkGatewayShedding',
        expr: |||
          (
            clerk_instance:clerk_gateway_shed:high5m
            / on (job, namespace, cluster, clerk_instance) group_left ()
            (sum by (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_gateway_decisions:admitted5m) > 0)
            > %(shedRatio)s
          )
          unless on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        'for': '1m',
        keep_firing_for: '10m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'The gateway rejects requests of applications.',
          description: 'Instance {{ $labels.clerk_instance }}: the gateway rejected {{ $value | humanizePercentage }} of the requests in the last 5 minutes. They had high priority and would have waited too long.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkGatewayShedding.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
          top_refused: '{{ $of := printf "clerk_gateway_requests_total{job=%q, namespace=%q, cluster=%q, clerk_instance=%q, code=%q}" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "429" }}{{ with query (printf "topk(1, sum by (caller) (%s - %s offset 5m or %s) > 0)" $of $of $of) }}{{ with first . }}{{ .Labels.caller }} ({{ .Value | printf "%.0f" }} responses with 429 in the last 5 minutes){{ end }}{{ else }}unknown{{ end }}',
        },
      },
      {
        alert: 'ClerkGatewayShedding',
        expr: |||
          (
            clerk_instance:clerk_gateway_shed:high5m
            / on (job, namespace, cluster, clerk_instance) group_left ()
            (sum by (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_gateway_decisions:admitted5m) > 0)
            > %(shedRatio)s
          )
          and on (job, namespace, cluster, clerk_instance) clerk_instance:clerk_instance_info:development
        ||| % values,
        'for': '1m',
        keep_firing_for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The gateway rejects requests of applications.',
          description: 'Instance {{ $labels.clerk_instance }}: the gateway rejected {{ $value | humanizePercentage }} of the requests in the last 5 minutes. They had high priority and would have waited too long.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkGatewayShedding.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
          top_refused: '{{ $of := printf "clerk_gateway_requests_total{job=%q, namespace=%q, cluster=%q, clerk_instance=%q, code=%q}" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "429" }}{{ with query (printf "topk(1, sum by (caller) (%s - %s offset 5m or %s) > 0)" $of $of $of) }}{{ with first . }}{{ .Labels.caller }} ({{ .Value | printf "%.0f" }} responses with 429 in the last 5 minutes){{ end }}{{ else }}unknown{{ end }}',
        },
      },
      {
        alert: 'ClerkGatewayShedding',
        expr: |||
          clerk_instance:clerk_gateway_shed:low5m
          / on (job, namespace, cluster, clerk_instance) group_left ()
          (sum by (job, namespace, cluster, clerk_instance) (clerk_instance:clerk_gateway_decisions:admitted5m) > 0)
          > %(shedRatio)s
        ||| % values,
        'for': '1m',
        keep_firing_for: '10m',
        labels: { severity: 'info' },
        annotations: {
          summary: 'The gateway rejects low-priority requests.',
          description: 'Instance {{ $labels.clerk_instance }}: the gateway rejected {{ $value | humanizePercentage }} of the requests in the last 5 minutes. They had low priority and would have waited too long, as intended.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkGatewayShedding.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
          top_refused: '{{ $of := printf "clerk_gateway_requests_total{job=%q, namespace=%q, cluster=%q, clerk_instance=%q, code=%q}" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "429" }}{{ with query (printf "topk(1, sum by (caller) (%s - %s offset 5m or %s) > 0)" $of $of $of) }}{{ with first . }}{{ .Labels.caller }} ({{ .Value | printf "%.0f" }} responses with 429 in the last 5 minutes){{ end }}{{ else }}unknown{{ end }}',
        },
      },
      {
        alert: 'ClerkGatewayRetryAmplification',
        expr: |||
          sum without (instance, pod, bucket, caller, route, method, source, result) (
            increase(clerk_ratelimit_requests_total{%(first)ssource="gateway"}[10m])
          )
          / on (job, namespace, cluster, clerk_instance) group_left ()
          (
            sum by (job, namespace, cluster, clerk_instance) (
              increase(clerk_gateway_decisions_total{%(first)sdecision!~"cache_hit|coalesced|shed|rejected"}[10m])
            )
            > 0
          )
          - 1
          > %(retryRatio)s
        ||| % values,
        'for': '5m',
        keep_firing_for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The gateway retries unusually many requests.',
          description: 'Instance {{ $labels.clerk_instance }}: the gateway\'s retries added at least {{ $value | humanizePercentage }} to the requests of the last 10 minutes. Retries use up the rate limit too.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkGatewayRetryAmplification.md',
          top_caller: '{{ $of := printf "job=%q, namespace=%q, cluster=%q, clerk_instance=%q, source!=%q" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance "probe" }}{{ $minute := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minutes := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s, bucket=%q} > 0" $of $labels.bucket }}{{ $minuteAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent1m{%s} > 0" $of }}{{ $minutesAll := printf "clerk_instance_caller_route:clerk_ratelimit_requests:recent5m{%s} > 0" $of }}{{ $top := "label_replace(topk(1, (%s) / scalar(sum(%s))), %q, %q, %q, %q)" }}{{ with query (printf "%s or on () %s or on () %s or on () %s" (printf $top $minute $minute "of" "minute" "" "") (printf $top $minutes $minutes "of" "5 minutes" "" "") (printf $top $minuteAll $minuteAll "of" "minute, all buckets" "" "") (printf $top $minutesAll $minutesAll "of" "5 minutes, all buckets" "" "")) }}{{ with first . }}{{ .Labels.caller }} with {{ .Labels.method }} {{ .Labels.route }} ({{ .Value | humanizePercentage }} of the requests seen in the last {{ .Labels.of }}){{ end }}{{ else }}unknown: only probes are seen for this instance. To identify callers, receive the traces of the applications or send their requests through the gateway.{{ end }}',
        },
      },
      {
        alert: 'ClerkCacheTierDown',
        expr: |||
          max without (instance, pod) (
            increase(clerk_cache_errors_total%(only)s[5m])
            / on (job, instance, namespace, cluster, tier) group_left ()
            (
              sum by (job, instance, namespace, cluster, tier) (increase(clerk_cache_errors_total%(only)s[5m]))
              + sum by (job, instance, namespace, cluster, tier) (increase(clerk_cache_hits_total%(only)s[5m]))
              + sum by (job, instance, namespace, cluster, tier) (increase(clerk_cache_misses_total%(only)s[5m]))
              > 0
            )
          )
          > %(cacheErrorRatio)s
        ||| % values,
        'for': '5m',
        keep_firing_for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A cache tier fails.',
          description: '{{ $value | humanizePercentage }} of the lookups in cache tier {{ $labels.tier }} of a gateway of job {{ $labels.job }} failed in the last 5 minutes. Requests it would have served use up the rate limit.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkCacheTierDown.md',
        },
      },
      {
        alert: 'ClerkRedisRefused',
        expr: 'max without (instance, pod) (clerk_redis_refused%(only)s) > 0' % values,
        'for': '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Redis refuses operations.',
          description: 'For 5 minutes Redis has refused operations of a gateway or exporter of job {{ $labels.job }}: {{ $labels.class }}. It works without them: the shared budget, the shared cache, other gateways\' invalidations, or the lease of the right to probe.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkRedisRefused.md',
        },
      },
      {
        alert: 'ClerkBudgetNotShared',
        expr: |||
          min without (instance, pod) (
            clerk_gateway_budget_shared%(only)s == 0
            and on (job, instance, namespace, cluster, clerk_instance)
            sum by (job, instance, namespace, cluster, clerk_instance) (increase(clerk_gateway_decisions_total%(only)s[5m])) > 0
          )
          == 0
        ||| % values,
        'for': '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Gateways do not share the rate limit.',
          description: 'Instance {{ $labels.clerk_instance }}: for 5 minutes a gateway of job {{ $labels.job }} could not share the limit over Redis. Each uses only its share, or all together more than the limit if gateways were added since.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkBudgetNotShared.md',
        },
      },
      {
        alert: 'ClerkWebhookSignatureFailures',
        expr: |||
          (
            sum without (instance, pod, type, result) (increase(clerk_webhook_events_total{%(first)sresult="bad_signature"}[15m])) >= %(webhookBadSignatures)s
          )
          / on (job, namespace, cluster) group_left ()
          (sum by (job, namespace, cluster) (increase(clerk_webhook_events_total%(only)s[15m])) > 0)
          > %(webhookBadSignatureRatio)s
        ||| % values,
        'for': '5m',
        keep_firing_for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Webhook signatures do not match.',
          description: '{{ $value | humanizePercentage }} of the webhooks received by job {{ $labels.job }} in the last 15 minutes had a wrong signature. If they are from Clerk, changed users stay cached until they expire.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-gateway?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkWebhookSignatureFailures.md',
        },
      },
    ],
  },
  {
    name: 'clerk-telemetry',
    rules: [
      {
        record: 'job:clerk_telemetry_calls:increase10m',
        expr: |||
          max without (instance, pod) (
            sum without (result) (increase(clerk_telemetry_spans_total{%(first)sresult=~"accepted|late|future|dropped"}[10m]))
          )
        ||| % values,
      },
      {
        record: 'job:clerk_telemetry_calls:stopped',
        expr: |||
          job:clerk_telemetry_calls:increase10m == 0
          and on (job, namespace, cluster)
          (
            job:clerk_telemetry_calls:stopped
            or
            (
              min_over_time(job:clerk_telemetry_calls:increase10m[1h] offset 10m) >= 20
              and on (job, namespace, cluster)
              (
                (
                  min_over_time(job:clerk_telemetry_calls:increase10m[1h] offset 10050m)
                  or min_over_time(job:clerk_telemetry_calls:increase10m[1h] offset 1410m)
                )
                > 0
              )
            )
          )
          and on (job, namespace, cluster) (max_over_time(job:clerk_telemetry_calls:increase10m[1d]) > 0)
        ||| % values,
      },
      {
        alert: 'ClerkTelemetryStopped',
        expr: 'job:clerk_telemetry_calls:stopped == 0' % values,
        'for': '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'No more traces of calls to Clerk arrive.',
          description: 'Job {{ $labels.job }}: for 15 minutes no span of a call to Clerk has arrived, after an hour with at least 20 in each 10 minutes, and unlike a week ago or yesterday at this time. The usage of instances that only traces show is not monitored.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkTelemetryStopped.md',
        },
      },
      {
        alert: 'ClerkTelemetrySpansLate',
        expr: |||
          max without (instance, pod) (
            sum without (result) (increase(clerk_telemetry_spans_total{%(first)sresult=~"late|future|dropped"}[5m]))
            / on (job, instance, namespace, cluster) group_left ()
            (
              sum by (job, instance, namespace, cluster) (
                increase(clerk_telemetry_spans_total{%(first)sresult=~"accepted|late|future|dropped"}[5m])
              )
              > 0
            )
          )
          > %(spansLateRatio)s
        ||| % values,
        'for': '10m',
        keep_firing_for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Traces of calls to Clerk arrive too late.',
          description: 'Job {{ $labels.job }}: {{ $value | humanizePercentage }} of the spans of calls to Clerk in the last 5 minutes missed their window (late, future or dropped). The usage of windows is hidden while it is more than 1 %; requests and 429s still count.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-overview?from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkTelemetrySpansLate.md',
        },
      },
    ],
  },
  {
    name: 'clerk-metered',
    interval: '5m',
    rules: [
      {
        record: 'job_instance_caller:clerk_metered_operations:recent5m',
        expr: |||
          (
            clerk_metered_operations_total%(only)s
            unless last_over_time(clerk_metered_operations_total%(only)s[1h] offset 5m)
            unless on (job, instance, namespace, cluster) (
              (time() - process_start_time_seconds%(only)s >= 300)
              unless on (job, instance, namespace, cluster) (clerk_ratelimit_low_threshold_ratio%(only)s offset 5m)
            )
          )
          or
          (
            clerk_metered_operations_total%(only)s
            and on (job, instance, namespace, cluster) (
              (time() - process_start_time_seconds%(only)s < 300 and time() - process_start_time_seconds%(only)s > -60)
              unless (abs(process_start_time_seconds%(only)s - process_start_time_seconds%(only)s offset 6m) < 1)
            )
          ) > increase(clerk_metered_operations_total%(only)s[5m])
          or
          increase(clerk_metered_operations_total%(only)s[5m])
        ||| % values,
      },
      {
        record: 'clerk_instance_caller:clerk_metered_operations:recent5m',
        expr: |||
          sum without (instance, pod) (
            job_instance_caller:clerk_metered_operations:recent5m{source!="telemetry"}
          )
          or
          max without (instance, pod) (
            job_instance_caller:clerk_metered_operations:recent5m{source="telemetry"}
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_caller:clerk_metered_operations:sum7d',
        expr: |||
          sum without (instance, pod) (
            sum_over_time(clerk_instance_caller:clerk_metered_operations:recent5m[7d:5m])
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_operation:clerk_metered_operations:rate7d',
        expr: |||
          sum without (instance, pod, caller, source) (clerk_instance_caller:clerk_metered_operations:sum7d) / 604800
        ||| % values,
      },
      {
        record: 'clerk_instance_operation:clerk_metered_month_operations:total',
        expr: |||
          sum without (instance, pod) (
            last_over_time(clerk_metered_month_operations%(only)s[10m])
            and on (job, instance, namespace, cluster, clerk_instance) last_over_time(clerk_gateway_queue_depth%(only)s[10m])
            unless on (job, instance, namespace, cluster, clerk_instance) last_over_time(clerk_gateway_budget_shared%(only)s[10m])
          )
          or
          max without (instance, pod) (last_over_time(clerk_metered_month_operations%(only)s[10m]))
        ||| % values,
      },
      {
        record: 'clerk_instance_operation:clerk_metered_month_operations:forecast',
        expr: |||
          clerk_instance_operation:clerk_metered_month_operations:total
          + on (job, namespace, cluster, clerk_instance, operation) group_left ()
          max by (job, namespace, cluster, clerk_instance, operation) (
            clerk_instance_operation:clerk_metered_operations:rate7d
            * on (job, namespace, cluster, clerk_instance) group_left ()
            max by (job, namespace, cluster, clerk_instance) (
              clamp_max(
                clamp_min(last_over_time(clerk_metered_month_end_timestamp_seconds%(only)s[10m]) - time(), 0),
                2678400
              )
            )
          )
          or
          clerk_instance_operation:clerk_metered_month_operations:total
          or
          2592000 * clerk_instance_operation:clerk_metered_operations:rate7d
          unless on (job, namespace, cluster, clerk_instance, operation)
          clerk_instance_operation:clerk_metered_month_operations:total
        ||| % values,
      },
      {
        record: 'clerk_instance_operation:clerk_metered_free_operations:left',
        expr: |||
          max by (job, namespace, cluster, clerk_instance, operation) (
            clamp_min(
              max by (job, namespace, cluster, clerk_instance, operation) (
                last_over_time(clerk_metered_free_operations%(only)s[10m])
              )
              - on (job, namespace, cluster, clerk_instance, operation)
              max by (job, namespace, cluster, clerk_instance, operation) (
                clerk_instance_operation:clerk_metered_month_operations:total
              ),
              0
            )
          )
        ||| % values,
      },
      {
        record: 'clerk_instance_operation:clerk_metered_free_operations:end_timestamp_seconds',
        expr: |||
          max by (job, namespace, cluster, clerk_instance, operation) (
            clerk_instance_operation:clerk_metered_free_operations:left
            / on (job, namespace, cluster, clerk_instance, operation)
            max by (job, namespace, cluster, clerk_instance, operation) (
              clerk_instance_operation:clerk_metered_operations:rate7d > 0
            )
            or
            clerk_instance_operation:clerk_metered_free_operations:left == 0
          )
          + time()
        ||| % values,
      },
      {
        alert: 'ClerkMeteredUsageNearFreeTier',
        expr: |||
          clerk_instance_operation:clerk_metered_month_operations:forecast
          > on (job, namespace, cluster, clerk_instance, operation) group_left ()
          max by (job, namespace, cluster, clerk_instance, operation) (
            last_over_time(clerk_metered_free_operations%(only)s[10m])
          )
        ||| % values,
        'for': '1h',
        keep_firing_for: '3h',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The free part of an operation that Clerk bills will not last for the month.',
          description: 'Instance {{ $labels.clerk_instance }}, operation {{ $labels.operation }}: at the rate of the last 7 days, it is used at most {{ $value | printf "%.0f" }} times in this billing month, more than the free part. Clerk bills the rest, or rejects it on the Hobby plan.',
          dashboard_url: '{{ $externalLabels.grafana_url }}/d/clerk-instance?var-clerk_instance={{ $labels.clerk_instance | urlquery }}&from={{ query "1000 * (time() - 1800)" | first | value | printf "%.0f" }}&to={{ query "1000 * (time() + 1800)" | first | value | printf "%.0f" }}',
          free_part_ends: '{{ $end := printf "clerk_instance_operation:clerk_metered_free_operations:end_timestamp_seconds{job=%q, namespace=%q, cluster=%q, clerk_instance=%q, operation=%q}" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance $labels.operation }}{{ with query (printf "%s <= time()" $end) }}it has ended{{ else }}{{ with query $end }}about {{ (. | first | value | toTime).Format "2006-01-02" }} (UTC){{ else }}unknown: the month so far is not kept. Set --storage.path, or gateway.cache.redis_url_file.{{ end }}{{ end }}',
          runbook_url: 'https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/ClerkMeteredUsageNearFreeTier.md',
          top_caller: '{{ $sum := printf "clerk_instance_caller:clerk_metered_operations:sum7d{job=%q, namespace=%q, cluster=%q, clerk_instance=%q, operation=%q} > 0" $labels.job $labels.namespace $labels.cluster $labels.clerk_instance $labels.operation }}{{ with query (printf "topk(1, sum by (caller) (%s) / scalar(sum(%s)))" $sum $sum) }}{{ with first . }}{{ .Labels.caller }} ({{ .Value | humanizePercentage }} of the operations seen in the last 7 days){{ end }}{{ else }}unknown: no operation was seen in the last 7 days.{{ end }}',
        },
      },
    ],
  },
]
