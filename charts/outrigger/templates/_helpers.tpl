{{/* Prefix of the names of objects. Cut so that the longest suffix still fits into 63 characters. */}}
{{- define "outrigger.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "outrigger.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a selector names: never changed by an upgrade. Argument: list of the root and the component. */}}
{{- define "outrigger.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "outrigger.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The container's part of Pod Security's "restricted" profile. Argument: the uid, which is the gid too. */}}
{{- define "outrigger.restricted" -}}
runAsUser: {{ . }}
runAsGroup: {{ . }}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Whether the webhook makes native sidecars: "true" or "false". */}}
{{- define "outrigger.webhook.native" -}}
{{- $native := .Values.webhook.nativeSidecars -}}
{{- if eq $native "auto" -}}
{{- semverCompare ">=1.33.0-0" .Capabilities.KubeVersion.Version -}}
{{- else -}}
{{- if and (eq $native "always") (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "webhook.nativeSidecars: this cluster is %s, and native sidecars need 1.29; write auto or never" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- eq $native "always" -}}
{{- end -}}
{{- end -}}

{{/* Name and key of the Secret that holds the Redis URL, or nothing. */}}
{{- define "outrigger.redis.secret" -}}
{{- if .Values.redis.deploy.enabled -}}
name: {{ include "outrigger.fullname" . }}-redis
key: url
{{- else if .Values.redis.existingSecret.name -}}
name: {{ .Values.redis.existingSecret.name }}
key: {{ .Values.redis.existingSecret.key }}
{{- end -}}
{{- end -}}

{{/* Not namespaced, so the namespace is in the name: two releases of one name do not meet. */}}
{{- define "outrigger.webhook.configuration" -}}
{{ include "outrigger.fullname" . }}-{{ .Release.Namespace }}
{{- end -}}
