{{/*
The container, for all ways to attach it: an entry of initContainers (a native sidecar), or, with `gateway`,
of containers. From another chart: include "sidecast.sidecar" .Subcharts.sidecast
*/}}
{{- define "sidecast.sidecar" -}}
{{ include "sidecast.container" . }}
  restartPolicy: Always
{{- end -}}

{{- define "sidecast.container" -}}
{{- $probe := int .Values.config.server.probe_port -}}
{{- $captor := and (not .Values.gateway.enabled) (eq (dig "agent" "capture" "adapter" .Values.config) "proxy") -}}
- name: sidecast-broker
  image: {{ include "sidecast.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sidecast]
  args: [serve]
  envFrom:
    - configMapRef:
        name: {{ include "sidecast.fullname" . }}
  {{- if or .Values.secretSettings .Values.env }}
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
    {{- with .Values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - name: sidecast
      containerPort: {{ int .Values.config.server.port }}
      protocol: TCP
    - name: sidecast-probe
      containerPort: {{ $probe }}
      protocol: TCP
  # Of the listener only: NATS away must not take the agent out of its Service.
  startupProbe:
    httpGet: {path: /livez, port: {{ $probe }}}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /livez, port: {{ $probe }}}
    periodSeconds: 10
    timeoutSeconds: 5
  readinessProbe:
    httpGet: {path: /readyz, port: {{ $probe }}}
    periodSeconds: 5
    timeoutSeconds: 5
  {{- if and .Values.drain.preStop (not $captor) }}
  lifecycle:
    preStop:
      exec:
        command: [sidecast, drain, --local]
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

{{/* Seconds the broker needs after the agent has ended. */}}
{{- define "sidecast.grace_s" -}}
{{- dig "stream" "drain_s" 5.0 .Values.config | default 0 | float64 | ceil | int | add 15 -}}
{{- end -}}

{{/* What a pod of ours has beside its containers; `root` and `grace_s`, the agent's share of the grace period. */}}
{{- define "sidecast.podSettings" -}}
{{- $broker := include "sidecast.grace_s" .root | int -}}
automountServiceAccountToken: false
# Kubernetes would tell the pod about every Service in SIDECAST_ variables, too.
enableServiceLinks: false
# {{ .grace_s }} for the agent + {{ sub $broker 15 }} to drain (config.stream.drain_s) + 15 for last frames and closing
terminationGracePeriodSeconds: {{ add (int .grace_s) $broker }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What is put into pods that others make, as a template of a pod; `containers` is left to what needs one. */}}
{{- define "sidecast.podTemplate" -}}
metadata:
  labels: {{- include "sidecast.podSelector" . | nindent 4 }}
  annotations:
    sidecast.dev/status: injected
spec:
  # The broker's share, after the agent: to drain (config.stream.drain_s, rounded up) + 15 for last frames and closing
  terminationGracePeriodSeconds: {{ include "sidecast.grace_s" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  initContainers:
    {{- include "sidecast.sidecar" . | nindent 4 }}
  {{- with include "sidecast.volumes" . | fromYamlArray }}
  volumes: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
