# shellcheck shell=bash
# What a bed is called, where its files are, and which addresses it has.
# shellcheck disable=SC2034 # used by the other parts

BEDS=$STATE/beds

# The addresses inside may repeat in every bed; only the link to the host differs.
POD_NETWORK=10.244.0.0/24
SERVICE_NETWORK=10.96.0.0/16
API_SERVICE_ADDRESS=10.96.0.1

# Links between hosts and beds are taken from 198.18.0.0/15, which RFC 2544 sets
# aside for test networks: nobody's own network is there.
link_network() { printf '198.18.%s.0/24\n' "$1"; }
host_address() { printf '198.18.%s.1\n' "$1"; }
bed_address() { printf '198.18.%s.2\n' "$1"; }
host_link() { printf 'blobferry%s\n' "$1"; }

# use_bed NAME: sets the paths of one bed.
use_bed() {
  BED_NAME=$1
  [[ $BED_NAME =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] ||
    die "a bed's name has 1 to 20 small letters, digits and inner dashes, not '$BED_NAME'"
  require_visible BLOBFERRY_STATE "$STATE"
  require_visible BLOBFERRY_CACHE "$CACHE"
  BED_DIR=$BEDS/$BED_NAME
  BED_LOCK=$CACHE/locks/bed-$BED_NAME
  BED_SHARE=$BED_DIR/share
  BED_KUBECONFIG=$BED_DIR/admin.kubeconfig
  BED_NODE=bed-$BED_NAME
  # A bed of that name may run from another place as well.
  BED_CGROUP=blobferry/$BED_NAME-$(hash_of <(printf '%s' "$BED_DIR"))
  if [[ -e $BED_DIR/index ]]; then use_index "$(<"$BED_DIR/index")"; fi
}

# A bed has folders of its own in place of these.
require_visible() {
  case $2/ in
    /var/lib/* | /var/log/* | /run/*) die "a bed cannot see $2: set $1 to a place outside /var/lib, /var/log and /run" ;;
  esac
}

use_index() {
  BED_INDEX=$1
  BED_ADDRESS=$(bed_address "$BED_INDEX")
}

# claim_index: takes the first index whose network nobody has, and keeps it in the bed's folder.
claim_index() {
  local index
  for index in {0..255}; do
    if index_is_free "$index"; then
      printf '%s\n' "$index" >"$BED_DIR/index"
      use_index "$index"
      return
    fi
  done
  die "no free network for a bed in 198.18.0.0/16"
}

index_is_free() {
  local other
  for other in "$BEDS"/*/index; do
    [[ ! -e $other || $(<"$other") != "$1" ]] || return 1
  done
  [[ ! -e /sys/class/net/$(host_link "$1") && -z $(ip -4 route show to root "$(link_network "$1")") ]]
}
