{{/* The pod of a command that ends. Its settings are a worker's and stand in it: before an installation there is no
     ConfigMap. Of: root, component,
     the container's command or arguments, values. */}}
{{- define "tagbus.once" -}}
{{- $root := index . 0 -}}
metadata:
  labels:
    {{- include "tagbus.labels" (list $root (index . 1)) | nindent 4 }}
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  {{- include "tagbus.placed" (list $root (index . 1) (index . 3)) | nindent 2 }}
  containers:
    - name: tagbus
      {{- toYaml (index . 2) | nindent 6 }}
      env:
        {{- range $name, $value := include "tagbus.variables" (list $root (eq (index . 1) "views-topics" | ternary "views" "tagger")) | fromYaml }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
        {{- include "tagbus.secretEnv" $root | trim | nindent 8 }}
      {{- include "tagbus.container" (list $root (merge (dict "writes" (eq (index . 1) "retraining")) (index . 3))) | nindent 6 }}
  volumes:
    {{- include "tagbus.volumes" $root | nindent 4 }}
    - {name: state, emptyDir: {}}
{{- end -}}
