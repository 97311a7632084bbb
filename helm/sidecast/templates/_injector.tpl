{{- define "sidecast.injectorName" -}}
{{ include "sidecast.fullname" . }}-injector
{{- end -}}

{{- define "sidecast.injectorLabels" -}}
{{ include "sidecast.selectorLabels" . }}
app.kubernetes.io/component: injector
{{- end -}}

{{/* The namespaces of pods with the broker, as a list: "" is the release's, where nothing needs to name it. */}}
{{- define "sidecast.namespaces" -}}
{{ ternary .Values.inject.namespaces (list "") (eq .Values.inject.method "webhook") | toYaml }}
{{- end -}}

{{/* What the injector puts into which pods: the same container as everywhere. */}}
{{- define "sidecast.injection" -}}
{{- dict "namespaces" .Values.inject.namespaces "template" (include "sidecast.podTemplate" . | fromYaml) | toJson -}}
{{- end -}}

{{- define "sidecast.injectorChecks" -}}
{{- $v := .Values -}}
{{- $webhook := $v.inject.webhook -}}
{{- if eq $v.inject.method "webhook" -}}
{{- range $name := list "agent" "gateway" "ingress" "httpRoute" "virtualService" }}
{{- if (get $v $name).enabled }}{{ fail (printf "%s.enabled: not together with inject.method=webhook, whose pods are in other namespaces; make two releases" $name) }}{{ end -}}
{{- end -}}
{{- if not $v.inject.namespaces }}{{ fail "inject.namespaces: is needed by inject.method=webhook: where the agents are" }}{{ end -}}
{{- range $v.inject.namespaces }}
{{- if not (kindIs "string" .) }}{{ fail "inject.namespaces: must be names" }}{{ end -}}
{{- if has . (list "kube-system" $.Release.Namespace) }}{{ fail (printf "inject.namespaces: %s is left alone: its pods must start without the injector; install the release in a namespace of its own" .) }}{{ end -}}
{{- end -}}
{{- if ne (len $v.inject.namespaces) (len (uniq $v.inject.namespaces)) }}{{ fail "inject.namespaces: names one twice" }}{{ end -}}
{{- if lt (int $webhook.port) 1024 }}{{ fail "inject.webhook.port: must be 1024 or higher, for an unprivileged user" }}{{ end -}}
{{- if eq (int $webhook.port) (int $v.config.server.probe_port) }}{{ fail "inject.webhook.port: must differ from config.server.probe_port" }}{{ end -}}
{{- with $webhook.certificate }}
{{- if eq .source "secret" }}
{{- if not .secret }}{{ fail "inject.webhook.certificate.secret: is needed by source=secret" }}{{ end -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" .caBundle) }}{{ fail "inject.webhook.certificate.caBundle: is needed by source=secret, as PEM" }}{{ end -}}
{{- else if or .secret .caBundle }}{{ fail "inject.webhook.certificate.source: must be secret where secret or caBundle is given" }}{{ end -}}
{{- if and (eq .source "cert-manager") (not ($.Capabilities.APIVersions.Has "cert-manager.io/v1/Certificate")) }}{{ fail "inject.webhook.certificate.source: the cluster does not serve cert-manager.io/v1/Certificate (to render without one: --api-versions)" }}{{ end -}}
{{- end -}}
{{- else if $v.inject.namespaces }}{{ fail "inject.namespaces: needs inject.method=webhook" }}{{ end -}}
{{- end -}}
