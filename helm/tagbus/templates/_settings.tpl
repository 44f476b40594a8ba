{{/* The settings of a process as YAML: what follows from other values, then `settings`, then its own. Of: root, name. */}}
{{- define "tagbus.settings" -}}
{{- $values := (index . 0).Values -}}
{{- $own := index $values (index . 1) -}}
{{- $follows := dict -}}
{{- if $values.triton.enabled -}}
{{- $_ := set $follows "encoder" (dict "kind" "triton" "address" (printf "%s-triton:8001" (include "tagbus.fullname" (index . 0)))) -}}
{{- end -}}
{{- if $values.releases.existingClaim -}}
{{- $_ := set $follows "releases" (dict "folder" "/var/lib/tagbus/releases") -}}
{{- end -}}
{{- if and (eq (index . 1) "tagger") $own.persistence.enabled -}}
{{- $_ := set $follows "memory" (dict "path" "/var/lib/tagbus/memory") -}}
{{- end -}}
{{- if eq (index . 1) "views" -}}
{{- $_ := set $follows "views" (dict "host" $values.settings.health.host "port" 8790 "folder" "/var/lib/tagbus/views") -}}
{{- end -}}
{{- mergeOverwrite $follows (deepCopy $values.settings) (deepCopy ($own.settings | default dict)) | toYaml -}}
{{- end -}}

{{/* A value as the environment has it: lists with commas, objects and numbers as JSON, which has no exponent below 1e21:
     a join alone writes a million as 1e+06. */}}
{{- define "tagbus.written" -}}
{{- if kindIs "string" . -}}{{ . }}
{{- else if kindIs "slice" . -}}{{ range $at, $one := . }}{{ if $at }},{{ end }}{{ include "tagbus.written" $one }}{{ end }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* The variables of a process as a YAML object. Of: root, name. */}}
{{- define "tagbus.variables" -}}
{{- range $section, $fields := include "tagbus.settings" . | fromYaml }}
{{- range $name, $value := $fields }}
{{- if eq $section "components" }}
{{- range $field, $one := $value }}
{{ printf "TAGBUS_COMPONENTS__%s__%s" $name $field | upper }}: {{ include "tagbus.written" $one | quote }}
{{- end }}
{{- else }}
{{ printf "TAGBUS_%s__%s" $section $name | upper }}: {{ include "tagbus.written" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The variables that come from Secrets, and the user's own, as entries of `env`. */}}
{{- define "tagbus.secretEnv" -}}
{{- with .Values.secrets.kafkaPassword }}
- name: KAFKA_PASSWORD
  valueFrom: {secretKeyRef: {{ toJson . }}}
- name: TAGBUS_KAFKA__SECRETS
  value: '{"sasl.password": "$(KAFKA_PASSWORD)"}'
{{- end }}
{{- $secrets := .Values.secrets }}
{{- range $variable, $from := dict "TAGBUS_KAFKA__SECRETS" $secrets.kafkaSecrets "TAGBUS_MEMORY__API_KEY" $secrets.qdrantApiKey "TAGBUS_LLM__API_KEY" $secrets.llmApiKey "TAGBUS_REGISTRY__PASSWORD" $secrets.registryPassword "TAGBUS_WEB__API_KEY" $secrets.webApiKey "TAGBUS_OTEL__HEADERS" $secrets.otelHeaders }}
{{- with $from }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {{ toJson . }}}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The address at which the other views replicas reach this one: its own name, by the headless service. */}}
{{- define "tagbus.advertised" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: TAGBUS_VIEWS__ADVERTISED
  value: http://$(POD_NAME).{{ include "tagbus.fullname" . }}-views:{{ (include "tagbus.settings" (list . "views") | fromYaml).views.port }}
{{- end -}}

{{/* Checks across fields, which a schema cannot express. */}}
{{- define "tagbus.consistent" -}}
{{- $partitions := int .Values.settings.topics.partitions -}}
{{- $tagger := .Values.tagger -}}
{{- $scaling := $tagger.autoscaling -}}
{{- $more := printf "expected at most settings.topics.partitions, %d: a replica without a partition is idle" $partitions -}}
{{- if eq $scaling.by "none" -}}
{{- if gt (int $tagger.replicas) $partitions -}}{{ fail (printf "tagger.replicas: %d is wrong, %s" (int $tagger.replicas) $more) }}{{- end -}}
{{- else -}}
{{- if gt (int $scaling.maxReplicas) $partitions -}}{{ fail (printf "tagger.autoscaling.maxReplicas: %d is wrong, %s" (int $scaling.maxReplicas) $more) }}{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}{{ fail (printf "tagger.autoscaling.minReplicas: %d is wrong, expected at most maxReplicas, %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}{{- end -}}
{{- end -}}
{{- if and (eq $scaling.by "cpu") (eq (int $scaling.minReplicas) 0) -}}{{ fail "tagger.autoscaling.minReplicas: 0 is wrong, expected at least 1 by cpu: at 0 replicas there is no CPU to measure" }}{{- end -}}
{{- if and (eq $scaling.by "lag") (lt (int $scaling.lag.activation) $partitions) -}}{{ fail (printf "tagger.autoscaling.lag.activation: %d is wrong, expected at least settings.topics.partitions, %d: producers' transaction markers leave one a partition" (int $scaling.lag.activation) $partitions) }}{{- end -}}
{{- if and .Values.feedback.enabled (gt (int .Values.feedback.replicas) $partitions) -}}{{ fail (printf "feedback.replicas: %d is wrong, %s" (int .Values.feedback.replicas) $more) }}{{- end -}}
{{- if and .Values.views.enabled (gt (int .Values.views.replicas) $partitions) -}}{{ fail (printf "views.replicas: %d is wrong, %s" (int .Values.views.replicas) $more) }}{{- end -}}
{{- $kind := (include "tagbus.settings" (list . "tagger") | fromYaml).memory.kind -}}
{{- if and (eq $kind "server") (ne .Values.settings.memory.kind "server") -}}{{ fail "tagger.settings.memory.kind: server is wrong, expected it in settings.memory.kind: the indexer, which writes a shared memory, is there by that alone" }}{{- end -}}
{{- if and $tagger.persistence.enabled (ne $kind "embedded") -}}{{ fail (printf "tagger.persistence.enabled: true is wrong with memory.kind %s, expected embedded: no other keeps anything on a disk" $kind) }}{{- end -}}
{{- if and .Values.secrets.kafkaPassword .Values.secrets.kafkaSecrets -}}{{ fail "secrets.kafkaPassword: wrong beside secrets.kafkaSecrets, expected one of them" }}{{- end -}}
{{- range $at, $one := .Values.tls -}}
{{- range $other := slice $.Values.tls 0 $at -}}
{{- if eq $one.name $other.name -}}{{ fail (printf "tls: the name %s is there twice, expected each once: it names a folder" $one.name) }}{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.views.enabled -}}
{{- $views := include "tagbus.settings" (list . "views") | fromYaml -}}
{{- if eq (int $views.health.port) (int $views.views.port) -}}{{ fail (printf "settings.health.port: %d is wrong, expected another than views.port, in settings or views.settings" (int $views.health.port)) }}{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" (include "tagbus.fullname" .)) -}}{{ fail (printf "release name: %s is wrong as the beginning of a Service's name, expected lower-case letters, digits and dashes beginning with a letter, or fullnameOverride" .Release.Name) }}{{- end -}}
{{- end -}}
