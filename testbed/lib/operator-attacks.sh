# shellcheck shell=bash
# What somebody with the operator's token would try, and the chart's policies refuse. Sourced by check-policies, never run; what is
# tried is not made.

# The operator's mark in the metadata of an object.
OURS='"labels":{"app.kubernetes.io/managed-by":"blobferry-operator"}'

# built SNAPSHOT: a pod as the operator builds it, from the snapshots of its unit tests.
built() {
  awk 'seen == 2; /^---$/ { seen++ }' "$REPOSITORY"/operator/src/decisions/build/snapshots/*__"$1".snap |
    sed "s/: cameras$/: $NAMESPACE/" | kubectl create --dry-run=client --output json --filename -
}

# attempt PATH JSON: whether the operator may make this object.
attempt() { as "$OPERATOR" POST "$1?dryRun=All" application/json "$2"; }

# pod_with CHANGE [SNAPSHOT]: the pod of a session, by default of one that names everything, with this change.
pod_with() { jq "def container: .spec.containers[0]; $1" "$FOLDER/${2:-pod_of_a_session_that_names_everything}"; }
try_pod() { attempt "/api/v1/namespaces/$NAMESPACE/pods" "$(pod_with "$@")"; }

# keeps MESSAGE SENTENCE CHANGE...: the operator makes no pod with any of these changes.
keeps() {
  local message=$1
  shift
  while (($# > 0)); do
    refuses "the operator makes no pod $1" "$message" try_pod "$2"
    shift 2
  done
}

# What such pods name has to be there.
prepare_attacks() {
  local snapshot
  kubectl --namespace default delete rolebinding,serviceaccount blobferry-uploader --ignore-not-found
  for snapshot in pod_of_a_{minimal_session,session_that_names_everything,session_with_a_workload_identity_behind_a_proxy}; do
    built "$snapshot" >"$FOLDER/$snapshot"
  done
  kubectl --namespace "$NAMESPACE" create serviceaccount own --dry-run=client --output yaml | kubectl apply --filename -
  kubectl create priorityclass high --value 1 --dry-run=client --output yaml | kubectl apply --filename -
  kubectl apply --filename - \
    <<<'{"apiVersion":"node.k8s.io/v1","kind":"RuntimeClass","metadata":{"name":"other"},"handler":"other"}'
}

pod_attacks() {
  local identity=pod_of_a_session_with_a_workload_identity_behind_a_proxy
  holds "the operator makes the pod of a minimal session" try_pod . pod_of_a_minimal_session
  holds "the operator makes the pod of a session that names everything" try_pod .
  holds "the operator makes the pod of a session with a workload identity behind a proxy" try_pod . $identity
  holds "the operator makes a pod that outlives its session" try_pod 'del(.metadata.ownerReferences)'
  holds "the operator makes a pod with the image of before" try_pod 'container.image = "localhost/blobferry-uploader:0.9"'
  holds "the operator makes a pod with a digest" \
    try_pod "container.image = \"localhost/blobferry-uploader@sha256:$(printf x | sha256sum | cut -c1-64)\""
  keeps "has the name and the labels of its session" \
    "under another name" '.metadata.name = "other"' \
    "without a session" 'del(.metadata.labels["blobferry.io/session-uid"])' \
    "that is called something else" '.metadata.labels["app.kubernetes.io/name"] = "other"'
  keeps "belongs to the session of its labels, or to nobody" \
    "of another session" '.metadata.ownerReferences[0].uid = "other"' \
    "of something else" '.metadata.ownerReferences[0] += {apiVersion: "v1", kind: "ConfigMap", blockOwnerDeletion: false}' \
    "of two owners" '.metadata.ownerReferences += [{apiVersion: "v1", kind: "ConfigMap", name: "other", uid: "other"}]'
  keeps "labelled app.kubernetes.io/managed-by=blobferry-operator" \
    "without its label" 'del(.metadata.labels["app.kubernetes.io/managed-by"])'
  program_attacks
  node_attacks
  privilege_attacks
  volume_attacks
  variable_attacks $identity
}

program_attacks() {
  keeps "has one container, named uploader" \
    "with a second container" '.spec.containers += [container | .name = "other" | del(.ports)]' \
    "with an init container" '.spec.initContainers = [{name: "other", image: "other"}]' \
    "with another container" 'container.name = "other"'
  keeps "cannot be set on create" "to look into" '.spec.ephemeralContainers = [{name: "other", image: "other"}]'
  keeps "runs the image of the chart's image.uploader.repository" \
    "with another image" 'container.image = "evil:1"' \
    "with an image whose name begins alike" 'container.image = "localhost/blobferry-uploader-evil:1"' \
    "with an image below its own" 'container.image = "localhost/blobferry-uploader:1/evil:1"'
  keeps "without a command, arguments or hooks" \
    "with a command" 'container.command = ["/bin/sh"]' \
    "with arguments" 'container.args = ["--help"]' \
    "in another folder" 'container.workingDir = "/tmp"' \
    "with a hook" 'container.lifecycle = {postStart: {exec: {command: ["/bin/sh"]}}}'
  keeps "ask the pod itself over HTTP" \
    "without a startup probe" 'del(container.startupProbe)' \
    "without a liveness probe" 'del(container.livenessProbe)' \
    "without a readiness probe" 'del(container.readinessProbe)' \
    "whose startup probe runs something" 'container.startupProbe |= (del(.httpGet) | .exec.command = ["/bin/sh"])' \
    "whose liveness probe runs something" 'container.livenessProbe |= (del(.httpGet) | .exec.command = ["/bin/sh"])' \
    "whose readiness probe runs something" 'container.readinessProbe |= (del(.httpGet) | .exec.command = ["/bin/sh"])' \
    "whose startup probe asks another host" 'container.startupProbe.httpGet.host = "192.0.2.1"' \
    "whose liveness probe asks another host" 'container.livenessProbe.httpGet.host = "192.0.2.1"' \
    "whose readiness probe asks another host" 'container.readinessProbe.httpGet.host = "192.0.2.1"'
}

node_attacks() {
  keeps "shares neither network nor processes with its node" \
    "in the network of the node" '.spec.hostNetwork = true | del(container.ports)' \
    "among the processes of the node" '.spec.hostPID = true' \
    "in the IPC of the node" '.spec.hostIPC = true' \
    "whose containers see each other" '.spec.shareProcessNamespace = true' \
    "with a port of the node" 'container.ports[0].hostPort = 8080'
  keeps "the scheduler's to place, under the usual runtime and without devices" \
    "with a device by claim" '.spec.resourceClaims = [{name: "a", resourceClaimName: "a"}]' \
    "on a node of its choice" '.spec.nodeName = "other"' \
    "under another runtime" '.spec.runtimeClassName = "other"' \
    "with a device" 'container.volumeMounts |= map(select(.name != "share"))
      | container.volumeDevices = [{name: "share", devicePath: "/dev/a"}]'
}

privilege_attacks() {
  keeps "a user and groups that are not root" \
    "as root" '.spec.securityContext.runAsUser = 0' \
    "that may be root" '.spec.securityContext.runAsNonRoot = false' \
    "whose user is the image's" 'del(.spec.securityContext.runAsUser)' \
    "of the root group" '.spec.securityContext.runAsGroup = 0' \
    "also of the root group" '.spec.securityContext.supplementalGroups += [0]' \
    "that re-owns the share" '.spec.securityContext.fsGroup = 1000' \
    "of a user of Windows" '.spec.securityContext.windowsOptions.runAsUserName = "a"' \
    "with sysctls" '.spec.securityContext.sysctls = [{name: "kernel.shm_rmid_forced", value: "1"}]' \
    "without seccomp" 'del(.spec.securityContext.seccompProfile)' \
    "with seccomp switched off" '.spec.securityContext.seccompProfile.type = "Unconfined"'
  keeps "has no privilege or capability, a read-only root, and the pod's user" \
    "without any security context" 'del(container.securityContext)' \
    "with privileges" 'container.securityContext += {privileged: true, allowPrivilegeEscalation: true}' \
    "that may gain privileges" 'container.securityContext.allowPrivilegeEscalation = true' \
    "that might gain privileges" 'del(container.securityContext.allowPrivilegeEscalation)' \
    "with a capability" 'container.securityContext.capabilities.add = ["NET_ADMIN"]' \
    "with the usual capabilities" 'del(container.securityContext.capabilities.drop)' \
    "with most of the usual capabilities" 'container.securityContext.capabilities.drop = ["NET_RAW"]' \
    "whose container is of a user of Windows" 'container.securityContext.windowsOptions.runAsUserName = "a"' \
    "with a root that can be written" 'container.securityContext.readOnlyRootFilesystem = false' \
    "whose container is root" 'container.securityContext.runAsUser = 0' \
    "whose container is of the root group" 'container.securityContext.runAsGroup = 0' \
    "whose container may be root" 'container.securityContext.runAsNonRoot = false' \
    "whose container has no seccomp" 'container.securityContext.seccompProfile.type = "Unconfined"' \
    "that sees all of /proc" '.spec.hostUsers = false | container.securityContext.procMount = "Unmasked"'
  keeps "under the SELinux and AppArmor rules of its node" \
    "with a SELinux type" '.spec.securityContext.seLinuxOptions.type = "spc_t"' \
    "whose container has a SELinux type" 'container.securityContext.seLinuxOptions.type = "spc_t"' \
    "without AppArmor" '.spec.securityContext.appArmorProfile.type = "Unconfined"' \
    "whose container has no AppArmor" 'container.securityContext.appArmorProfile.type = "Unconfined"' \
    "with AppArmor switched off" '.metadata.annotations["container.apparmor.security.beta.kubernetes.io/uploader"] = "unconfined"'
  holds "something in the cluster may choose its SELinux level" try_pod '.spec.securityContext.seLinuxOptions.level = "s0:c1,c2"'
}

volume_attacks() {
  local token='{projected: {sources: [{serviceAccountToken: {path: "token"}}]}}'
  local secret='{projected: {sources: [{secret: {name: "azure"}}]}}'
  keeps "and no other volume" \
    "with a folder of the node" '.spec.volumes[0] = {name: "share", hostPath: {path: "/"}}' \
    "with a folder of the node beside the share" '.spec.volumes += [{name: "other", hostPath: {path: "/"}}]' \
    "with an export of anybody" '.spec.volumes[0] = {name: "share", nfs: {server: "192.0.2.7", path: "/"}}' \
    "with a driver's volume" '.spec.volumes += [{name: "other", csi: {driver: "example.com"}}]' \
    "with a second claim" '.spec.volumes += [{name: "other", persistentVolumeClaim: {claimName: "share"}}]' \
    "with a second Secret" '.spec.volumes += [{name: "other", secret: {secretName: "other"}}]' \
    "with a Secret as its share" '.spec.volumes[0] = {name: "share", secret: {secretName: "other"}}' \
    "with a Secret as its stage" '.spec.volumes += [{name: "staging", secret: {secretName: "other"}}]' \
    "with parts of a Secret" '.spec.volumes[1].secret.items = [{key: "a", path: "sasToken"}]' \
    "with a stage in memory" '.spec.volumes += [{name: "staging", emptyDir: {medium: "Memory"}}]' \
    "with other authorities" '.spec.volumes += [{name: "authorities", configMap: {name: "other"}}]' \
    "with a token for the API server" ".spec.volumes += [{name: \"identity\"} + $token]" \
    "with a Secret beside its token" ".spec.volumes += [{name: \"identity\"} + $secret]" \
    "with a Secret beside the API server's token" ".spec.volumes += [{name: \"kube-api-access-a\"} + $secret]"
  keeps "are where the uploader looks for them" \
    "that uploads its credentials" 'container.volumeMounts += [{name: "credentials", mountPath: "/mnt/nfs/incoming/truck-7"}]' \
    "that uploads its token" \
    ".spec.volumes += [{name: \"kube-api-access-a\"} + $token]
      | container.volumeMounts += [{name: \"kube-api-access-a\", mountPath: \"/mnt/nfs/incoming/truck-7\"}]" \
    "with a part of a volume" 'container.volumeMounts[0].subPath = "other"' \
    "that sees what the node mounts" 'container.volumeMounts[0].mountPropagation = "HostToContainer"'
}

# variable_attacks SNAPSHOT: of a session with a workload identity.
variable_attacks() {
  local add='container.env +=' url
  keeps "has the variables of an uploader, with values from nowhere else" \
    "that goes by another kubeconfig" "$add [{name: \"KUBECONFIG\", value: \"/mnt/nfs/config\"}]" \
    "with another API server" "$add [{name: \"KUBERNETES_SERVICE_HOST\", value: \"192.0.2.1\"}]" \
    "with a connection string" "$add [{name: \"APP_AZURE_CONNECTION_STRING\", value: \"a\"}]" \
    "with a variable from a Secret" "$add [{name: \"APP_RUN_TOKEN\", valueFrom: {secretKeyRef: {name: \"a\", key: \"a\"}}}]" \
    "with a variable from a ConfigMap" "$add [{name: \"APP_RUN_TOKEN\", valueFrom: {configMapKeyRef: {name: \"a\", key: \"a\"}}}]" \
    "with all of a Secret" 'container.envFrom = [{secretRef: {name: "other"}}]' \
    "that gives away its account's token" "$add [{name: \"AZURE_FEDERATED_TOKEN_FILE\",
      value: \"/var/run/secrets/kubernetes.io/serviceaccount/token\"}]" \
    "that trusts what is on the share" "$add [{name: \"SSL_CERT_DIR\", value: \"/mnt/nfs\"}]" \
    "with credentials from the share" "$add [{name: \"APP_CREDENTIALS_DIR\", value: \"/mnt/nfs\"}]" \
    "that stages elsewhere" "$add [{name: \"APP_LOCAL_STAGING_ROOT\", value: \"/mnt/nfs\"}]" \
    "that reports for another session" "$add [{name: \"APP_SESSION_OBJECT\", value: \"other\"}]" \
    "that reports in another namespace" "$add [{name: \"APP_SESSION_NAMESPACE\", value: \"other\"}]"
  keeps "works in folders of its share" \
    "that uploads what is not on the share" "$add [{name: \"APP_NFS_INCOMING_DIR\", value: \"/var/run/secrets\"}]" \
    "that leaves the share" "$add [{name: \"APP_NFS_PROCESSING_ROOT\", value: \"/mnt/nfs/../../etc\"}]"
  keeps "uploads to hosts of the chart's accountHostSuffixes" \
    "without an account" 'container.env |= map(select(.name != "APP_AZURE_ACCOUNT_URL"))'
  for url in https://evil.example.com https://evil.example.com/.blob.core.windows.net \
    https://acct.blob.core.windows.net.evil.example.com https://acct.blob.core.windows.net@evil.example.com \
    https://evil.example.com#.blob.core.windows.net \
    'https://evil.example.com\\.blob.core.windows.net' ftp://acct.blob.core.windows.net; do
    keeps "uploads to hosts of the chart's accountHostSuffixes" \
      "for $url" "$add [{name: \"APP_AZURE_ACCOUNT_URL\", value: \"$url\"}]"
  done
  refuses "the operator makes no pod that shows its identity to another host" "and gets tokens from them" \
    try_pod "$add [{name: \"AZURE_AUTHORITY_HOST\", value: \"https://evil.example.com\"}]" "$1"
}

# try_volume CHANGE: the volume of an allowed export with this change.
try_volume() {
  attempt /api/v1/persistentvolumes \
    "$(volume blobferry-a blobferry-operator '"nfs":{"server":"192.0.2.7","path":"/srv/drop"}' blobferry-a | jq "$1")"
}

# try_claim CHANGE: the claim for it.
try_claim() {
  attempt "/api/v1/namespaces/$NAMESPACE/persistentvolumeclaims" "$(
    jq "$1" <<<'{"kind":"PersistentVolumeClaim","apiVersion":"v1","metadata":{"name":"blobferry-a",'"$OURS"'},
      "spec":{"volumeName":"blobferry-a","storageClassName":"","volumeMode":"Filesystem","accessModes":["ReadWriteMany"],
        "resources":{"requests":{"storage":"1Gi"}}}}'
  )"
}

source_attacks() {
  local exports="only volumes of exports that the chart's nfs.allowed has" of_the_same="for the volume of the same name"
  holds "the operator makes the volume of an allowed export" try_volume .
  holds "the operator makes the volume of an export as people write it" try_volume '.spec.nfs.path = "/srv//./drop/a/"'
  holds "the operator makes a volume with mount options" \
    try_volume '.spec.mountOptions = ["hard", "nfsvers=4.1", "actimeo=5", "rsize=1048576", "wsize=1048576"]'
  refuses "the operator makes no volume of another server" "$exports" try_volume '.spec.nfs.server = "192.0.2.8"'
  refuses "the operator makes no volume of a folder above" "$exports" try_volume '.spec.nfs.path = "/srv"'
  refuses "the operator makes no volume of a folder whose name begins alike" "$exports" try_volume '.spec.nfs.path = "/srv/dropped"'
  refuses "the operator makes no volume of a folder that leads up" "$exports" try_volume '.spec.nfs.path = "/srv/drop/../other"'
  refuses "the operator makes no volume for another namespace" "$exports" try_volume '.spec.claimRef.namespace = "default"'
  refuses "the operator makes no volume with soft mounts" "mount options that sessions may name" \
    try_volume '.spec.mountOptions = ["hard", "soft"]'
  refuses "the operator makes no volume with options in an option" "mount options that sessions may name" \
    try_volume '.spec.mountOptions = ["nfsvers=4.1,suid"]'
  holds "the operator makes the claim of its volume" try_claim .
  refuses "the operator makes no claim under another name" "names start with blobferry-" \
    try_claim '.metadata.name = "other" | .spec.volumeName = "other"'
  refuses "the operator makes no claim of somebody's volume" "$of_the_same" try_claim '.spec.volumeName = "foreign"'
  refuses "the operator makes no claim of any volume" "$of_the_same" try_claim 'del(.spec.volumeName)'
  refuses "the operator makes no claim of a class" "$of_the_same" try_claim '.spec.storageClassName = "fast"'
  refuses "the operator makes no claim that is a copy" "$of_the_same" \
    try_claim '.spec.dataSource = {kind: "PersistentVolumeClaim", name: "other"}'
}

# try_account CHANGE: the account of uploaders, in a namespace that has none.
try_account() {
  attempt /api/v1/namespaces/default/serviceaccounts "$(
    jq "$1" <<<'{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"blobferry-uploader",'"$OURS"'}}'
  )"
}

# try_binding CHANGE: the binding of uploaders, in a namespace that has none.
try_binding() {
  attempt /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings "$(
    jq "$1" <<<'{"kind":"RoleBinding","apiVersion":"rbac.authorization.k8s.io/v1",
      "metadata":{"name":"blobferry-uploader",'"$OURS"'},
      "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"blobferry-uploader"},
      "subjects":[{"kind":"ServiceAccount","name":"blobferry-uploader","namespace":"default"}]}'
  )"
}

grants_attacks() {
  holds "the operator makes the account of uploaders" try_account .
  refuses "the operator makes no other account" "only accounts named blobferry-uploader" try_account '.metadata.name = "other"'
  refuses "the operator makes no account with a Secret" "names no Secrets" try_account '.secrets = [{name: "other"}]'
  refuses "the operator makes no account with a registry's Secret" "names no Secrets" \
    try_account '.imagePullSecrets = [{name: "other"}]'
  holds "the operator binds the role of uploaders" try_binding .
  holds "the operator binds it to accounts that sessions name" \
    try_binding '.subjects += [{kind: "ServiceAccount", name: "own", namespace: "default"}]'
  refuses "the operator binds no role that can do more than it" \
    "is attempting to grant RBAC permissions not currently held" try_binding '.roleRef.name = "cluster-admin"'
  refuses "the operator does not bind its own role" \
    "binds only the role of uploaders" try_binding '.roleRef.name = "blobferry-operator"'
  refuses "the operator binds under no other name" "only bindings named blobferry-uploader" try_binding '.metadata.name = "other"'
  refuses "the operator binds no accounts of other namespaces" "binds only accounts of the namespace" \
    try_binding '.subjects[0].namespace = "kube-system"'
  refuses "the operator binds no people" "binds only accounts of the namespace" \
    try_binding '.subjects = [{kind: "Group", name: "system:authenticated", apiGroup: "rbac.authorization.k8s.io"}]'
  kubectl --namespace default create rolebinding blobferry-uploader --clusterrole blobferry-uploader --user somebody >/dev/null
  refuses "the operator changes no binding of others" "changes and deletes only objects labelled" \
    merge "$OPERATOR" /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/blobferry-uploader \
    '{"metadata":{"labels":{"app.kubernetes.io/managed-by":"blobferry-operator"}},"subjects":[]}'
  kubectl --namespace default delete rolebinding blobferry-uploader >/dev/null
}

# try_event CHANGE: an event of a session.
try_event() {
  attempt "/apis/events.k8s.io/v1/namespaces/$NAMESPACE/events" "$(
    jq "$1" <<<'{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"one.a"},
      "regarding":{"apiVersion":"blobferry.io/v1alpha1","kind":"UploadSession","name":"one","namespace":"'"$NAMESPACE"'"},
      "reportingController":"blobferry.io/operator","reportingInstance":"a","action":"Start","reason":"UploaderCreated",
      "type":"Normal","note":"A note.","eventTime":"2026-11-21T00:00:00.000000Z"}'
  )"
}

# foreign_event: an event that somebody else has told.
foreign_event() {
  cat <<END
apiVersion: v1
kind: Event
metadata: {name: foreign, namespace: $NAMESPACE}
involvedObject: {apiVersion: v1, kind: Pod, name: bystander, namespace: $NAMESPACE}
source: {component: other}
reason: Other
type: Normal
END
}

event_attacks() {
  holds "the operator tells of a session" try_event .
  refuses "the operator tells of nothing else" "tells only of sessions" \
    try_event '.regarding |= (.kind = "Pod" | .apiVersion = "v1")'
  refuses "the operator tells under no other name" "under its own name" try_event '.reportingController = "kubelet"'
  foreign_event | kubectl apply --filename - >/dev/null
  refuses "the operator changes no event of others" "the operator tells only of sessions" \
    merge "$OPERATOR" "/apis/events.k8s.io/v1/namespaces/$NAMESPACE/events/foreign" '{"metadata":{"annotations":{"a":"b"}}}'
}

operator_attacks() {
  pod_attacks
  source_attacks
  grants_attacks
  event_attacks
}
