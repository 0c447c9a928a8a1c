{{/*
The sidecar, written once for both injectors. Argument: a dict of
  root       the chart's root
  injector   "istio": the result is a Go template that Istio's injector evaluates for each pod, so that a
             pod's annotations count. Text between backticks goes into it as it stands.
             "webhook": the result is plain YAML; `outrigger inject-webhook` applies the annotations, and makes
             the container a native sidecar or takes its startup probe out.

It ends with the pod: SIGTERM makes it finish what is under way, within the pod's
terminationGracePeriodSeconds. As a native sidecar it stops after the application and before istio-proxy, which
is started earlier; requests that it still has go out through a living Envoy. An ordinary container gets SIGTERM
together with istio-proxy and the application: what Envoy can then no longer hand to the cache it hands to the
application, by the retry of the EnvoyFilters.
*/}}
{{- define "outrigger.sidecar.container" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $istio := eq .injector "istio" -}}
name: outrigger
image: {{ if $istio }}{{ `{{ $image | quote }}` }}{{ else }}{{ include "outrigger.image" $root | quote }}{{ end }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: [run]
{{- if $istio }}
{{ `{{- if $native }}` }}
restartPolicy: Always
{{ `{{- end }}` }}
{{- end }}
{{- include "outrigger.sidecar.ports" $root }}
env:
  {{- include "outrigger.sidecar.env" . | nindent 2 }}
securityContext:
  {{- include "outrigger.restricted" 15480 | nindent 2 }}
resources:
  {{- include "outrigger.sidecar.resources" . | trim | nindent 2 }}
{{- if $istio }}
{{ `{{- if $native }}` }}
{{- end }}
startupProbe:
  {{- include "outrigger.sidecar.probe" (list $values.sidecar.probes.startup "health") | nindent 2 }}
{{- if $istio }}
{{ `{{- end }}` }}
{{- end }}
readinessProbe:
  {{- include "outrigger.sidecar.probe" (list $values.sidecar.probes.readiness "health" "--ready") | nindent 2 }}
livenessProbe:
  {{- include "outrigger.sidecar.probe" (list $values.sidecar.probes.liveness "health") | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "outrigger.sidecar.mounts" . | nindent 2 }}
{{- end -}}

{{/* Names of ports have at most 15 characters. */}}
{{- define "outrigger.sidecar.ports" -}}
{{- $standalone := eq .Values.mesh "none" -}}
{{- $metrics := ne .Values.prometheus "none" -}}
{{- if or $standalone $metrics }}
ports:
{{- if $standalone }}
  - name: http-outrigger
    containerPort: 15480
    protocol: TCP
{{- end }}
{{- if $metrics }}
  - name: http-outr-prom
    containerPort: 15491
    protocol: TCP
{{- end }}
{{- end }}
{{- end -}}

{{/* Argument: list of the timing and the arguments of `outrigger`. */}}
{{- define "outrigger.sidecar.probe" -}}
exec:
  command: {{ concat (list "/usr/local/bin/outrigger") (rest .) | toJson }}
{{ toYaml (first .) }}
{{- end -}}

{{- define "outrigger.sidecar.env" -}}
{{- $values := .root.Values -}}
{{- $istio := eq .injector "istio" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: INSTANCE_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: SERVICE_ACCOUNT
  valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}
- name: OUTRIGGER_WORKLOAD
{{- if $istio }}
  value: {{ `{{ .DeploymentMeta.Name | default "" | quote }}` }}
{{- else }}
  valueFrom: {fieldRef: {fieldPath: {{ printf "metadata.labels['%s']" $values.webhook.workloadLabel | quote }}}}
{{- end }}
- name: OUTRIGGER_ADMIN
  value: 127.0.0.1:15490
{{- if ne $values.prometheus "none" }}
- name: OUTRIGGER_METRICS
  value: 0.0.0.0:15491
{{- end }}
- name: OUTRIGGER_STATE_DIR
  value: /var/lib/outrigger
{{- if eq $values.mesh "istio" }}
{{ include "outrigger.sidecar.env.istio" . }}
{{- else }}
# The webhook sets OUTRIGGER_UPSTREAM_PORT, before this one: Kubernetes looks only at what comes first.
- name: OUTRIGGER_UPSTREAM
  value: http://127.0.0.1:$(OUTRIGGER_UPSTREAM_PORT)
- name: OUTRIGGER_LISTEN
  value: 0.0.0.0:15480
{{- end }}
{{- if $istio }}
{{ `{{- if $config }}` }}
- name: OUTRIGGER_CONFIG
  value: /etc/outrigger/config/outrigger.yaml
{{ `{{- end }}` }}
{{- end }}
{{- include "outrigger.sidecar.env.redis" . }}
{{- with $values.sidecar.otlpUrl }}
- name: OUTRIGGER_OTLP
  value: {{ . | quote }}
{{- end }}
{{- range $values.sidecar.env }}
- name: {{ .name }}
  value: {{ .value | quote }}
{{- end }}
{{- end -}}

{{- define "outrigger.sidecar.env.redis" -}}
{{- $istio := eq .injector "istio" -}}
{{- $secret := include "outrigger.redis.secret" .root }}
{{- if $istio }}
{{ `{{- if $redis }}` }}
- name: OUTRIGGER_REDIS
  valueFrom:
    secretKeyRef:
      name: {{ `{{ splitList "/" $redis | first | quote }}` }}
      key: {{ `{{ splitList "/" $redis | last | quote }}` }}
      optional: true
{{ `{{- else }}` }}
{{- end }}
{{- if $secret }}
- name: OUTRIGGER_REDIS
  valueFrom:
    secretKeyRef:
      {{- $secret | nindent 6 }}
      # A missing Secret must not keep the pod from starting: it then caches in memory only.
      optional: true
{{- else if .root.Values.redis.url }}
- name: OUTRIGGER_REDIS
  value: {{ .root.Values.redis.url | quote }}
{{- end }}
{{- if $istio }}
{{ `{{- end }}` }}
{{- end }}
{{- end -}}

{{/* What istiod wants to know of a client. What is not in the values, Istio's injector knows. */}}
{{- define "outrigger.sidecar.env.istio" -}}
{{- $values := .root.Values -}}
{{- $istio := eq .injector "istio" -}}
- name: OUTRIGGER_MODE
  value: {{ if $istio }}{{ `{{ $mode | quote }}` }}{{ else }}{{ $values.mode | quote }}{{ end }}
- name: OUTRIGGER_XDS
  value: {{ if and $istio (not $values.istio.discoveryAddress) }}{{ `{{ $xds | quote }}` }}{{ else }}{{ include "outrigger.sidecar.xds" .root | quote }}{{ end }}
- name: TRUST_DOMAIN
{{- if $values.istio.trustDomain }}
  value: {{ $values.istio.trustDomain | quote }}
{{- else if $istio }}
  value: {{ `{{ .MeshConfig.TrustDomain | default "cluster.local" | quote }}` }}
{{- else }}
  value: cluster.local
{{- end }}
- name: CLUSTER_ID
{{- if $values.istio.clusterId }}
  value: {{ $values.istio.clusterId | quote }}
{{- else if $istio }}
  value: {{ `{{ .Values.global.multiCluster.clusterName | default "Kubernetes" | quote }}` }}
{{- else }}
  value: Kubernetes
{{- end }}
{{- end -}}

{{/* URL of istiod's xDS port, from the values alone. */}}
{{- define "outrigger.sidecar.xds" -}}
{{- $revision := ternary "" (printf "-%s" .Values.istio.revision) (has .Values.istio.revision (list "" "default")) -}}
{{- $address := default (printf "istiod%s.%s.svc:15012" $revision .Values.istio.namespace) .Values.istio.discoveryAddress -}}
{{- ternary "grpc" "grpcs" (hasSuffix ":15010" $address) }}://{{ $address -}}
{{- end -}}

{{/* `outrigger.io/memory` is request and limit, so that the request is never the larger one. */}}
{{- define "outrigger.sidecar.resources" -}}
{{- $resources := .root.Values.sidecar.resources | default dict -}}
{{- if ne .injector "istio" -}}
{{- toYaml $resources -}}
{{- else -}}
{{- range $kind := list "requests" "limits" }}
{{- $amounts := get $resources $kind | default dict }}
{{ $kind }}:
  {{- range $resource, $amount := omit $amounts "memory" }}
  {{ $resource }}: {{ $amount | quote }}
  {{- end }}
  {{- if $amounts.memory }}
  memory: {{ printf `{{ $memory | default %q | quote }}` (toString $amounts.memory) }}
  {{- else }}
  {{ `{{- with $memory }}` }}
  memory: {{ `{{ . | quote }}` }}
  {{ `{{- end }}` }}
  {{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "outrigger.sidecar.mounts" -}}
- name: outrigger-state
  mountPath: /var/lib/outrigger
- name: outrigger-run
  mountPath: /run/outrigger
{{- if eq .root.Values.mesh "istio" }}
- name: outrigger-token
  mountPath: /var/run/secrets/tokens
  readOnly: true
- name: outrigger-istio-ca
  mountPath: /var/run/secrets/istio
  readOnly: true
- name: outrigger-podinfo
  mountPath: /etc/istio/pod
  readOnly: true
{{- end }}
{{- if eq .injector "istio" }}
{{ `{{- if $config }}` }}
- name: outrigger-config
  mountPath: /etc/outrigger/config
  readOnly: true
{{ `{{- end }}` }}
{{- end }}
{{- end -}}

{{/* Names of our own: those of Istio's template differ with its version and settings. */}}
{{- define "outrigger.sidecar.volumes" -}}
- name: outrigger-state
  emptyDir:
    medium: Memory
    sizeLimit: {{ .root.Values.sidecar.stateSizeLimit }}
- name: outrigger-run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- if eq .root.Values.mesh "istio" }}
- name: outrigger-token
  projected:
    sources:
      - serviceAccountToken:
          audience: istio-ca
          expirationSeconds: 43200
          path: istio-token
- name: outrigger-istio-ca
  configMap:
    name: istio-ca-root-cert
    # istiod puts it into a new namespace a moment later; the pod must not wait for that.
    optional: true
- name: outrigger-podinfo
  downwardAPI:
    items:
      - path: labels
        fieldRef: {fieldPath: metadata.labels}
{{- end }}
{{- if eq .injector "istio" }}
{{ `{{- if $config }}` }}
- name: outrigger-config
  configMap:
    name: {{ `{{ $config | quote }}` }}
    # Without it the process says in its log what is missing.
    optional: true
{{ `{{- end }}` }}
{{- end }}
{{- end -}}

{{/* Who is scraped. With Istio, its agent takes this over and merges both; it works with one port only. */}}
{{- define "outrigger.sidecar.metadata" -}}
labels:
  outrigger.io/injected: "true"
{{- if eq .root.Values.prometheus "annotations" }}
{{- if eq .injector "istio" }}
{{ `{{- if not (or (index $annotations "prometheus.io/scrape") (index $annotations "prometheus.io/port")) }}` }}
{{- end }}
annotations:
  prometheus.io/scrape: "true"
  prometheus.io/port: "15491"
  prometheus.io/path: /metrics
{{- if eq .injector "istio" }}
{{ `{{- end }}` }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A partial pod for `outrigger inject-webhook`. */}}
{{- define "outrigger.sidecar.webhook" -}}
{{- $context := dict "root" . "injector" "webhook" -}}
metadata:
  {{- include "outrigger.sidecar.metadata" $context | nindent 2 }}
spec:
  containers:
    - {{ include "outrigger.sidecar.container" $context | nindent 6 | trim }}
  volumes:
    {{- include "outrigger.sidecar.volumes" $context | nindent 4 }}
{{- end -}}

{{/* The template for Istio's injector: builtin and sprig functions only, since those never change. */}}
{{- define "outrigger.sidecar.istio" -}}
{{- $context := dict "root" . "injector" "istio" -}}
{{ `{{- $annotations := .ObjectMeta.Annotations | default dict }}` }}
{{ `{{- $native := ne (index $annotations "sidecar.istio.io/nativeSidecar" | default (printf "%t" .NativeSidecars)) "false" }}` }}
{{ printf `{{- $image := index $annotations "outrigger.io/image" | default %q }}` (include "outrigger.image" .) }}
{{ printf `{{- $mode := index $annotations "outrigger.io/mode" | default %q }}` .Values.mode }}
{{ `{{- $memory := index $annotations "outrigger.io/memory" }}` }}
{{ `{{- $config := index $annotations "outrigger.io/config-map" }}` }}
{{ `{{- $redis := index $annotations "outrigger.io/redis-secret" }}` }}
{{- if not .Values.istio.discoveryAddress }}
{{ `{{- $address := "" }}` }}
{{ `{{- with .ProxyConfig }}{{ $address = .DiscoveryAddress }}{{ end }}` }}
{{ `{{- if not $address }}` }}
{{ `{{- $revision := "" }}` }}
{{ `{{- if and .Revision (ne .Revision "default") }}{{ $revision = printf "-%s" .Revision }}{{ end }}` }}
{{ `{{- $address = printf "istiod%s.%s.svc:15012" $revision .Values.global.istioNamespace }}` }}
{{ `{{- end }}` }}
{{ `{{- $xds := printf "%s://%s" (ternary "grpc" "grpcs" (hasSuffix ":15010" $address)) $address }}` }}
{{- end }}
metadata:
  {{- include "outrigger.sidecar.metadata" $context | nindent 2 }}
spec:
  {{ `{{- if $native }}` }}
  initContainers:
  {{ `{{- else }}` }}
  containers:
  {{ `{{- end }}` }}
    - {{ include "outrigger.sidecar.container" $context | nindent 6 | trim }}
  volumes:
    {{- include "outrigger.sidecar.volumes" $context | nindent 4 }}
{{- end -}}
