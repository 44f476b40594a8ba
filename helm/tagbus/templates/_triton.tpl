{{/* The pod of a Triton server: any image that has `tritonserver` on its path. */}}
{{- define "tagbus.triton" -}}
{{- $own := .Values.triton -}}
metadata:
  labels:
    {{- include "tagbus.labels" (list . "triton") | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "tagbus.placed" (list . "triton" $own) | nindent 2 }}
  {{- include "tagbus.spread" (list . "triton") | nindent 2 }}
  terminationGracePeriodSeconds: 45
  {{- if not $own.models.existingClaim }}
  initContainers:
    # The model repository of the workers' package: a worker refuses a server with other models.
    - name: models
      # cp must not set times or modes of the volume's root, which belongs to root.
      command: [sh, -c, 'cp -r "$(python3 -c "import tagbus.triton_repo as r; print(list(r.__path__)[0])")"/. /models/']
      {{- include "tagbus.container" (list . (dict "resources" (dict "requests" (dict "cpu" "100m" "memory" "128Mi") "limits" (dict "memory" "256Mi")))) | nindent 6 }}
        - {name: models, mountPath: /models}
  {{- end }}
  containers:
    - name: triton
      image: {{ include "tagbus.image" (list . $own) }}
      imagePullPolicy: {{ $own.image.pullPolicy }}
      # The Python backend writes to its working directory.
      workingDir: /tmp
      command: [tritonserver]
      args:
        - --model-repository=/models
        - --model-control-mode=explicit
        {{- range $own.models.load }}
        - --load-model={{ . }}
        {{- end }}
        - --exit-timeout-secs=30
        {{- range $own.args }}
        - {{ . | quote }}
        {{- end }}
      env:
        - {name: ORT_DISABLE_TELEMETRY, value: "1"}
        - {name: PYTHONDONTWRITEBYTECODE, value: "1"}
      ports:
        - {name: http, containerPort: 8000}
        - {name: grpc, containerPort: 8001}
        - {name: metrics, containerPort: 8002}
      securityContext:
        {{- include "tagbus.containerSecurity" . | nindent 8 }}
      # A ready server may not have loaded its models, so each is probed; workers also verify the golden texts.
      startupProbe:
        httpGet: {path: /v2/models/{{ first $own.models.load }}/ready, port: http}
        periodSeconds: 5
        failureThreshold: {{ ceil (divf $own.startupSeconds 5) }}
      livenessProbe:
        httpGet: {path: /v2/health/live, port: http}
        periodSeconds: 20
        timeoutSeconds: 10
      readinessProbe:
        httpGet: {path: /v2/models/{{ first $own.models.load }}/ready, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
      resources: {{ toJson $own.resources }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: models, mountPath: /models, readOnly: true}
        - {name: shared, mountPath: /dev/shm}
  volumes:
    {{- include "tagbus.volumes" . | nindent 4 }}
    - {name: state, emptyDir: {}}
    - name: models
      {{- if $own.models.existingClaim }}
      persistentVolumeClaim: {claimName: {{ $own.models.existingClaim }}, readOnly: true}
      {{- else }}
      emptyDir: {}
      {{- end }}
    - {name: shared, emptyDir: {medium: Memory, sizeLimit: {{ $own.sharedMemory }}}}
{{- end -}}
