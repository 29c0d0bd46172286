{{- define "careen.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: careen
{{- end -}}

{{/* What selects the pods of a part; never changes, since a workload's selector can't. */}}
{{- define "careen.selector" -}}
app.kubernetes.io/name: careen
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{- define "careen.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of the ConfigMap with the trust root; empty if the image's own is used. */}}
{{- define "careen.trust" -}}
{{- if and .Values.trust.configMap .Values.trust.root -}}
{{- fail "trust.root and trust.configMap are both set: only one of them can be what releases are trusted by" -}}
{{- end -}}
{{- if .Values.trust.configMap -}}
{{ .Values.trust.configMap }}
{{- else if .Values.trust.root -}}
careen-trust
{{- end -}}
{{- end -}}

{{/* As the kubelet's own volume, but asked for by name: a token of this pod, renewed, with the node's name in it. */}}
{{- define "careen.token" -}}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end -}}

{{- define "careen.env" -}}
- name: CAREEN_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}
