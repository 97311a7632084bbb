{{- define "sidecast.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters, so that what is put behind it stays below 63. */}}
{{- define "sidecast.fullname" -}}
{{- $name := include "sidecast.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidecast.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sidecast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sidecast.labels" -}}
{{ include "sidecast.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sidecast
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The pods that hold the broker. */}}
{{- define "sidecast.podSelector" -}}
{{- if or .Values.agent.enabled .Values.gateway.enabled -}}
{{ include "sidecast.selectorLabels" . }}
app.kubernetes.io/component: {{ ternary "gateway" "agent" .Values.gateway.enabled }}
{{- else -}}
{{ .Values.podSelector | default (dict "sidecast.dev/inject" "true") | toYaml }}
{{- end -}}
{{- end -}}

{{- define "sidecast.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}
