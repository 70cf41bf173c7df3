# shellcheck shell=bash
# A bed from the outside: start, look at, enter. Its end is in `teardown.sh`.
#
# The folder of a bed holds: `index` (its network), `mode`, `process` (the
# process that holds its namespaces), `ready` or `failure`, `log/`, and the state
# of every component. It exists from `up` to `down`.

# bed_up MODE: a running bed is left alone; the remains of a killed one are removed first.
bed_up() {
  install_packages
  provide_tools
  locked "$BED_LOCK" create_bed "$1"
}

create_bed() {
  local mode=$1 started=$SECONDS
  if bed_runs; then
    [[ $(<"$BED_DIR/mode") == "$mode" ]] || die "bed $BED_NAME runs as $(<"$BED_DIR/mode"): take it down first"
    note "bed $BED_NAME is up already"
    return
  fi
  remove_bed
  mkdir -p "$BED_DIR/log"
  printf '%s\n' "$mode" >"$BED_DIR/mode"
  install --directory --owner=65534 --group=65534 "$BED_SHARE"
  locked "$CACHE/locks/index" claim_index
  step "bed $BED_NAME: keys and certificates" create_pki
  start_init "$mode"
  step "bed $BED_NAME: link to the host" connect_bed
  step "bed $BED_NAME: start ($mode)" await_bed
  note "bed $BED_NAME is up at $BED_ADDRESS, $((SECONDS - started)) s"
}

# start_init MODE: the process that holds the bed's namespaces, on its own in every
# way: session, environment (a proxy set for this shell is not for the bed), open files.
start_init() {
  (
    close_inherited_files
    cd /
    exec setsid env --ignore-environment PATH="$PATH" HOME=/root LANG=C.UTF-8 \
      BLOBFERRY_CACHE="$CACHE" BLOBFERRY_STATE="$STATE" \
      unshare --net --mount --pid --ipc --fork --mount-proc --kill-child \
      "$BASH" "$TESTBED/init" "$BED_NAME" "$1" </dev/null >"$BED_DIR/log/init.log" 2>&1
  ) &
  printf '%s %s\n' $! "$(start_time $!)" >"$BED_DIR/process"
  disown
}

# A caller that reads our output to its end must not wait for the bed, nor a lock.
close_inherited_files() {
  local file
  for file in /proc/self/fd/*; do
    file=${file##*/}
    if ((file > 2)); then eval "exec $file>&-"; fi
  done
}

# start_time PID: distinguishes a process from a later one of the same number.
# Nothing for one that is dead, also when nobody has asked for its exit code yet.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# holder_process: the process outside that holds the namespaces, while it lives.
holder_process() {
  local pid started
  [[ -e $BED_DIR/process ]] || return 1
  read -r pid started <"$BED_DIR/process"
  [[ -n $started && $(start_time "$pid") == "$started" ]] && printf '%s\n' "$pid"
}

# init_process: the first process inside, as the host numbers it.
init_process() {
  local holder
  holder=$(holder_process) && pgrep --parent "$holder" --runstates D,R,S,T
}

# bed_runs: its first process lives, or is about to before the bed has its
# network. One that was killed may be held up by what it still has to end, and the
# process outside may outlive it for a moment; it is of no use any more.
bed_runs() {
  local init
  holder_process >/dev/null || return 1
  if init=$(init_process); then ! is_ending "$init"; else [[ ! -e $BED_DIR/connected ]]; fi
}

# is_ending PID: the kernel is taking the process away (PF_EXITING of linux/sched.h in its flags).
is_ending() {
  local flags
  flags=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f7)
  ((flags & 4))
}

# connect_bed: a pair of interfaces. The alias tells whose the host's end is.
connect_bed() {
  local link init
  link=$(host_link "$BED_INDEX")
  wait_until 60 init_process || die "the bed ended at once; see $BED_DIR/log/init.log"
  init=$(init_process)
  wait_until 60 has_own_network "$init"
  ip link add "$link" type veth peer name eth0 netns "$init"
  ip link set "$link" alias "$BED_DIR" up
  ip address add "$(host_address "$BED_INDEX")/24" dev "$link"
  nsenter --target "$init" --net "$BASH" -ec "
    ip link set lo up
    ip address add $BED_ADDRESS/24 dev eth0
    ip link set eth0 up
    ip route add default via $(host_address "$BED_INDEX")"
  touch "$BED_DIR/connected"
}

has_own_network() { [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }

await_bed() {
  local deadline=$((SECONDS + 600))
  until [[ -e $BED_DIR/ready ]]; do
    if ! bed_runs || ((SECONDS > deadline)); then
      die "bed $BED_NAME did not start: $(cat "$BED_DIR/failure" 2>/dev/null || tail -n 3 "$BED_DIR/log/init.log") (logs in $BED_DIR/log)"
    fi
    sleep 0.1
  done
}

# bed_status: one line; false when the bed is not usable.
bed_status() {
  if ! bed_runs; then
    note "bed $BED_NAME is not up$([[ ! -e $BED_DIR/failure ]] || printf ': %s (logs in %s)' "$(<"$BED_DIR/failure")" "$BED_DIR/log")"
    return 3
  fi
  printf 'bed %s: %s, %s, process %s, since %s\n' "$BED_NAME" "$(<"$BED_DIR/mode")" "$BED_ADDRESS" "$(init_process)" \
    "$(date --reference="$BED_DIR/process" '+%F %T')"
  [[ -e $BED_DIR/ready ]]
}

require_bed() { bed_runs || die "bed $BED_NAME is not up: run \`testbed/bed up $BED_NAME\`"; }

# bed_env: what a shell or a test needs to use the bed, as exports.
bed_env() {
  local no_proxy_list=${NO_PROXY:-${no_proxy:-}}
  require_bed
  cat <<SH
export BLOBFERRY_BED='$BED_NAME'
export KUBECONFIG='$BED_KUBECONFIG' BLOBFERRY_BED_KUBECONFIG='$BED_KUBECONFIG'
export BED_ADDRESS='$BED_ADDRESS' BED_HOST_ADDRESS='$(host_address "$BED_INDEX")'
export BED_DIR='$BED_DIR'
export BED_SHARE='$BED_SHARE'
export BED_NODE='$BED_NODE'
export AZURITE_ACCOUNT_URL='$(azurite_account_url)'
export AZURITE_ACCOUNT_NAME='$AZURITE_ACCOUNT' AZURITE_ACCOUNT_KEY='$AZURITE_KEY'
export BLOBFERRY_AZURITE='$(azurite_folder)/node_modules/.bin/azurite-blob'
export NO_PROXY='$BED_ADDRESS${no_proxy_list:+,$no_proxy_list}' no_proxy='$BED_ADDRESS${no_proxy_list:+,$no_proxy_list}'
export PATH='$BIN':"\$PATH"
SH
}

# bed_load ARCHIVE...: docker archives become images of the node.
bed_load() {
  local archive
  require_bed
  for archive in "$@"; do
    [[ -r $archive ]] || die "no such archive: $archive"
    step "bed $BED_NAME: load $(basename "$archive")" load_archive "$archive"
  done
}

load_archive() { bed_enter ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io images import - <"$1"; }

bed_kubectl() {
  require_bed
  NO_PROXY=$BED_ADDRESS no_proxy=$BED_ADDRESS KUBECONFIG=$BED_KUBECONFIG exec kubectl "$@"
}

# bed_enter COMMAND...: runs a command of the host with the bed's view of the machine.
bed_enter() {
  require_bed
  nsenter --target "$(init_process)" --net --mount --pid --ipc -- "$@"
}

# bed_restart COMPONENT: kills a component of those that init starts again.
bed_restart() {
  require_bed
  [[ -e $BED_DIR/${1:-nothing}.pid ]] || die "only these components can be restarted: kube-apiserver, kubelet"
  touch "$BED_DIR/$1.restart"
  bed_enter kill -KILL "$(<"$BED_DIR/$1.pid")"
}
