{{/*
The container, for all ways to attach it: an entry of initContainers (a native sidecar), or, with `gateway`,
of containers. From another chart: include "sidecast.sidecar" .Subcharts.sidecast
*/}}
{{- define "sidecast.sidecar" -}}
{{ include "sidecast.container" . }}
  restartPolicy: Always
{{- end -}}

{{- define "sidecast.container" -}}
{{- $internal := int .Values.config.server.internal_port -}}
- name: sidecast-broker
  image: {{ include "sidecast.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sidecast]
  args: [serve]
  envFrom:
    - configMapRef:
        name: {{ include "sidecast.fullname" . }}
  {{- if or .Values.secretSettings .Values.drain.tokenSecret.name }}
  env:
    {{- range $setting, $secret := .Values.secretSettings }}
    - name: {{ printf "SIDECAST_%s" $setting | replace "." "_" | upper }}
      {{- if include "sidecast.isFile" $setting }}
      value: /etc/sidecast/{{ $setting }}/value
      {{- else }}
      valueFrom:
        secretKeyRef:
          name: {{ $secret.name }}
          key: {{ $secret.key }}
      {{- end }}
    {{- end }}
    {{- with .Values.drain.tokenSecret }}
    {{- if .name }}
    - name: SIDECAST_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ .name }}
          key: {{ .key }}
    {{- end }}
    {{- end }}
  {{- end }}
  ports:
    - name: sidecast
      containerPort: {{ int .Values.config.server.port }}
      protocol: TCP
    - name: sidecast-int
      containerPort: {{ $internal }}
      protocol: TCP
  # Of the listener only: NATS away must not take the agent out of its Service.
  startupProbe:
    httpGet: {path: /livez, port: {{ $internal }}}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /livez, port: {{ $internal }}}
    periodSeconds: 10
    timeoutSeconds: 5
  readinessProbe:
    httpGet: {path: /readyz, port: {{ $internal }}}
    periodSeconds: 5
    timeoutSeconds: 5
  {{- if .Values.drain.tokenSecret.name }}
  lifecycle:
    preStop:
      exec:
        command: [sidecast, drain, --url, "http://127.0.0.1:{{ $internal }}"]
  {{- end }}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    privileged: false
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  {{- $mounts := list }}
  {{- range $setting, $_ := .Values.secretSettings }}
  {{- if include "sidecast.isFile" $setting }}
  {{- $mounts = append $mounts (dict "name" (include "sidecast.volumeName" $setting) "mountPath" (printf "/etc/sidecast/%s" $setting) "readOnly" true) }}
  {{- end }}
  {{- end }}
  {{- with $mounts }}
  volumeMounts: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* What a pod of ours has beside its containers; `root` and `grace_s`, the agent's share of the grace period. */}}
{{- define "sidecast.podSettings" -}}
{{- $drain := dig "stream" "drain_s" 5.0 .root.Values.config | default 0 | float64 | ceil | int -}}
automountServiceAccountToken: false
# Kubernetes would tell the pod about every Service in SIDECAST_ variables, too.
enableServiceLinks: false
# {{ .grace_s }} for the agent + {{ $drain }} to drain (config.stream.drain_s) + 15 for last frames and closing
terminationGracePeriodSeconds: {{ add (int .grace_s) $drain 15 }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
