# shellcheck shell=bash
# The disk that every virtual machine starts from: a small Debian with a kernel
# that has NFS, containerd and the Kubernetes binary. It lives in the cache.

# shellcheck disable=SC2034 # used by name
declare -A VM_PACKAGE_OF=(
  [debootstrap]=debootstrap
  [mkfs.ext4]=e2fsprogs
  [qemu-system-x86_64]=qemu-system-x86
  [ssh]=openssh-client
)

# What the server and two nodes take.
VM_FREE_GIB=4

# cannot_emulate: says why there can be no virtual machine here; false when there can.
cannot_emulate() {
  if [[ $(uname -m) != x86_64 ]]; then
    echo "virtual machines are made for x86_64 only, and this is $(uname -m)"
  elif [[ ! -c /dev/net/tun ]]; then
    echo "virtual machines need /dev/net/tun"
  elif ! command -v apt-get >/dev/null; then
    echo "their disk is made from Debian packages, and this system has no apt-get"
  elif ! unshare --net ip tuntap add probe mode tap 2>/dev/null; then
    echo "virtual machines need tap interfaces, and this kernel makes none"
  else
    return 1
  fi
}

# lacks_memory: says so when virtual machines would not fit; false when they do.
lacks_memory() {
  local free
  free=$(($(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo) / 1024 ** 2))
  ((free < VM_FREE_GIB)) && echo "virtual machines need $VM_FREE_GIB GiB of free memory, and this machine has $free"
}

# provide_vm_image: the image and the kernel, in the cache.
provide_vm_image() {
  local reason
  if reason=$(cannot_emulate); then die "$reason"; fi
  install_missing VM_PACKAGE_OF
  locked "$CACHE/locks/vm" provide_vm_parts
}

provide_vm_parts() {
  local root image
  root=$(vm_root)
  [[ -d $root ]] || step "fetch Debian for virtual machines (1 to 3 minutes, once)" fetch_debian "$root"
  forget_others "$root" "$CACHE"/vm-root-*
  image=$(vm_image)
  [[ -e $image ]] || step "make the disk of virtual machines" make_vm_image "$root" "$image"
  forget_others "$image" "$CACHE"/vm-disk-*
}

vm_root() { printf '%s\n' "$CACHE/vm-root-$(hash_of "$TESTBED/vm/packages")"; }
vm_image() { printf '%s\n' "$CACHE/vm-disk-$(hash_of "$TESTBED"/vm/* <(readlink "$BIN/kubernetes"))"; }
vm_kernel() { printf '%s\n' "$(vm_root)/boot/vmlinuz"; }

# fetch_debian ROOT: complete when it has that name.
fetch_debian() {
  rm -rf "$1.new"
  # No initial RAM disk, since the kernel has the drivers of the disk; and no syncs for a folder that is thrown away if it is not complete.
  # What it mounts ends with it, also when it is killed.
  INITRD=No DPKG_FORCE=unsafe-io unshare --mount debootstrap --variant=minbase --include="$(paste --serial --delimiters=, "$TESTBED/vm/packages")" bookworm "$1.new"
  rm -rf "$1.new"/var/cache/apt/* "$1.new"/var/lib/apt/lists/* "$1.new"/usr/share/{doc,man,locale} "$1.new"/boot/initrd*
  mv "$1.new"/boot/vmlinuz-* "$1.new/boot/vmlinuz"
  mv "$1.new" "$1"
}

# make_vm_image ROOT IMAGE: a file with holes; `mkfs.ext4 -d` needs no mount.
make_vm_image() {
  local work
  work=$(mktemp -d --tmpdir="$CACHE")
  cp --archive --link "$1" "$work/root"
  fill_vm_root "$work/root"
  mkfs.ext4 -q -F -m 0 -O ^metadata_csum_seed -E lazy_itable_init=1,lazy_journal_init=1 -d "$work/root" "$work/image" 6G
  mv "$work/image" "$2"
  rm -rf "$work"
}

# Files are links to those in the cache: they are replaced, never written to.
fill_vm_root() {
  local root=$1 component
  mkdir -p "$root/bed" "$root/export" "$root/etc/dropbear"
  install -m 755 "$TESTBED"/vm/{boot,service,nfs,halt} "$root/bed"
  install -m 644 "$TESTBED/vm/containerd.toml" "$root/bed"
  ln -sf /bin/busybox "$root/sbin/init"
  install -m 644 "$TESTBED/vm/inittab" "$root/etc/inittab"
  ln -sf /bed/authorized_keys "$root/etc/dropbear/authorized_keys"
  mkdir -p "$root/root/.ssh"
  ln -sf /bed/authorized_keys "$root/root/.ssh/authorized_keys"
  install -m 755 "$BIN/kubernetes" "$root/usr/local/bin/kubernetes"
  for component in kubelet kube-proxy kubectl; do ln -sf kubernetes "$root/usr/local/bin/$component"; done
}
