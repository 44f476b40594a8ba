{{/* Where and as whom a pod runs. Of: root, component, its values. */}}
{{- define "tagbus.placed" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
serviceAccountName: {{ $root.Values.serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $root.Values.runAsUser }}
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with $own.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* The replicas of a component are spread. Of: root, component. */}}
{{- define "tagbus.spread" -}}
{{- $selector := include "tagbus.selector" . | fromYaml -}}
{{- $spread := (index . 0).Values.topologySpread -}}
{{- if not (and (eq $spread.zone "none") (eq $spread.node "none")) -}}
topologySpreadConstraints:
{{- range $key, $what := dict "topology.kubernetes.io/zone" $spread.zone "kubernetes.io/hostname" $spread.node }}
{{- if ne $what "none" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $what }}
    labelSelector: {matchLabels: {{ toJson $selector }}}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tagbus.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Image, secrets and mounts of a container of tagbus. Of: root, values of the component; `writes`: it leaves releases. */}}
{{- define "tagbus.container" -}}
{{- $root := index . 0 -}}
image: {{ include "tagbus.image" . }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- include "tagbus.containerSecurity" . | nindent 2 }}
resources: {{ toJson (index . 1).resources }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: state, mountPath: /var/lib/tagbus}
  {{- if $root.Values.releases.existingClaim }}
  - {name: releases, mountPath: /var/lib/tagbus/releases, readOnly: {{ not (index . 1).writes }}}
  {{- end }}
  {{- range $root.Values.tls }}
  - {name: tls-{{ .name }}, mountPath: /etc/tagbus/tls/{{ .name }}, readOnly: true}
  {{- end }}
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The volumes of those mounts, but for the state, which may be a disk. */}}
{{- define "tagbus.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if .Values.releases.existingClaim }}
- {name: releases, persistentVolumeClaim: {claimName: {{ .Values.releases.existingClaim }}}}
{{- end }}
{{- range .Values.tls }}
- {name: tls-{{ .name }}, secret: {secretName: {{ .secret }}, defaultMode: 0440}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The pod of a process that runs until it is stopped. Of: root, process. */}}
{{- define "tagbus.process" -}}
{{- $root := index . 0 -}}
{{- $process := index . 1 -}}
{{- $own := index $root.Values $process.name -}}
{{- $settings := include "tagbus.settings" (list $root $process.name) | fromYaml -}}
metadata:
  labels:
    {{- include "tagbus.labels" (list $root $process.name) | nindent 4 }}
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/settings: {{ include "tagbus.variables" (list $root $process.name) | sha256sum }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "tagbus.placed" (list $root $process.name $own) | nindent 2 }}
  {{- include "tagbus.spread" (list $root $process.name) | nindent 2 }}
  # The drain, then time to stop the threads, leave the group and commit the open transaction.
  terminationGracePeriodSeconds: {{ add 25 (ceil (dig "batch" "drain_seconds" 20 $settings)) }}
  containers:
    - name: tagbus
      args: [{{ $process.command }}]
      envFrom:
        - configMapRef: {name: {{ include "tagbus.fullname" $root }}-{{ $process.name }}}
      {{- $env := include "tagbus.secretEnv" $root | trim }}
      {{- if eq $process.name "views" }}
      {{- $env = printf "%s\n%s" (include "tagbus.advertised" $root) $env }}
      {{- end }}
      {{- with $env | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      ports:
        - {name: health, containerPort: {{ $settings.health.port }}}
        {{- if eq $process.name "views" }}
        - {name: api, containerPort: {{ $settings.views.port }}}
        {{- end }}
      startupProbe:
        httpGet: {path: /livez, port: health}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ ceil (divf $own.startupSeconds 5) }}
      livenessProbe:
        httpGet: {path: /livez, port: health}
        periodSeconds: 20
        timeoutSeconds: 5
      readinessProbe:
        # It queries encoder and memory, for at most 5 s.
        httpGet: {path: /readyz, port: health}
        periodSeconds: 10
        timeoutSeconds: 8
      {{- include "tagbus.container" (list $root $own) | nindent 6 }}
  volumes:
    {{- include "tagbus.volumes" $root | nindent 4 }}
    {{- if not (dig "persistence" "enabled" false $own) }}
    - {name: state, emptyDir: {}}
    {{- end }}
{{- end -}}
