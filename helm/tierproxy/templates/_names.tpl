{{- define "tierproxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "tierproxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "tierproxy.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tierproxy.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tierproxy.selector" -}}
app.kubernetes.io/name: {{ include "tierproxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tierproxy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "tierproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tierproxy.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tierproxy.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tierproxy.image" -}}
{{- $repository := required "image.repository is missing: build an image from the Containerfile and say where it is" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A JSON array of the brokers' ids, whether they are listed or counted. */}}
{{- define "tierproxy.brokers" -}}
{{- $brokers := .Values.gateway.service.brokers -}}
{{- if kindIs "slice" $brokers -}}
{{- $ids := list -}}
{{- range $brokers }}{{ $ids = append $ids (int .) }}{{ end -}}
{{- $ids | uniq | toJson -}}
{{- else -}}
{{- until (int $brokers) | toJson -}}
{{- end -}}
{{- end -}}

{{/* {"ports": [{"name", "port"}]}: what clients connect to. */}}
{{- define "tierproxy.ports" -}}
{{- $port := int .Values.gateway.service.port -}}
{{- $ports := list (dict "name" "bootstrap" "port" $port) -}}
{{- if not .Values.gateway.sni -}}
{{- range (include "tierproxy.brokers" . | fromJsonArray) -}}
{{- $at := add $port 1 (int .) -}}
{{- if gt (int $at) 65535 -}}
{{- fail (printf "gateway.service.port + 1 + %d is above 65535: choose a lower port" (int .)) -}}
{{- end -}}
{{- $ports = append $ports (dict "name" (printf "broker-%d" (int .)) "port" $at) -}}
{{- end -}}
{{- end -}}
{{- dict "ports" $ports | toJson -}}
{{- end -}}
