# shellcheck shell=bash
# What every script of the test bed shares: where things live, how steps are
# shown, how errors end the script. Sourced, never run.
# shellcheck disable=SC2034 # used by the scripts that source this

set -euo pipefail

TESTBED=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPOSITORY=$(dirname "$TESTBED")
CACHE=${BLOBFERRY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/blobferry}
STATE=${BLOBFERRY_STATE:-/var/tmp/blobferry}
BIN=$CACHE/bin

# Debian keeps nft, ip and conntrack where the path of a plain user does not look.
PATH=$BIN:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# note TEXT...: one line for the person; stdout stays free for what scripts read.
note() { printf '%s\n' "$*" >&2; }

# die TEXT...: the end of the script, with its reason.
die() {
  note "error: $*"
  exit 1
}

# step TEXT COMMAND...: runs a command whose output matters only when it fails,
# and prints one line with the time it took. A long command is seen to be alive.
step() {
  local text=$1 started=$SECONDS log ticker status
  shift
  log=$(mktemp)
  tick "$text" "$log" &
  ticker=$!
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1 </dev/null
  status=$?
  set -e
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if ((status != 0)); then
    note "$(printf '%5s s  FAILED: %s; its last lines:' $((SECONDS - started)) "$text")"
    tail -n "${STEP_TAIL:-40}" "$log" >&2
    rm -f "$log"
    exit "$status"
  fi
  rm -f "$log"
  note "$(printf '%5s s  %s' $((SECONDS - started)) "$text")"
}

# tick TEXT LOG: says what is under way after 2 s and then every 30 s, with the
# last line of the log, for as long as the script that started it lives.
tick() {
  local text=$1 log=$2 started=$SECONDS parent=$$ waited=2
  # The end of `step` must not wait for a sleep.
  trap 'kill "$(jobs -p)" 2>/dev/null; exit' TERM
  while kill -0 "$parent" 2>/dev/null; do
    sleep "$waited" &
    wait $! || return 0
    note "$(printf '    ...  %s (%s s) %s' "$text" $((SECONDS - started)) "$(tail -n 1 "$log" 2>/dev/null | sed 's|^ *||' | cut -c1-80)")"
    waited=30
  done
}

# wait_until SECONDS COMMAND...: true as soon as the command succeeds, false
# if it does not succeed once more when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1)) last=false
  shift
  until "$@" >/dev/null 2>&1; do
    if $last; then return 1; fi
    sleep 0.1
    if ((SECONDS >= deadline)); then last=true; fi
  done
}

# hash_of FILE...: a short name for exactly these contents.
hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# enter_bed NAME: this shell uses the bed. In two steps: an eval of nothing
# succeeds, and what follows would work on the cluster of the person's kubeconfig.
enter_bed() {
  local exports
  exports=$("$TESTBED/bed" env "$1")
  eval "$exports"
}

# locked FILE COMMAND...: runs one command at a time among all scripts that name
# the same file. Not to be used in a condition: bash would ignore errors inside.
locked() {
  local file=$1 lock
  shift
  mkdir -p "$(dirname "$file")"
  exec {lock}>>"$file"
  flock "$lock"
  "$@"
  exec {lock}>&-
}
