{{/*
tierproxy in another application's pod. All take the tierproxy chart's own scope: .Subcharts.tierproxy in a chart that has
it as a dependency. See README.md for where each one goes.
*/}}

{{/* The container, an element of initContainers (sidecar.native) or of containers. */}}
{{- define "tierproxy.sidecar.container" -}}
{{- $sidecar := .Values.sidecar -}}
- name: tierproxy
  {{- if $sidecar.native }}
  restartPolicy: Always
  {{- end }}
  {{- include "tierproxy.container" (dict "root" . "role" "sidecar" "admin" $sidecar.adminPort) | nindent 2 }}
  {{- if $sidecar.native }}
  startupProbe:
    httpGet: {path: /ready, port: {{ $sidecar.adminPort }}}
    periodSeconds: 1
    timeoutSeconds: 5
    failureThreshold: 300
  {{- end }}
  ports:
    - {name: tierproxy-admin, containerPort: {{ $sidecar.adminPort }}}
  resources:
    {{- toYaml $sidecar.resources | nindent 4 }}
  volumeMounts:
    {{- include "tierproxy.volumeMounts" (dict "root" . "role" "sidecar") | nindent 4 }}
{{- end -}}

{{/* Elements of the pod's volumes. */}}
{{- define "tierproxy.sidecar.volumes" -}}
{{- include "tierproxy.volumes" (dict "root" . "role" "sidecar") -}}
{{- end -}}

{{/* For the pod's annotations: its pods are replaced when the configuration changes, unless configChange is reload. */}}
{{- define "tierproxy.sidecar.annotations" -}}
{{- include "tierproxy.checksum" (dict "root" . "role" "sidecar") -}}
{{- end -}}

{{/* What the application has to be told: host:port. */}}
{{- define "tierproxy.sidecar.bootstrap" -}}
{{- printf "127.0.0.1:%d" (int .Values.sidecar.port) -}}
{{- end -}}
