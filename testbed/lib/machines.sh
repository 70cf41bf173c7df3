# shellcheck shell=bash
# Blobferry on a bed whose sessions reach real NFS: its server and a node are virtual machines.

# As `testbed/bed vm` numbers them.
NFS_SERVER=172.30.0.11

# install_on_nfs ARCHIVES BED: machines and chart at the same time, in the bed of this shell.
install_on_nfs() {
  local uploader machine
  local -a starting=()
  uploader=$(grep blobferry-uploader <<<"$1")
  "$TESTBED/bed" vm start nfs1 &
  starting+=($!)
  start_node node1 "$uploader" &
  starting+=($!)
  # The operator stays on the node that has its image.
  load_and_install_these "$1" "$2" --set "nfs.allowed[0].server=$NFS_SERVER" --set "nfs.allowed[0].pathPrefix=/export" \
    --set "nfs.allowed[1].server=$NFS_SERVER" --set "nfs.allowed[1].pathPrefix=/srv/drop" \
    --set "nodeSelector.kubernetes\.io/hostname=$BED_NODE"
  for machine in "${starting[@]}"; do wait "$machine"; done
}

# start_node NODE ARCHIVE: ready when it returns, and has the image.
start_node() {
  local loaded=$BED_DIR/vm/$1/loaded-image
  "$TESTBED/bed" vm start "$1"
  [[ -e $loaded && $(<"$loaded") == "$2" ]] || "$TESTBED/bed" vm load "$1" "$2"
  printf '%s\n' "$2" >"$loaded"
}
