# shellcheck shell=bash
# Deliberate defects, each a patch, in a copy of the tree. Who sources this sets MUTANTS, the folder of the patches, and has a function
# `hunt NAME LOG` that is true if the defect is seen; it is called in the copy, with the patch applied, and writes to LOG.

# mutant_names NAME...: those that are given, or all.
mutant_names() {
  if (($#)); then printf '%s\n' "$@"; else (cd "$MUTANTS" && printf '%s\n' *.patch | sed 's/\.patch$//'); fi
}

# check_mutants: whether every patch still applies.
check_mutants() {
  local patch
  cd "$REPOSITORY" || return
  for patch in "$MUTANTS"/*.patch; do
    git apply --check "$patch" || die "$(basename "$patch") does not apply any more: make it anew"
  done
}

# hunt_mutants WORK NAME...: hunts them one by one in the folder WORK, which the caller removes. Whoever has a function `hunt_nothing LOG`
# that is true if nothing is seen without any defect is asked first: else what is seen proves nothing.
hunt_mutants() {
  local work=$1 name caught=0 survived=0
  shift
  copy_tree "$work"
  cd "$work" || return
  if declare -F hunt_nothing >/dev/null; then hunt_nothing "$work/.log" || die "the search fails without any defect"; fi
  for name in "$@"; do
    git apply "$MUTANTS/$name.patch"
    if hunt "$name" "$work/.log"; then caught=$((caught + 1)); else survived=$((survived + 1)); fi
    git apply --reverse "$MUTANTS/$name.patch"
  done
  printf '%s caught, %s survived\n' "$caught" "$survived"
  ((survived == 0))
}

# copy_tree WORK: what is committed and what is not, without build results. Those of the copy have a folder of their own, because cargo
# tells the two trees' packages apart by their files' times only, and would take a broken one for the project's.
copy_tree() {
  rm -rf "$1"
  mkdir -p "$1"
  cd "$REPOSITORY" || return
  git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents --preserve=timestamps --target-directory "$1" 2>/dev/null || true
  git -C "$1" init --quiet
  CARGO_TARGET_DIR=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/mutants
  export CARGO_TARGET_DIR
}
