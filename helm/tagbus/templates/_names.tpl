{{- define "tagbus.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: a StatefulSet's name with a hash behind it is a label, which ends at 63. */}}
{{- define "tagbus.fullname" -}}
{{- $name := include "tagbus.name" . -}}
{{- $made := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $made | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the pods of a component; never changes. Of: root, component. */}}
{{- define "tagbus.selector" -}}
app.kubernetes.io/name: {{ include "tagbus.name" (index . 0) | quote }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of an object of a component. Of: root, component. */}}
{{- define "tagbus.labels" -}}
{{ include "tagbus.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tagbus
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image of a component: its own fields over those of all, but the digest of another repository is none of its.
     Of: root, values of the component. */}}
{{- define "tagbus.image" -}}
{{- $image := mergeOverwrite (deepCopy (index . 0).Values.image) (deepCopy ((index . 1).image | default dict)) -}}
{{- if and (dig "image" "repository" "" (index . 1)) (not (dig "image" "digest" "" (index . 1))) -}}
{{- $_ := set $image "digest" "" -}}
{{- end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The processes of tagbus that this release runs. A StatefulSet gives each member of a group a stable name, and with it
     a transactional id, so that a restart immediately ends its open transaction, and a disk. */}}
{{- define "tagbus.processes" -}}
- {name: tagger, command: run, kind: StatefulSet}
{{- if .Values.feedback.enabled }}
- {name: feedback, command: feedback, kind: StatefulSet}
{{- end }}
{{- if .Values.views.enabled }}
- {name: views, command: views, kind: StatefulSet}
{{- end }}
{{- if eq .Values.settings.memory.kind "server" }}
- {name: indexer, command: index, kind: Deployment}
{{- end }}
{{- end -}}
