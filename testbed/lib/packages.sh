# shellcheck shell=bash
# Programs of the operating system. Only what is missing is installed, and no
# service of it is left running or enabled.

# Command and the Debian package that has it.
# shellcheck disable=SC2034 # used by name
declare -A PACKAGE_OF=(
  [buildah]=buildah
  [conntrack]=conntrack
  [containerd]=containerd
  [curl]=curl
  [ip]=iproute2
  [nft]=nftables
  [openssl]=openssl
  [pgrep]=procps
  [runc]=runc
  [shellcheck]=shellcheck
  [unshare]=util-linux
  [/usr/lib/cni/bridge]=containernetworking-plugins
)

# install_packages: gets every command of PACKAGE_OF that is missing.
install_packages() { install_missing PACKAGE_OF; }

# install_missing TABLE: the same for a table of commands and packages.
install_missing() {
  local -n package_of=$1
  local command
  local -a missing=()
  for command in "${!package_of[@]}"; do
    has_command "$command" || missing+=("${package_of[$command]}")
  done
  ((${#missing[@]} == 0)) && return
  has_command apt-get || die "missing: ${missing[*]} (names of Debian packages; install them your system's way)"
  step "apt-get install ${missing[*]}" quiet_install "${missing[@]}"
}

# has_command NAME|/cni/plugin: plugins live in different folders on different systems.
has_command() {
  case $1 in
    /usr/lib/cni/*) cni_folder >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# cni_folder: where the network plugins are.
cni_folder() {
  local folder
  for folder in /usr/lib/cni /usr/libexec/cni /opt/cni/bin; do
    [[ -x $folder/bridge && -x $folder/host-local && -x $folder/portmap ]] && printf '%s\n' "$folder" && return
  done
  return 1
}

# quiet_install PACKAGE...: installs without starting services. The install
# scripts start a service only where they see systemd, so they run in a mount
# namespace without it; what they enabled for the next boot is disabled again.
quiet_install() {
  local had_containerd=no
  systemctl is-enabled containerd.service >/dev/null 2>&1 && had_containerd=yes
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
  apt-get update
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --mount bash -euc '
    if [[ -d /run/systemd ]]; then mount -t tmpfs tmpfs /run/systemd; fi
    exec apt-get install --yes --no-install-recommends "$@"' install "$@"
  if [[ $had_containerd == no && " $* " == *" containerd "* ]]; then
    systemctl disable containerd.service || rm -f /etc/systemd/system/multi-user.target.wants/containerd.service
  fi
}
