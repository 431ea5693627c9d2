{{/* Names and labels. Values may be missing (helm upgrade --reuse-values) or null: each section has a default. */}}

{{- define "clerk-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for "-gateway" behind it. Names of Services have no dots, unlike those of releases. */}}
{{- define "clerk-exporter.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if .Values.fullnameOverride }}
{{- $full = .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- $full = .Release.Name }}
{{- end }}
{{- $full | replace "." "-" | trunc 54 | trimSuffix "-" }}
{{- end }}

{{/* The scrape job. ClerkExporterDown knows an exporter that never came up by "clerk" in it. */}}
{{- define "clerk-exporter.job" -}}
{{- $fullname := include "clerk-exporter.fullname" . }}
{{- if contains "clerk" $fullname }}{{ $fullname }}{{ else }}{{ $fullname }}-clerk{{ end }}
{{- end }}

{{/* Takes (dict "root" $ "component" "exporter"). */}}
{{- define "clerk-exporter.workloadName" -}}
{{- $fullname := include "clerk-exporter.fullname" .root }}
{{- if eq .component "gateway" }}{{ $fullname }}-gateway{{ else }}{{ $fullname }}{{ end }}
{{- end }}

{{- define "clerk-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "clerk-exporter.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* part-of becomes the scrape job of exporter and gateway: one identity of alerts for a release. Takes labels, too; the
more special of two values of one label counts. */}}
{{- define "clerk-exporter.podLabels" -}}
{{- $own := include "clerk-exporter.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/part-of" (include "clerk-exporter.job" .root) }}
{{- merge $own (.labels | default dict) (.root.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{- define "clerk-exporter.labels" -}}
{{- $own := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $_ := set $own "helm.sh/chart" $chart }}
{{- merge $own (include "clerk-exporter.podLabels" . | fromYaml) | toYaml }}
{{- end }}

{{/* Name, labels and annotations of an object. Takes root, component, and optionally name, namespace, labels and
annotations. */}}
{{- define "clerk-exporter.metadata" -}}
name: {{ .name | default (include "clerk-exporter.workloadName" .) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "clerk-exporter.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "clerk-exporter.serviceAccountName" -}}
{{- $account := .Values.serviceAccount | default dict }}
{{- if ne ($account.create | toString) "false" }}
{{- default (include "clerk-exporter.fullname" .) $account.name }}
{{- else }}
{{- default "default" $account.name }}
{{- end }}
{{- end }}

{{- define "clerk-exporter.image" -}}
{{- $image := .Values.image | default dict }}
{{- $repository := required "image.repository is empty: name the registry and repository that you pushed the image to" $image.repository }}
{{- if $image.digest }}{{ $repository }}@{{ $image.digest }}{{ else }}{{ $repository }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}
