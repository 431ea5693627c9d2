{{/* The configuration files of both workloads, from one list of instances. */}}

{{- define "clerk-exporter.hasRedis" -}}
{{- $redis := .Values.redis | default dict }}
{{- if or $redis.url $redis.urlFile }}true{{ end }}
{{- end }}

{{/* A number and its default: 0 is a number, too. */}}
{{- define "clerk-exporter.number" -}}
{{- if kindIs "invalid" (first .) }}{{ last . }}{{ else }}{{ first . | int }}{{ end }}
{{- end }}

{{- define "clerk-exporter.exporterReplicas" -}}
{{- include "clerk-exporter.number" (list ($.Values.exporter | default dict).replicas 1) }}
{{- end }}

{{/* The largest number of gateways. */}}
{{- define "clerk-exporter.gatewayReplicas" -}}
{{- $gateway := .Values.gateway | default dict }}
{{- $autoscaling := $gateway.autoscaling | default dict }}
{{- if $autoscaling.enabled }}{{ include "clerk-exporter.number" (list $autoscaling.maxReplicas 4) }}{{ else }}{{ include "clerk-exporter.number" (list $gateway.replicas 2) }}{{ end }}
{{- end }}

{{/* Of the workload that asks: exporter or gateway. */}}
{{- define "clerk-exporter.several" -}}
{{- $replicas := ternary (include "clerk-exporter.gatewayReplicas" .root) (include "clerk-exporter.exporterReplicas" .root) (eq .component "gateway") }}
{{- if gt ($replicas | int) 1 }}true{{ end }}
{{- end }}

{{/* How names in Redis begin: of this release only, unless the values say otherwise; at most 128 characters. */}}
{{- define "clerk-exporter.redisPrefix" -}}
{{- $prefix := (.Values.redis | default dict).prefix }}
{{- if kindIs "invalid" $prefix }}
{{- $prefix = printf "clerk-exporter:%s/%s:" .Release.Namespace .Release.Name }}
{{- if gt (len $prefix) 128 }}
{{- $prefix = printf "clerk-exporter:%s:" (sha256sum $prefix | trunc 32) }}
{{- end }}
{{- end }}
{{- $prefix }}
{{- end }}

{{/* Where Redis is. */}}
{{- define "clerk-exporter.redisKeys" -}}
{{- $redis := .Values.redis | default dict }}
{{- if or $redis.url $redis.urlFile }}
redis_url_file: {{ $redis.urlFile | default "/etc/clerk-exporter/redis-url" }}
{{- with include "clerk-exporter.redisPrefix" . }}
redis_prefix: {{ . | quote }}
{{- end }}
{{- with $redis.passwordFile }}
redis_password_file: {{ . }}
{{- end }}
{{- with $redis.passwordCommand }}
redis_password_command: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value without what is null in it, at any depth, as the JSON of {"value": ...}: null removes a key that another file
of values has. */}}
{{- define "clerk-exporter.cleaned" -}}
{{- $clean := . }}
{{- if kindIs "map" . }}
{{- $clean = dict }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $clean $key (include "clerk-exporter.cleaned" $value | fromJson).value }}
{{- end }}
{{- end }}
{{- else if kindIs "slice" . }}
{{- $clean = list }}
{{- range $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- $clean = append $clean (include "clerk-exporter.cleaned" $value | fromJson).value }}
{{- end }}
{{- end }}
{{- end }}
{{- dict "value" $clean | toJson }}
{{- end }}

{{/* A section without what is null in it, as YAML. */}}
{{- define "clerk-exporter.withoutNull" -}}
{{- (include "clerk-exporter.cleaned" (. | default dict) | fromJson).value | toYaml }}
{{- end }}

{{/* The configuration file of the exporter. */}}
{{- define "clerk-exporter.exporterConfig" -}}
{{- $config := include "clerk-exporter.withoutNull" .Values.config | fromYaml }}
{{- $config = mergeOverwrite $config (include "clerk-exporter.redisKeys" . | fromYaml) }}
{{- if include "clerk-exporter.several" (dict "root" . "component" "exporter") }}
{{- $lease := ($.Values.exporter | default dict).lease | default "15s" }}
{{- $_ := set $config "probe" (merge (dict "lease" $lease) ($config.probe | default dict)) }}
{{- end }}
{{- if $config.telemetry }}
{{- $address := $config.telemetry.listen_address | default (include "clerk-exporter.tracesAddress" .) }}
{{- $_ := set $config.telemetry "listen_address" $address }}
{{- end }}
{{- $_ := set $config "instances" (include "clerk-exporter.cleaned" .Values.instances | fromJson).value }}
{{- toYaml $config }}
{{- end }}

{{/* The configuration file of the gateway: it counts no users, receives no traces, and never probes. */}}
{{- define "clerk-exporter.gatewayConfig" -}}
{{- $gateway := .Values.gateway | default dict }}
{{- $config := omit (include "clerk-exporter.withoutNull" .Values.config | fromYaml) "probe" "users" "telemetry" }}
{{- $config = mergeOverwrite $config (include "clerk-exporter.redisKeys" . | fromYaml) }}
{{- $_ := set $config "probe" (dict "when" "never") }}
{{- $instances := list }}
{{- range (include "clerk-exporter.cleaned" .Values.instances | fromJson).value }}
{{- $instances = append $instances (omit . "probe" "users") }}
{{- end }}
{{- $_ := set $config "instances" $instances }}
{{- $section := merge (dict "listen_address" ":10430") (include "clerk-exporter.withoutNull" $gateway.config | fromYaml) }}
{{- if ($gateway.tls | default dict).secretName }}
{{- $_ := set $section "web_config_file" "/etc/clerk-exporter/gateway-web.yml" }}
{{- else }}
{{- $_ := set $section "allow_clear_text" true }}
{{- end }}
{{- $_ := set $config "gateway" $section }}
{{- toYaml $config }}
{{- end }}

{{/* A web configuration with the certificate of a Secret. */}}
{{- define "clerk-exporter.webConfig" -}}
tls_server_config:
  cert_file: /run/secrets/clerk/{{ . }}/tls.crt
  key_file: /run/secrets/clerk/{{ . }}/tls.key
{{- end }}

{{/* The files of the ConfigMap of a workload. */}}
{{- define "clerk-exporter.files" -}}
{{- $redis := .root.Values.redis | default dict }}
{{- $web := .root.Values.web | default dict }}
clerk-exporter.yml: |
  {{- include (printf "clerk-exporter.%sConfig" .component) .root | nindent 2 }}
{{- if and $redis.url (not $redis.urlFile) }}
redis-url: {{ $redis.url | quote }}
{{- end }}
{{- with and (not $web.configFile) ($web.tls | default dict).secretName }}
web.yml: |
  {{- include "clerk-exporter.webConfig" . | nindent 2 }}
{{- end }}
{{- if eq .component "gateway" }}
{{- with ((.root.Values.gateway | default dict).tls | default dict).secretName }}
gateway-web.yml: |
  {{- include "clerk-exporter.webConfig" . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* A name for each content: pods of an earlier version keep the files that they were started with. */}}
{{- define "clerk-exporter.configName" -}}
{{- printf "%s-%s" (include "clerk-exporter.workloadName" .) (include "clerk-exporter.files" . | sha256sum | trunc 10) }}
{{- end }}

{{/* Arguments of the program. */}}
{{- define "clerk-exporter.arguments" -}}
{{- $workload := get .root.Values .component | default dict }}
{{- $web := .root.Values.web | default dict }}
{{- $log := .root.Values.log | default dict }}
- --config.file=/etc/clerk-exporter/clerk-exporter.yml
- --storage.path=/var/lib/clerk-exporter
- --web.listen-address=:10429
- --web.shutdown-delay={{ include "clerk-exporter.shutdownDelay" . }}s
{{- if $web.configFile }}
- --web.config.file={{ $web.configFile }}
{{- else if ($web.tls | default dict).secretName }}
- --web.config.file=/etc/clerk-exporter/web.yml
{{- end }}
- --log.level={{ $log.level | default "info" }}
- --log.format={{ $log.format | default "json" }}
{{- with $workload.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "clerk-exporter.shutdownDelay" -}}
{{- $workload := get .root.Values .component | default dict }}
{{- include "clerk-exporter.number" (list $workload.shutdownDelaySeconds (ternary 15 8 (eq .component "gateway"))) }}
{{- end }}

{{/* Paths of Secrets that the files and arguments of a workload name, as JSON of a list. */}}
{{- define "clerk-exporter.secretPaths" -}}
{{- $text := printf "%s\n%s" (include "clerk-exporter.files" .) (include "clerk-exporter.arguments" .) }}
{{- with ((.root.Values.web | default dict).tls | default dict).secretName }}
{{- $text = printf "%s\n%s" $text (include "clerk-exporter.webConfig" .) }}
{{- end }}
{{- regexFindAll "/run/secrets/clerk/[^\\s\"',\\[\\]{}]*" $text -1 | uniq | sortAlpha | toJson }}
{{- end }}

{{/* The entries of Secrets, as the sources of one volume. */}}
{{- define "clerk-exporter.secretSources" -}}
{{- range include "clerk-exporter.secretPaths" . | fromJsonArray }}
{{- $parts := splitList "/" . }}
- secret:
    name: {{ index $parts 4 | quote }}
    items:
      - key: {{ index $parts 5 | quote }}
        path: {{ printf "%s/%s" (index $parts 4) (index $parts 5) | quote }}
{{- end }}
{{- end }}
