{{/* What the schema cannot say. Each message says what to do. */}}
{{- define "clerk-exporter.checks" -}}
{{- $gateway := .Values.gateway | default dict }}
{{- $exporter := .Values.exporter | default dict }}
{{- $redis := .Values.redis | default dict }}
{{- $network := .Values.networkPolicy | default dict }}
{{- $policy := "a path such as /run/secrets/clerk/SECRET/ENTRY names the entry of an existing Secret" }}
{{- if not .Values.instances }}
{{- fail (printf "instances is empty: list the Clerk instances, each with name and secret_key_file; %s" $policy) }}
{{- end }}
{{- /* Also in base64, as in a Secret of extraObjects. */}}
{{- if regexMatch "((sk_(live|test)_|whsec_|\\bak_)|c2tf(bGl2ZV|dGVzdF)|d2hzZWNf)[A-Za-z0-9+/=]{8}" (toJson .Values) }}
{{- fail (printf "a value looks like a key of Clerk, and values are stored in clear text: put it into a Secret; %s" $policy) }}
{{- end }}
{{- range .Values.instances }}
{{- if not (kindIs "map" .) }}
{{- fail "instances: each entry needs name and secret_key_file" }}
{{- end }}
{{- if not (and .name .secret_key_file) }}
{{- fail (printf "instances: an entry lacks name or secret_key_file; %s" $policy) }}
{{- end }}
{{- if or (hasKey . "secret_key") (hasKey . "secret_key_env") }}
{{- fail (printf "instances: secret_key and secret_key_env are not for a chart: use secret_key_file; %s" $policy) }}
{{- end }}
{{- end }}
{{- $names := list }}
{{- range .Values.instances }}
{{- if has .name $names }}
{{- fail (printf "instances: the name %q exists twice: each needs its own" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- $config := .Values.config | default dict }}
{{- range $place := prepend .Values.instances $config }}
{{- with $place.probe }}
{{- if not (kindIs "map" .) }}
{{- fail "probe, in config or an instance, has to be a section with keys, or null" }}
{{- end }}
{{- if not (kindIs "invalid" .lease) }}
{{- fail "probe.lease, in config or an instance, is written by the chart: use exporter.lease" }}
{{- end }}
{{- end }}
{{- end }}
{{- if not (or (kindIs "invalid" $config.telemetry) (kindIs "map" $config.telemetry)) }}
{{- fail "config.telemetry has to be a section with keys, or null" }}
{{- end }}
{{- if kindIs "map" $config.probe }}
{{- if eq (toString $config.probe.when) "never" }}
{{- fail "config.probe.when=never: the exporter would report nothing. The chart writes it for the gateways; remove it" }}
{{- end }}
{{- end }}
{{- with $exporter.lease }}
{{- $milliseconds := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $number := regexFind "^[0-9]+" . }}
{{- $factor := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (trimPrefix $number .) }}
{{- $milliseconds = add $milliseconds (mul (int64 $number) $factor) }}
{{- end }}
{{- if or (lt $milliseconds 5000) (gt $milliseconds 300000) }}
{{- fail (printf "exporter.lease is %s: use 5s to 5m" .) }}
{{- end }}
{{- end }}
{{- range $key := list "instances" "gateway" "redis_url_file" "redis_password_file" "redis_password_command" }}
{{- if hasKey ($.Values.config | default dict) $key }}
{{- fail (printf "config.%s is written by the chart: use the values of the same name at the top" $key) }}
{{- end }}
{{- end }}
{{- if hasKey $config "redis_prefix" }}
{{- fail "config.redis_prefix is written by the chart: use redis.prefix" }}
{{- end }}
{{- if regexMatch "(?s)://.*:.*@|(?i)[?&][a-z_]*pass(word)?=" (toString $redis.url) }}
{{- fail (printf "redis.url contains a password: use redis.passwordFile or redis.urlFile; %s" $policy) }}
{{- end }}
{{- if and $redis.url $redis.urlFile }}
{{- fail "redis.url and redis.urlFile are both set: keep one" }}
{{- end }}
{{- if and $redis.passwordFile $redis.passwordCommand }}
{{- fail "redis.passwordFile and redis.passwordCommand are both set: keep one" }}
{{- end }}
{{- if and (or $redis.passwordFile $redis.passwordCommand) (not (or $redis.url $redis.urlFile)) }}
{{- fail "redis.passwordFile or redis.passwordCommand without a Redis: set redis.url or redis.urlFile, or remove it" }}
{{- end }}
{{- $labels := dict "commonLabels" $.Values.commonLabels }}
{{- range $section := list "exporter" "gateway" }}
{{- $workload := get $.Values $section | default dict }}
{{- $_ := set $labels (printf "%s.podLabels" $section) $workload.podLabels }}
{{- $_ := set $labels (printf "%s.service.labels" $section) ($workload.service | default dict).labels }}
{{- end }}
{{- range $section := list "serviceMonitor" "prometheusRule" "dashboards" }}
{{- $_ := set $labels (printf "%s.labels" $section) (get $.Values $section | default dict).labels }}
{{- end }}
{{- range $where, $given := $labels }}
{{- range $name := keys ($given | default dict) }}
{{- if or (hasPrefix "app.kubernetes.io/" $name) (eq $name "helm.sh/chart") }}
{{- fail (printf "%s: the chart sets the label %s itself, and selectors and the scrape job go by such labels: use another one" $where $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $hasRedis := include "clerk-exporter.hasRedis" . }}
{{- if and (include "clerk-exporter.several" (dict "root" . "component" "exporter")) (not $hasRedis) }}
{{- fail "exporter.replicas is above 1 and there is no Redis: each replica would probe, and report the same windows. Set redis.url or redis.urlFile, or exporter.replicas=1" }}
{{- end }}
{{- if kindIs "map" $config.telemetry }}
{{- if not $config.telemetry.web_config_file }}
{{- fail (printf "config.telemetry listens for other pods: set config.telemetry.web_config_file to a web configuration with passwords or client certificates; %s" $policy) }}
{{- end }}
{{- if include "clerk-exporter.several" (dict "root" . "component" "exporter") }}
{{- fail "config.telemetry with exporter.replicas above 1: a Service in front of several receivers would split the traces, and each would see a part. Set exporter.replicas=1" }}
{{- end }}
{{- end }}
{{- if $gateway.enabled }}
{{- $tls := ($gateway.tls | default dict).secretName }}
{{- if not (or $tls $gateway.allowClearText) }}
{{- fail "the gateway receives Clerk keys: set gateway.tls.secretName to a Secret of type kubernetes.io/tls, or gateway.allowClearText=true if something else, such as a service mesh, encrypts" }}
{{- end }}
{{- if and $tls $gateway.allowClearText }}
{{- fail "gateway.tls.secretName and gateway.allowClearText are both set: keep one" }}
{{- end }}
{{- $own := $gateway.config | default dict }}
{{- range $key := list "listen_address" "web_config_file" "allow_clear_text" }}
{{- if hasKey $own $key }}
{{- fail (printf "gateway.config.%s is written by the chart: use gateway.tls or gateway.allowClearText" $key) }}
{{- end }}
{{- end }}
{{- range $key := list "cache" "webhooks" }}
{{- $section := get $own $key }}
{{- if and (hasKey $own $key) (not (kindIs "invalid" $section)) (not (kindIs "map" $section)) }}
{{- fail (printf "gateway.config.%s has to be a section with keys, or null" $key) }}
{{- end }}
{{- end }}
{{- $places := dict "redis_url_file" "urlFile" "redis_password_file" "passwordFile" "redis_password_command" "passwordCommand" "redis_prefix" "prefix" }}
{{- range $key, $value := $places }}
{{- if hasKey ($own.cache | default dict) $key }}
{{- fail (printf "gateway.config.cache.%s: use redis.%s, which exporter and gateway share" $key $value) }}
{{- end }}
{{- end }}
{{- $autoscaling := $gateway.autoscaling | default dict }}
{{- if $autoscaling.enabled }}
{{- $least := include "clerk-exporter.number" (list $autoscaling.minReplicas 2) | int }}
{{- $most := include "clerk-exporter.gatewayReplicas" . | int }}
{{- if gt $least $most }}
{{- fail (printf "gateway.autoscaling: minReplicas, %d, is above maxReplicas, %d" $least $most) }}
{{- end }}
{{- end }}
{{- if and (include "clerk-exporter.several" (dict "root" . "component" "gateway")) (not $hasRedis) }}
{{- fail "several gateways and no Redis: each would use up the whole limit. Set redis.url or redis.urlFile, or gateway.replicas=1 without autoscaling" }}
{{- end }}
{{- if and $own.sole (include "clerk-exporter.several" (dict "root" . "component" "gateway")) }}
{{- fail "gateway.config.sole says that there is one gateway: remove it, or set gateway.replicas=1 without autoscaling" }}
{{- end }}
{{- if ($gateway.ingress | default dict).enabled }}
{{- if not ($own.webhooks | default dict).signing_secret_files }}
{{- fail "gateway.ingress is for Clerk's webhooks: set gateway.config.webhooks.signing_secret_files" }}
{{- end }}
{{- if not ($gateway.ingress | default dict).host }}
{{- fail "gateway.ingress.host is empty: set the host name that Clerk sends webhooks to" }}
{{- end }}
{{- if and $network.enabled (not $network.ingressController) }}
{{- fail "gateway.ingress with networkPolicy: list the pods of your ingress controller in networkPolicy.ingressController, or webhooks are blocked" }}
{{- end }}
{{- end }}
{{- end }}
{{- range ($network.dns | default dict).presets }}
{{- if not (has . (list "kube-dns" "coredns" "openshift" "node-local")) }}
{{- fail (printf "networkPolicy.dns.presets: %q is none of kube-dns, coredns, openshift, node-local; use networkPolicy.dns.to" (toString .)) }}
{{- end }}
{{- end }}
{{- range $component := ternary (list "exporter" "gateway") (list "exporter") (eq (toString $gateway.enabled) "true") }}
{{- range include "clerk-exporter.secretPaths" (dict "root" $ "component" $component) | fromJsonArray }}
{{- if not (regexMatch "^/run/secrets/clerk/[a-z0-9.-]+/[a-zA-Z0-9._-]+$" .) }}
{{- fail (printf "%s is no path of an entry of a Secret: %s" . $policy) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
