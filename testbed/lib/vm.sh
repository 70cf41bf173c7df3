# shellcheck shell=bash
# Virtual machines in a bed: NFS servers (`nfs1`, ...) and nodes (`node1`, ...),
# under plain emulation. They are processes of the bed and end with it. Their
# kernel has what the machine's own may lack: NFS, client and server.

VM_NETWORK=172.30.0
VM_BRIDGE=vms

# bed_vm COMMAND VM [ARGUMENT...]
bed_vm() {
  local command=${1:-} vm=${2:-}
  require_bed
  case $command in
    start | stop | kill | unplug | plug | ssh | load) ;;
    *) die "usage: testbed/bed vm start|stop|kill|unplug|plug|ssh|load VM [ARGUMENT...]" ;;
  esac
  use_vm "$vm"
  shift 2
  "vm_$command" "$@"
}

# use_vm VM: what follows from its name. A node's pods have a network of their own.
use_vm() {
  VM=$1
  [[ $VM =~ ^(nfs|node)([1-9])$ ]] || die "a virtual machine is called nfs1 to nfs9 or node1 to node9, not '$VM'"
  VM_ROLE=${BASH_REMATCH[1]}
  local number=${BASH_REMATCH[2]}
  case $VM_ROLE in
    nfs) VM_NUMBER=$((10 + number)) VM_MEMORY=1024 VM_CPUS=1 ;;
    node) VM_NUMBER=$((20 + number)) VM_MEMORY=1536 VM_CPUS=2 ;;
  esac
  VM_ADDRESS=$VM_NETWORK.$VM_NUMBER
  VM_DIR=$BED_DIR/vm/$VM
}

# vm_start: boots it, with the disks that it had before; ready when it returns.
vm_start() {
  provide_vm_image
  mkdir -p "$VM_DIR"
  if vm_runs; then
    step "$VM: runs already" mend_vm
  else
    step "$VM: disks and network" prepare_vm
    step "$VM: boot" boot_vm
    if [[ -e $VM_DIR/console.broken ]]; then note "$VM broke down and was booted again: $(tail -n 3 "$VM_DIR/console.broken")"; fi
  fi
}

# mend_vm: whoever stopped its services may have been killed before they were back.
mend_vm() {
  if [[ $VM_ROLE == nfs ]]; then vm_ssh /bed/nfs start; fi
  await_vm || die "$VM runs and is not ready; its last words: $(last_words)"
}

prepare_vm() {
  locked "$BED_DIR/vm/lock" prepare_shared
  [[ -e $VM_DIR/disk ]] || cp --sparse=always "$(vm_image)" "$VM_DIR/disk"
  [[ -e $VM_DIR/data ]] || mkfs.ext4 -q -F -m 0 "$VM_DIR/data" 4G
  [[ -e $VM_DIR/seed ]] || make_seed
  bed_enter ip link show "$VM" || bed_enter ip tuntap add "$VM" mode tap
  bed_enter ip link set "$VM" master "$VM_BRIDGE" up
  if [[ $VM_ROLE == node ]]; then bed_enter ip route replace "$(vm_pod_network)" via "$VM_ADDRESS"; fi
}

# prepare_shared: what all machines of the bed have in common.
prepare_shared() {
  [[ -e $BED_DIR/vm/key ]] || ssh-keygen -q -t ed25519 -N '' -f "$BED_DIR/vm/key"
  if ! bed_enter ip link show "$VM_BRIDGE"; then
    # With a fixed address: else it follows those of its ports.
    bed_enter ip link add "$VM_BRIDGE" address 52:54:00:00:00:01 type bridge
    bed_enter ip address add "$VM_NETWORK.1/24" dev "$VM_BRIDGE"
    bed_enter ip link set "$VM_BRIDGE" up
  fi
}

vm_pod_network() { printf '10.244.%s.0/24\n' "$VM_NUMBER"; }

# boot_vm: served before others, because everybody waits for what is emulated. Raw
# files without syncs are right for power cuts: what the guest has written to its
# disk survives in the host's cache, what was in its memory is lost. On a busy
# machine the emulation itself has failed, seen once each: a disk that no longer
# answered, a processor without its timer. Such a machine boots again.
boot_vm() {
  rm -f "$VM_DIR/console.broken"
  for _ in 1 2 3; do
    emulate
    ! await_vm broke_down || return 0
    cp "$VM_DIR/console" "$VM_DIR/console.broken"
    vm_kill
  done
  die "$VM does not boot; its last words: $(last_words)"
}

emulate() {
  rm -f "$VM_DIR/pid" "$VM_DIR/boot"
  bed_enter nice -n -5 qemu-system-x86_64 -name "$VM" -machine q35 -accel tcg,thread=multi,tb-size=256 -cpu max \
    -smp "$VM_CPUS" -m "$VM_MEMORY" -nodefaults -no-user-config -display none -no-reboot \
    -daemonize -pidfile "$VM_DIR/pid" -serial "file:$VM_DIR/console" \
    -kernel "$(vm_kernel)" -append "root=/dev/nvme0n1 rw console=ttyS0 quiet mitigations=off nokaslr panic=1" \
    -device nvme,id=disks,serial=bed \
    -drive "if=none,id=d1,format=raw,cache=unsafe,file=$VM_DIR/disk" -device nvme-ns,drive=d1,nsid=1 \
    -drive "if=none,id=d2,format=raw,readonly=on,file=$VM_DIR/seed" -device nvme-ns,drive=d2,nsid=2 \
    -drive "if=none,id=d3,format=raw,cache=unsafe,file=$VM_DIR/data" -device nvme-ns,drive=d3,nsid=3 \
    -netdev "tap,id=n0,ifname=$VM,script=no,downscript=no" \
    -device "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:$VM_NUMBER"
}

# await_vm [SIGN]: false when it is not ready after 300 s, or SIGN says before that it will not be. It is not asked more often, because every
# question takes time from what an emulated machine has to do.
await_vm() {
  local sign=${1:-false} deadline=$((SECONDS + 300))
  until vm_is_ready; do
    ! "$sign" && ((SECONDS < deadline)) || return 1
    sleep 0.5
  done
}

# broke_down: its kernel says so.
broke_down() { grep --quiet --text --extended-regexp 'I/O error, dev nvme|rcu: .* (stall|starved)' "$VM_DIR/console"; }

last_words() { tail -n 3 "$VM_DIR/console"; }

# vm_is_ready: of a node, that this boot of it is; the cluster may still speak of the one before.
vm_is_ready() {
  case $VM_ROLE in
    nfs) (($(vm_ssh /bed/nfs threads) > 0)) ;;
    node)
      [[ -s $VM_DIR/boot ]] || vm_ssh cat /proc/sys/kernel/random/boot_id >"$VM_DIR/boot" || return 1
      [[ $(KUBECONFIG=$BED_KUBECONFIG NO_PROXY=$BED_ADDRESS kubectl get node "$VM" --output \
        'jsonpath={.status.nodeInfo.bootID} {.status.conditions[?(@.type=="Ready")].status}') == "$(<"$VM_DIR/boot") True" ]]
      ;;
  esac
}

vm_runs() { [[ -e $VM_DIR/pid ]] && bed_enter kill -0 "$(<"$VM_DIR/pid")" 2>/dev/null; }
vm_is_off() { ! vm_runs; }

# vm_stop: as its power button does.
vm_stop() {
  vm_runs || return 0
  vm_ssh busybox poweroff || true
  wait_until 60 vm_is_off || die "$VM does not shut down"
}

# vm_kill: a power cut.
vm_kill() {
  vm_runs || return 0
  bed_enter kill -KILL "$(<"$VM_DIR/pid")"
  wait_until 60 vm_is_off || die "$VM does not end"
}

# vm_unplug, vm_plug: its network cable.
vm_unplug() { bed_enter ip link set "$VM" nomaster; }
vm_plug() { bed_enter ip link set "$VM" master "$VM_BRIDGE"; }

# vm_ssh COMMAND...: runs it in the machine; fails two minutes after the machine lost its power.
vm_ssh() {
  bed_enter ssh -q -i "$BED_DIR/vm/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10 \
    -o ServerAliveInterval=10 -o ServerAliveCountMax=12 -o BatchMode=yes "root@$VM_ADDRESS" "$@"
}

# vm_load ARCHIVE...: docker archives become images of the node.
vm_load() {
  local archive
  for archive in "$@"; do
    step "$VM: load $(basename "$archive")" load_into_vm "$archive"
  done
}

# load_into_vm ARCHIVE: also onto its disk, or a power cut soon after leaves programs of zeros.
load_into_vm() { vm_ssh 'ctr --namespace k8s.io images import - && sync' <"$1"; }

# make_seed: what distinguishes this machine from others with the same disk.
make_seed() {
  local folder=$VM_DIR/seed.d/bed
  mkdir -p "$folder"/{cni,images}
  printf 'NAME=%s\nROLE=%s\nADDRESS=%s\nGATEWAY=%s\n' "$VM" "$VM_ROLE" "$VM_ADDRESS" "$VM_NETWORK.1" >"$folder/environment"
  cp "$BED_DIR/vm/key.pub" "$folder/authorized_keys"
  if [[ $VM_ROLE == node ]]; then
    issue_client "$VM" "/O=system:nodes/CN=system:node:$VM" "DNS:$VM,IP:$VM_ADDRESS"
    cp "$BED_DIR/$VM.kubeconfig" "$folder/kubelet.kubeconfig"
    cp "$BED_DIR/kube-proxy.kubeconfig" "$folder"
    cp "$(certificate_of ca)" "$folder/ca.crt"
    cp "$(certificate_of "$VM")" "$folder/kubelet.crt"
    cp "$(key_of "$VM")" "$folder/kubelet.key"
    cp "$(pause_archive)" "$folder/images/pause.tar"
    write_vm_kubelet_config >"$folder/kubelet.yaml"
    write_vm_proxy_config >"$folder/kube-proxy.yaml"
    write_vm_network_config >"$folder/cni/10-bed.conflist"
  fi
  tar --create --owner=0 --group=0 --file "$VM_DIR/seed" --directory "$VM_DIR/seed.d" bed
}

write_vm_kubelet_config() {
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /bed/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: /bed/kubelet.crt
tlsPrivateKeyFile: /bed/kubelet.key
containerRuntimeEndpoint: unix://$CONTAINERD_SOCKET
cgroupDriver: cgroupfs
clusterDomain: cluster.local
clusterDNS: [$BED_ADDRESS]
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
YAML
}

write_vm_proxy_config() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $VM
clientConnection: {kubeconfig: /bed/kube-proxy.kubeconfig}
clusterCIDR: 10.244.0.0/16
YAML
}

write_vm_network_config() {
  cat <<JSON
{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(vm_pod_network)"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}
