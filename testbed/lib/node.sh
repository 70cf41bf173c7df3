# shellcheck shell=bash
# A node that runs real containers. These functions run inside the bed.

CONTAINERD_SOCKET=/run/containerd/containerd.sock

# start_runtime: containerd with state of its own. It needs no API server. Its
# images and the file systems of containers live in memory: the end of each
# overlay writes out all that the disk below has in its queue, whoever wrote it.
start_runtime() {
  mkdir -p "$BED_DIR/containerd"
  mount -t tmpfs -o mode=711 tmpfs "$BED_DIR/containerd"
  write_containerd_config >"$BED_DIR/containerd.toml"
  mkdir -p "$BED_DIR/cni"
  write_network_config >"$BED_DIR/cni/10-bed.conflist"
  launch containerd containerd --config "$BED_DIR/containerd.toml"
}

# start_node PAUSE-ARCHIVE: the scheduler, the kubelet and the service proxy.
start_node() {
  launch kube-scheduler kube-scheduler --kubeconfig "$BED_DIR/kube-scheduler.kubeconfig" \
    --leader-elect=false --bind-address 127.0.0.1
  await 180 containerd ctr --address "$CONTAINERD_SOCKET" version
  import_image "$1" >>"$BED_DIR/log/containerd.log" 2>&1
  prepare_cgroup
  hide_kernel_settings
  write_kubelet_config >"$BED_DIR/kubelet.yaml"
  launch kubelet run_again kubelet kubelet --config "$BED_DIR/kubelet.yaml" --kubeconfig "$BED_DIR/kubelet.kubeconfig" \
    --root-dir "$BED_DIR/kubelet" --hostname-override "$BED_NODE" --node-ip "$BED_ADDRESS"
  write_proxy_config >"$BED_DIR/kube-proxy.yaml"
  launch kube-proxy kube-proxy --config "$BED_DIR/kube-proxy.yaml"
}

await_node() {
  await 180 "the node to register" admin_kubectl get node "$BED_NODE"
  admin_kubectl wait --for=condition=Ready "node/$BED_NODE" --timeout=180s || fail "the node did not become ready"
}

import_image() { ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io images import "$1"; }

# prepare_cgroup: pods get a subtree of their own, so that no other kubelet on
# this machine takes them for its orphans, and `down` knows what to remove.
prepare_cgroup() {
  local root
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    enable_controllers /sys/fs/cgroup
    mkdir -p "/sys/fs/cgroup/$BED_CGROUP"
    enable_controllers "/sys/fs/cgroup/${BED_CGROUP%/*}"
    enable_controllers "/sys/fs/cgroup/$BED_CGROUP"
    return
  fi
  for root in /sys/fs/cgroup/*/; do
    mkdir -p "$root$BED_CGROUP" || continue
    inherit_cpuset "$root${BED_CGROUP%/*}"
    inherit_cpuset "$root$BED_CGROUP"
  done
}

enable_controllers() {
  local controller
  for controller in $(<"$1/cgroup.controllers"); do
    echo "+$controller" >"$1/cgroup.subtree_control" || true
  done
}

# A new cpuset of cgroup v1 is empty, and nothing can run in it.
inherit_cpuset() {
  local file
  for file in cpuset.mems cpuset.cpus; do
    if [[ -e $1/$file && -z $(<"$1/$file") ]]; then cat "$1/../$file" >"$1/$file"; fi
  done
}

# hide_kernel_settings: the kubelet writes these for the whole machine. It gets
# files that already hold what it wants; the machine keeps its own values.
hide_kernel_settings() {
  local setting
  mkdir -p "$BED_DIR/sysctl"
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    printf '%s\n' "${setting#*=}" >"$BED_DIR/sysctl/$(basename "${setting%=*}")"
    mount --bind "$BED_DIR/sysctl/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
  done
}

# overlayfs does not lie on every file system (not on another overlay).
snapshotter() {
  local probe=$BED_DIR/containerd/overlay-probe name=native
  mkdir -p "$probe"/{lower,upper,work,merged}
  if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
    umount "$probe/merged"
    name=overlayfs
  fi
  rm -rf "$probe"
  printf '%s\n' "$name"
}

# Without restrict_oom_score_adj no pod starts where the capability CAP_SYS_RESOURCE is missing.
write_containerd_config() {
  cat <<TOML
version = 2
root = "$BED_DIR/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$CONTAINERD_SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "$BED_DIR/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$(cni_folder)"
    conf_dir = "$BED_DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
TOML
}

write_network_config() {
  cat <<JSON
{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_NETWORK"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}

# Nobody answers for names at the bed's address, so a look-up fails at once.
# No image is collected: without a registry it could not be fetched again.
# What pods have on the disk is measured every few seconds, so that tests need not wait a minute for an eviction.
write_kubelet_config() {
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $(certificate_of ca)}
authorization: {mode: Webhook}
tlsCertFile: $(certificate_of kubelet)
tlsPrivateKeyFile: $(key_of kubelet)
containerRuntimeEndpoint: unix://$CONTAINERD_SOCKET
cgroupDriver: cgroupfs
cgroupRoot: /$BED_CGROUP
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
clusterDomain: cluster.local
clusterDNS: [$BED_ADDRESS]
resolvConf: ""
podLogsDir: $BED_DIR/log/pods
imageGCHighThresholdPercent: 100
volumeStatsAggPeriod: 10s
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
YAML
}

# Settings of the whole machine are not the bed's to change, so conntrack limits stay.
write_proxy_config() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $BED_NODE
clientConnection: {kubeconfig: $BED_DIR/kube-proxy.kubeconfig}
clusterCIDR: $POD_NETWORK
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}
