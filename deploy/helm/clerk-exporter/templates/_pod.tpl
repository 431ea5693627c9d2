{{/* The pod template of a workload. Takes root and component. */}}
{{- define "clerk-exporter.pod" -}}
{{- $root := .root }}
{{- $workload := get .root.Values .component | default dict }}
{{- $web := .root.Values.web | default dict }}
{{- $image := .root.Values.image | default dict }}
{{- $scheme := ternary "HTTPS" "HTTP" (not (empty ($web.tls | default dict).secretName)) }}
metadata:
  labels:
    {{- include "clerk-exporter.podLabels" (merge (dict "labels" $workload.podLabels) .) | nindent 4 }}
  {{- with merge (dict) ($workload.podAnnotations | default dict) (.root.Values.commonAnnotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "clerk-exporter.serviceAccountName" .root }}
  automountServiceAccountToken: false
  # Variables of Services, such as CLERK_EXPORTER_PORT, would have the prefix of the flags' variables.
  enableServiceLinks: false
  {{- with $image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $workload.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- $workload.podSecurityContext | default (include "clerk-exporter.podSecurity" . | fromYaml) | toYaml | nindent 4 }}
  # The delay, 10 s for requests in flight, and 10 s to spare. No preStop hook: during the delay the program says "not
  # ready" and asks clients to reconnect, which a sleep would not.
  terminationGracePeriodSeconds: {{ add (include "clerk-exporter.shutdownDelay" . | int) 20 }}
  containers:
    - name: {{ .component }}
      image: {{ include "clerk-exporter.image" .root | quote }}
      imagePullPolicy: {{ $image.pullPolicy | default "IfNotPresent" }}
      args:
        {{- include "clerk-exporter.arguments" . | trim | nindent 8 }}
      {{- with $workload.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http-metrics
          containerPort: 10429
          protocol: TCP
        {{- if eq .component "gateway" }}
        - name: gateway
          containerPort: 10430
          protocol: TCP
        {{- else if include "clerk-exporter.tracesPort" .root }}
        - name: otlp-http
          containerPort: {{ include "clerk-exporter.tracesPort" .root }}
          protocol: TCP
        {{- end }}
      # Neither path needs a password. The kubelet has no client certificate: where one is required, set a tcpSocket.
      livenessProbe:
        {{- include "clerk-exporter.probe" (dict "path" "/-/healthy" "scheme" $scheme "probe" $workload.livenessProbe) | nindent 8 }}
      readinessProbe:
        {{- include "clerk-exporter.probe" (dict "path" "/-/ready" "scheme" $scheme "probe" $workload.readinessProbe) | nindent 8 }}
      {{- with $workload.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- $workload.securityContext | default (include "clerk-exporter.containerSecurity" . | fromYaml) | toYaml | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/clerk-exporter
          readOnly: true
        - name: secrets
          mountPath: /run/secrets/clerk
          readOnly: true
        - name: state
          mountPath: /var/lib/clerk-exporter
        {{- with $workload.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "clerk-exporter.configName" . }}
    # Files, not variables: a changed Secret reaches the running program, and the environment does not show it.
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- include "clerk-exporter.secretSources" . | trim | nindent 10 }}
    # The last window's requests, for a container that starts again.
    - name: state
      emptyDir:
        sizeLimit: {{ $workload.stateSizeLimit | default "64Mi" }}
    {{- with $workload.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $workload.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $workload.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $workload.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $workload.topologySpreadConstraints }}
    {{- toYaml $workload.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      # A cluster of one node can run two replicas, too.
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "clerk-exporter.selectorLabels" $ | nindent 10 }}
      # Of one rollout: old pods that are about to end do not count.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
    {{- end }}
{{- end }}

{{/* The port for traces, if there is one. */}}
{{- define "clerk-exporter.tracesPort" -}}
{{- with (.Values.config | default dict).telemetry }}
{{- regexFind "[0-9]+$" (.listen_address | default (include "clerk-exporter.tracesAddress" .)) }}
{{- end }}
{{- end }}

{{/* The program's default cannot be reached from other pods. */}}
{{- define "clerk-exporter.tracesAddress" -}}
:4318
{{- end }}

{{/* How many pods of a budget may be away at once: 0 is a number, too. */}}
{{- define "clerk-exporter.maxUnavailable" -}}
{{- if kindIs "invalid" .maxUnavailable }}1{{ else }}{{ toYaml .maxUnavailable }}{{ end }}
{{- end }}

{{/* A probe of a path, or another kind of probe from the values. */}}
{{- define "clerk-exporter.probe" -}}
{{- $probe := .probe | default dict }}
{{- if not (or $probe.httpGet $probe.tcpSocket $probe.exec $probe.grpc) }}
{{- $probe = merge (dict "httpGet" (dict "path" .path "port" "http-metrics" "scheme" .scheme)) $probe }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{/* Where the values of an earlier version lack the section. */}}
{{- define "clerk-exporter.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "clerk-exporter.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
