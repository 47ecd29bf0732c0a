{{/* Rules that values.schema.json can't say. */}}
{{- define "tierproxy.rules" -}}
{{- if .Values.gateway.enabled -}}
{{- $service := .Values.gateway.service -}}
{{- if and .Values.gateway.sni (not .Values.gateway.tls.secretName) -}}
{{- fail "gateway.sni needs gateway.tls.secretName: clients name a server in TLS only" -}}
{{- end -}}
{{- if and (ne $service.type "ClusterIP") (not .Values.gateway.sni) (not $service.advertisedHost) -}}
{{- fail (printf "gateway.service.advertisedHost is missing: with type %s clients need a name that leads them to tierproxy from outside" $service.type) -}}
{{- end -}}
{{- if and .Values.gateway.sni $service.advertisedHost -}}
{{- fail "gateway.service.advertisedHost has no effect with gateway.sni: leave one of them out" -}}
{{- end -}}
{{- if eq $service.type "NodePort" -}}
{{- range (include "tierproxy.ports" . | fromJson).ports -}}
{{- if or (lt (int .port) 30000) (gt (int .port) 32767) -}}
{{- fail (printf "gateway.service.port: with type NodePort, clients are told ports of the nodes, so all of them must be from 30000 to 32767; %s would be at %d" .name (int .port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range (include "tierproxy.ports" . | fromJson).ports -}}
{{- if eq (int .port) (int $.Values.admin.port) -}}
{{- fail (printf "admin.port is the port of %s: choose another one" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.archiver.enabled (not .Values.archiver.separate) (not .Values.gateway.enabled) -}}
{{- fail "archiver.separate: false archives in the gateway's pods, but gateway.enabled is false" -}}
{{- end -}}
{{- end -}}

{{/* tierproxy's configuration for a role: gateway, archiver or sidecar. Takes {root, role}. */}}
{{- define "tierproxy.config" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $config := deepCopy $values.config -}}
{{- $archiver := dict "enabled" false -}}
{{- $listen := dict -}}
{{- $admin := dict "host" "0.0.0.0" "port" $values.admin.port -}}
{{- if eq .role "archiver" -}}
{{- $listen = dict "enabled" false -}}
{{- $archiver = dict "enabled" true "spool" "/var/lib/tierproxy/spool" "trim_delay" $values.archiver.trimDelay -}}
{{- else if eq .role "gateway" -}}
{{- $gateway := $values.gateway -}}
{{- $listen = dict "port" $gateway.service.port -}}
{{- $_ := set $listen "drain_delay" (printf "%ds" (int $gateway.shutdown.delay)) -}}
{{- $_ := set $listen "drain" (printf "%ds" (int $gateway.shutdown.drain)) -}}
{{- if $gateway.sni -}}
{{- $_ := set $listen "sni" $gateway.sni -}}
{{- else -}}
{{- $own := printf "%s.%s.svc.%s" (include "tierproxy.fullname" $root) $root.Release.Namespace $gateway.service.clusterDomain -}}
{{- $_ := set $listen "advertised_host" (default $own $gateway.service.advertisedHost) -}}
{{- end -}}
{{- if $gateway.tls.secretName -}}
{{- $folder := "/run/secrets/tierproxy/listen-tls" -}}
{{- $_ := set $listen "tls" (dict "cert_file" (print $folder "/tls.crt") "key_file" (print $folder "/tls.key")) -}}
{{- end -}}
{{- if gt (int $gateway.workers) 1 -}}
{{- $_ := set $config "workers" $gateway.workers -}}
{{- end -}}
{{- if gt (int $gateway.diskCacheGiB) 0 -}}
{{- $disk := dict "path" "/var/cache/tierproxy/records" "size" (printf "%dGiB" (int $gateway.diskCacheGiB)) -}}
{{- $config = mergeOverwrite $config (dict "cache" (dict "disk" $disk)) -}}
{{- end -}}
{{- if and $values.archiver.enabled (not $values.archiver.separate) -}}
{{- $archiver = dict "enabled" true "spool" "/var/lib/tierproxy/spool" "trim_delay" $values.archiver.trimDelay -}}
{{- end -}}
{{- else -}}
{{- $listen = dict "host" "127.0.0.1" "port" $values.sidecar.port "advertised_host" "127.0.0.1" -}}
{{- $_ := set $listen "drain" (printf "%ds" (int $values.sidecar.drain)) -}}
{{- $admin = dict "host" "0.0.0.0" "port" $values.sidecar.adminPort -}}
{{- $config = mergeOverwrite $config (deepCopy $values.sidecar.config) -}}
{{- end -}}
{{- $config = mergeOverwrite $config (dict "listen" $listen "admin" $admin "archiver" $archiver) -}}
{{- $config | toYaml -}}
{{- end -}}

{{/* The ConfigMap of a role. Takes {root, role}. */}}
{{- define "tierproxy.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "tierproxy.fullname" .root }}-{{ .role }}
  labels:
    {{- include "tierproxy.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
data:
  tierproxy.yaml: |
    {{- include "tierproxy.config" . | nindent 4 }}
{{- end -}}

{{/* Changes when the role's configuration does. Takes {root, role}. */}}
{{- define "tierproxy.checksum" -}}
{{- if eq .root.Values.configChange "rollout" -}}
checksum/config: {{ include "tierproxy.config" . | sha256sum }}
{{- end -}}
{{- end -}}
