# shellcheck shell=bash
# Counting checks in a script: each has a sentence, and the last line is `N passed, N failed`. Sourced, never run.

PASSED=0
FAILED=0

# holds SENTENCE COMMAND...: passes when the command succeeds.
holds() {
  local sentence=$1 output
  shift
  if output=$("$@" 2>&1); then
    pass "$sentence"
  else
    fail "$sentence" "$output"
  fi
}

# answers SENTENCE TEXT COMMAND...: passes when the command succeeds and its output contains the text.
answers() {
  local sentence=$1 text=$2 output
  shift 2
  if output=$("$@" 2>&1) && grep --quiet --fixed-strings -- "$text" <<<"$output"; then
    pass "$sentence"
  else
    fail "$sentence" "expected: $text"$'\n'"$output"
  fi
}

# lacks SENTENCE PATTERN COMMAND...: passes when the command succeeds and its output has no line with the extended regular expression.
lacks() {
  local sentence=$1 pattern=$2 output
  shift 2
  if ! output=$("$@" 2>&1); then
    fail "$sentence" "$output"
  elif output=$(grep --extended-regexp -- "$pattern" <<<"$output"); then
    fail "$sentence" "unexpected: $output"
  else
    pass "$sentence"
  fi
}

# refuses SENTENCE TEXT COMMAND...: passes when the command fails and its output contains the text.
refuses() {
  local sentence=$1 text=$2 output
  shift 2
  if output=$("$@" 2>&1); then
    fail "$sentence" "it was accepted"$'\n'"$output"
  elif grep --quiet --fixed-strings -- "$text" <<<"$output"; then
    pass "$sentence"
  else
    fail "$sentence" "expected: $text"$'\n'"$output"
  fi
}

pass() {
  PASSED=$((PASSED + 1))
  printf 'ok      %s\n' "$1"
}

fail() {
  FAILED=$((FAILED + 1))
  printf 'FAILED  %s\n%s\n' "$1" "$(tail -n 20 <<<"$2" | sed 's/^/        /')"
}

# checks_end: the summary, and the exit status that goes with it.
checks_end() {
  printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

# with_control_plane NAME: exports KUBECONFIG of that bed. A bed that was not up before is a control plane without a node, and ends
# with the script.
with_control_plane() {
  local name=$1 exports
  if ! "$TESTBED/bed" status "$name" >/dev/null 2>&1; then
    "$TESTBED/bed" up --control-plane "$name"
    # shellcheck disable=SC2064 # the name of now
    trap "'$TESTBED/bed' down '$name'" EXIT
  fi
  # In two steps: an eval of nothing succeeds, and the checks would go on in the cluster of the person's kubeconfig.
  exports=$("$TESTBED/bed" env "$name")
  eval "$exports"
}

# What the chart needs to install.
# shellcheck disable=SC2034 # used by the scripts that source this
CHART_VALUES=(
  --set image.operator.repository=localhost/blobferry-operator --set image.operator.tag=dev
  --set image.uploader.repository=localhost/blobferry-uploader --set image.uploader.tag=dev
)
