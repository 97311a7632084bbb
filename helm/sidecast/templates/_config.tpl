{{/* The settings as environment variables: text as it is, everything else as JSON, so that no number is rounded. */}}
{{- define "sidecast.environment" -}}
{{- $config := deepCopy .Values.config -}}
{{- if and .Values.agent.enabled (not (dig "agent" "url" "" $config)) -}}
{{- $_ := set $config "agent" (merge (dict "url" (printf "http://127.0.0.1:%d" (int .Values.agent.port))) ($config.agent | default dict)) -}}
{{- end -}}
{{- with $config.agents }}
SIDECAST_AGENTS: {{ toJson . | quote }}
{{- end }}
{{- range $section, $keys := omit $config "agents" }}
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ printf "SIDECAST_%s_%s" $section $key | upper }}: {{ (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sidecast.configChecksum" -}}
{{ include "sidecast.environment" . | sha256sum }}
{{- end -}}

{{/* Whether a setting is the path of a file. */}}
{{- define "sidecast.isFile" -}}
{{- if or (hasSuffix "_file" .) (has . (list "server.tls_certificate" "server.tls_key" "server.tls_client_ca")) }}yes{{ end -}}
{{- end -}}

{{- define "sidecast.volumeName" -}}
{{ printf "sidecast-%s" . | replace "." "-" | replace "_" "-" }}
{{- end -}}

{{/* The volumes of a pod with the container, as a list; empty without files. */}}
{{- define "sidecast.volumes" -}}
{{- range $setting, $secret := .Values.secretSettings }}
{{- if include "sidecast.isFile" $setting }}
- name: {{ include "sidecast.volumeName" $setting }}
  secret:
    secretName: {{ $secret.name }}
    items:
      - key: {{ $secret.key }}
        path: value
{{- end }}
{{- end }}
{{- end -}}
