{{/* Names are fixed: two operators in one cluster would work against each other, so a second release is refused by Helm. */}}
{{- define "blobferry.operator" -}}blobferry-operator{{- end }}
{{- define "blobferry.uploader" -}}blobferry-uploader{{- end }}

{{/* The operator as the API server sees it. */}}
{{- define "blobferry.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "blobferry.operator" . }}
{{- end }}

{{/* The two that change sessions and pods, as a list in CEL: the operator, and the hook that lets go of sessions before it is removed. */}}
{{- define "blobferry.uninstall" -}}blobferry-uninstall{{- end }}
{{- define "blobferry.operatorUsers" -}}
['{{ include "blobferry.operatorUser" . }}', 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "blobferry.uninstall" . }}']
{{- end }}

{{/* Regular expression of URLs on the hosts to which sessions may upload, as the operator understands them. */}}
{{- define "blobferry.allowedURL" -}}
{{- $hosts := list -}}
{{- range .Values.accountHostSuffixes -}}
{{- if hasPrefix "." . -}}
{{- $hosts = append $hosts (printf "[a-z0-9.-]+%s(:[0-9]+)?" (regexQuoteMeta .)) -}}
{{- else if regexMatch ":(80|443)$" . -}}
{{- $hosts = append $hosts (printf "%s(%s)?" (regexQuoteMeta (regexReplaceAll ":[0-9]+$" . "")) (regexFind ":[0-9]+$" .)) -}}
{{- else if contains ":" . -}}
{{- $hosts = append $hosts (regexQuoteMeta .) -}}
{{- else -}}
{{- $hosts = append $hosts (printf "%s(:[0-9]+)?" (regexQuoteMeta .)) -}}
{{- end -}}
{{- end -}}
(?i)^https?://({{ join "|" $hosts }})(/.*)?$
{{- end }}

{{/* A path as a file system sees it, with a slash at both ends. */}}
{{- define "blobferry.folder" -}}
/{{ range splitList "/" . }}{{ if and . (ne . ".") }}{{ . }}/{{ end }}{{ end }}
{{- end }}

{{- define "blobferry.labels" -}}
{{ include "blobferry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: blobferry
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "blobferry.selectorLabels" -}}
app.kubernetes.io/name: blobferry-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Reference of an image. Arguments: root, which (operator or uploader). */}}
{{- define "blobferry.image" -}}
{{- $image := index .root.Values.image .which -}}
{{- if not $image.repository -}}
{{- fail (printf "image.%s.repository is not set. No public registry holds the images: build them on the node and import them (README.md, \"Install on k3s\") and use --set image.%s.repository=localhost/blobferry-%s --set image.%s.tag=dev, or set image.%s.repository to a registry of yours." .which .which .which .which .which) -}}
{{- end -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}
