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
