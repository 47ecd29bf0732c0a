{{/* What a container of tierproxy has in every role. Takes {root, role, admin: its port}. */}}
{{- define "tierproxy.container" -}}
{{- $values := .root.Values -}}
image: {{ include "tierproxy.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: [serve]
env:
  - name: TIERPROXY_CONFIG
    value: /etc/tierproxy/tierproxy.yaml
  {{- range $name, $from := $values.secrets.env }}
  - name: {{ $name }}
    valueFrom:
      secretKeyRef:
        name: {{ $from.name }}
        key: {{ $from.key }}
  {{- end }}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- $security := deepCopy $values.securityContext }}
  {{- if eq .role "sidecar" }}
  {{- /* The pod is somebody else's, so what the pod would say is said here. */}}
  {{- $security = mergeOverwrite (omit $values.podSecurityContext "fsGroup") $security }}
  {{- end }}
  {{- toYaml $security | nindent 2 }}
livenessProbe:
  httpGet: {path: /live, port: {{ .admin }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /ready, port: {{ .admin }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Takes {root, role}. */}}
{{- define "tierproxy.volumeMounts" -}}
{{- $values := .root.Values -}}
- name: {{ include "tierproxy.volume" (dict "role" .role "name" "config") }}
  mountPath: /etc/tierproxy
  readOnly: true
- name: {{ include "tierproxy.volume" (dict "role" .role "name" "tmp") }}
  mountPath: /tmp
{{- if include "tierproxy.archives" . }}
- name: spool
  mountPath: /var/lib/tierproxy/spool
{{- end }}
{{- if and (eq .role "gateway") (gt (int $values.gateway.diskCacheGiB) 0) }}
- name: disk-cache
  mountPath: /var/cache/tierproxy
{{- end }}
{{- if and (eq .role "gateway") $values.gateway.tls.secretName }}
- name: listen-tls
  mountPath: /run/secrets/tierproxy/listen-tls
  readOnly: true
{{- end }}
{{- $role := .role }}
{{- range $folder, $secret := $values.secrets.files }}
- name: {{ include "tierproxy.volume" (dict "role" $role "name" (print "secret-" $folder)) }}
  mountPath: /run/secrets/tierproxy/{{ $folder }}
  readOnly: true
{{- end }}
{{- if ne .role "sidecar" }}
{{- with $values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Takes {root, role}. */}}
{{- define "tierproxy.volumes" -}}
{{- $values := .root.Values -}}
- name: {{ include "tierproxy.volume" (dict "role" .role "name" "config") }}
  configMap:
    name: {{ include "tierproxy.fullname" .root }}-{{ .role }}
- name: {{ include "tierproxy.volume" (dict "role" .role "name" "tmp") }}
  emptyDir: {sizeLimit: 256Mi}
{{- if include "tierproxy.archives" . }}
- name: spool
  emptyDir: {sizeLimit: {{ $values.archiver.spool.sizeLimit }}}
{{- end }}
{{- if and (eq .role "gateway") (gt (int $values.gateway.diskCacheGiB) 0) }}
- name: disk-cache
  {{- /* The cache keeps to its own size; above that are folders, and files that are being replaced. */}}
  emptyDir: {sizeLimit: {{ add (int $values.gateway.diskCacheGiB) 2 }}Gi}
{{- end }}
{{- if and (eq .role "gateway") $values.gateway.tls.secretName }}
- name: listen-tls
  secret: {secretName: {{ $values.gateway.tls.secretName }}, defaultMode: 0440}
{{- end }}
{{- $role := .role }}
{{- range $folder, $secret := $values.secrets.files }}
- name: {{ include "tierproxy.volume" (dict "role" $role "name" (print "secret-" $folder)) }}
  {{- /* The group of files in somebody else's pod isn't ours. */}}
  secret: {secretName: {{ $secret }}, defaultMode: {{ ternary "0444" "0440" (eq $role "sidecar") }}}
{{- end }}
{{- if ne .role "sidecar" }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A sidecar's volumes are in somebody else's pod, so their names say whose they are. */}}
{{- define "tierproxy.volume" -}}
{{- if eq .role "sidecar" }}{{ print "tierproxy-" .name }}{{ else }}{{ .name }}{{ end -}}
{{- end -}}

{{/* Whether this role archives: "yes" or nothing. */}}
{{- define "tierproxy.archives" -}}
{{- $archiver := .root.Values.archiver -}}
{{- if or (eq .role "archiver") (and (eq .role "gateway") $archiver.enabled (not $archiver.separate)) }}yes{{ end -}}
{{- end -}}

{{/* The pod template's metadata. Takes {root, role, values: those of the role}. */}}
{{- define "tierproxy.podMetadata" -}}
labels:
  {{- include "tierproxy.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .role }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: tierproxy
  {{- with include "tierproxy.checksum" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What a pod has besides its containers and volumes. Takes {root, role, values}. */}}
{{- define "tierproxy.podSpec" -}}
serviceAccountName: {{ include "tierproxy.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $given := . }}
{{- with .values.topologySpread.keys }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $given.values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "tierproxy.selector" $given.root | nindent 8 }}
        app.kubernetes.io/component: {{ $given.role }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}
