{{/* What no schema can see: every refusal begins with the value's name. */}}
{{- define "sidecast.checks" -}}
{{- $v := .Values -}}
{{- $server := $v.config.server -}}
{{- if and $v.agent.enabled $v.gateway.enabled }}{{ fail "gateway.enabled: not together with agent.enabled; make two releases" }}{{ end -}}
{{- if and $v.agent.enabled (not $v.agent.image) }}{{ fail "agent.image: is needed by agent.enabled" }}{{ end -}}
{{- range $key := list "host" "probe_host" }}
{{- $host := get $server $key | toString }}
{{- if or (hasPrefix "127." $host) (has $host (list "" "localhost" "::1" "<nil>")) }}{{ fail (printf "config.server.%s: nobody reaches %q from outside the pod, the kubelet's probes neither" $key $host) }}{{ end -}}
{{- end -}}
{{- if or (eq (int $server.port) (int $server.probe_port)) (eq (int $server.internal_port) (int $server.probe_port)) }}{{ fail "config.server.probe_port: must differ from config.server.port and config.server.internal_port" }}{{ end -}}
{{- if eq (int $server.port) (int $server.internal_port) }}{{ fail "config.server.internal_port: must differ from config.server.port" }}{{ end -}}
{{- if and $v.agent.enabled (has (int $v.agent.port) (list (int $server.port) (int $server.internal_port) (int $server.probe_port))) }}{{ fail "agent.port: is a port of the broker, and both share the pod's address" }}{{ end -}}
{{- if contains "@" (dig "nats" "url" "" $v.config) }}{{ fail "config.nats.url: holds credentials, which a ConfigMap would show; use secretSettings" }}{{ end -}}
{{- with $v.config.agents }}
{{- if hasKey . (dig "agent" "name" "agent" $v.config) }}{{ fail (printf "config.agents.%s: is config.agent.name, which config.agent describes" (dig "agent" "name" "agent" $v.config)) }}{{ end -}}
{{- end -}}
{{- range $setting, $_ := $v.secretSettings }}
{{- $path := splitList "." $setting }}
{{- if and (ne $setting "nats.url") (dig (index $path 0) (index $path 1) "" $v.config) }}{{ fail (printf "secretSettings.%s: is also given as config.%s" $setting $setting) }}{{ end -}}
{{- end -}}
{{- if and (eq (dig "auth" "required" "auto" $v.config | toString) "false") (not (dig "auth" "insecure" false $v.config)) }}{{ fail "config.auth.insecure: is needed by config.auth.required=false, since the pod's address is reachable" }}{{ end -}}
{{- if eq $v.inject.method "policy" -}}
{{- range $name := list "agent" "gateway" }}
{{- if (get $v $name).enabled }}{{ fail (printf "%s.enabled: not together with inject.method=policy, which is for pods of others; make two releases" $name) }}{{ end -}}
{{- end -}}
{{- if not ($.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}{{ fail "inject.method: policy needs admissionregistration.k8s.io/v1/MutatingAdmissionPolicy (Kubernetes 1.36); here use webhook, or the container in your own chart (to render without a cluster: --api-versions)" }}{{ end -}}
{{- end -}}
{{- if and $v.gateway.hpa.enabled (not $v.gateway.enabled) }}{{ fail "gateway.hpa.enabled: needs gateway.enabled" }}{{ end -}}
{{- if gt (int $v.gateway.hpa.min) (int $v.gateway.hpa.max) }}{{ fail "gateway.hpa.min: must not exceed gateway.hpa.max" }}{{ end -}}
{{- if and $v.pdb.enabled (not (or $v.agent.enabled $v.gateway.enabled)) }}{{ fail "pdb.enabled: needs agent.enabled or gateway.enabled; pods of others are theirs to protect" }}{{ end -}}
{{- range $name := list "ingress" "httpRoute" "virtualService" }}
{{- if and (get $v $name).enabled (not $v.service.enabled) }}{{ fail (printf "%s.enabled: needs service.enabled" $name) }}{{ end -}}
{{- end -}}
{{- include "sidecast.injectorChecks" . -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}{{ fail "httpRoute.parentRefs: names no Gateway" }}{{ end -}}
{{- if and $v.virtualService.enabled (not (and $v.virtualService.gateways $v.virtualService.hosts)) }}{{ fail "virtualService.gateways, virtualService.hosts: must name at least one each" }}{{ end -}}
{{- $needs := list
  (list "httpRoute.enabled" $v.httpRoute.enabled "gateway.networking.k8s.io/v1/HTTPRoute")
  (list "virtualService.enabled" $v.virtualService.enabled "networking.istio.io/v1/VirtualService")
  (list "monitoring.podMonitor.enabled" $v.monitoring.podMonitor.enabled "monitoring.coreos.com/v1/PodMonitor")
  (list "monitoring.rules.enabled" $v.monitoring.rules.enabled "monitoring.coreos.com/v1/PrometheusRule") -}}
{{- range $need := $needs }}
{{- if and (index $need 1) (not ($.Capabilities.APIVersions.Has (index $need 2))) }}{{ fail (printf "%s: the cluster does not serve %s (to render without one: --api-versions)" (index $need 0) (index $need 2)) }}{{ end -}}
{{- end -}}
{{- end -}}
