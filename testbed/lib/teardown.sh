# shellcheck shell=bash
# The end of a bed, whatever state it is in.

# File systems that are unmounted with the last process write their data first,
# and a slow disk may have gigabytes of it in its queue.
LONGEST_END=300

# bed_down: ends and removes; without a bed it does nothing.
bed_down() {
  locked "$BED_LOCK" remove_bed
  rmdir "$BEDS" "$STATE" 2>/dev/null || true
}

remove_bed() {
  [[ -e $BED_DIR ]] || return 0
  STEP_TAIL=200 step "bed $BED_NAME: down" end_and_remove
}

end_and_remove() {
  end_processes || {
    describe_remains
    die "bed $BED_NAME does not end: see above what is left of it"
  }
  remove_link
  wait_until 60 remove_cgroups || note "warning: control groups of $BED_CGROUP remain"
  rm -rf --one-file-system "$BED_DIR"
}

# end_processes: with the first process inside the kernel ends all others, then
# the holder ends. Again and again, because a container may be frozen at any time
# before the last process that could freeze it is gone.
end_processes() {
  local deadline=$((SECONDS + LONGEST_END))
  while holder_process >/dev/null; do
    ((SECONDS < deadline)) || return 1
    kill_first_process
    thaw_cgroups
    sleep 0.1
  done
}

kill_first_process() {
  local pid
  pid=$(init_process || holder_process) || return 0
  kill -KILL "$pid" 2>/dev/null || true
}

# remove_link: the network may outlive all processes for minutes, as long as the
# kernel says goodbye to peers that are gone. Nothing but the link is seen of it,
# so it is not waited for. The kernel may be faster.
remove_link() {
  local link
  own_link_exists || return 0
  link=$(host_link "$BED_INDEX")
  ip link delete "$link" || wait_until 60 own_link_is_gone || die "the link $link cannot be removed"
}

own_link_is_gone() { ! own_link_exists; }

own_link_exists() {
  [[ -e $BED_DIR/index ]] && grep -qsxF "$BED_DIR" "/sys/class/net/$(host_link "$BED_INDEX")/ifalias"
}

# thaw_cgroups: runc freezes a container while it kills what is inside. If it is
# killed before it thaws it, the processes inside keep their SIGKILL pending for
# ever under cgroup v1, and their namespace does not end before them.
thaw_cgroups() {
  local file
  frozen_cgroups | while read -r file; do
    case $file in
      */freezer.state) echo THAWED ;;
      */cgroup.freeze) echo 0 ;;
    esac >"$file" || true
  done 2>/dev/null
}

# frozen_cgroups: the file of each that says so, of either version.
frozen_cgroups() {
  local -a groups
  mapfile -t groups < <(bed_cgroups)
  ((${#groups[@]} > 0)) || return 0
  find "${groups[@]}" \( -name freezer.state -exec grep --files-without-match --line-regexp THAWED {} + \) , \
    \( -name cgroup.freeze -exec grep --files-with-matches --line-regexp 1 {} + \) 2>/dev/null || true
}

# bed_cgroups: the bed's folder in every hierarchy.
bed_cgroups() {
  local root
  for root in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    if [[ -d $root/$BED_CGROUP ]]; then printf '%s\n' "${root%/}/$BED_CGROUP"; fi
  done
}

# remove_cgroups: of all hierarchies; the folder above goes with the last bed.
remove_cgroups() {
  local group
  for group in $(bed_cgroups); do
    find "$group" -depth -type d -exec rmdir {} + || return 1
    rmdir --ignore-fail-on-non-empty "$(dirname "$group")"
  done
}

# describe_remains: what a person needs to see why a bed does not end.
describe_remains() {
  local pid
  echo "processes:"
  for pid in $(remaining_processes); do describe_process "$pid"; done
  echo "frozen control groups:"
  frozen_cgroups
  grep -E '^(Dirty|Writeback):' /proc/meminfo
}

# remaining_processes: below the holder, and what is left in the control groups.
remaining_processes() {
  local holder
  {
    if holder=$(holder_process); then
      echo "$holder"
      descendants "$holder"
    fi
    bed_cgroups | while read -r group; do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null; done
  } | sort --numeric-sort --unique
}

descendants() {
  local child
  for child in $(pgrep --parent "$1"); do
    echo "$child"
    descendants "$child"
  done
}

# describe_process PID: name, state, what it waits for in the kernel, and where.
describe_process() {
  local folder=/proc/$1
  printf '  %s %s, state %s, waits in %s, freezer %s\n' "$1" "$(<"$folder/comm")" "$(sed 's/.*) //' "$folder/stat" | cut -d' ' -f1)" \
    "$(<"$folder/wchan")" "$(grep -E '^0::|:freezer:' "$folder/cgroup" | tr '\n' ' ')"
  sed 's/^/      /' "$folder/stack"
} 2>/dev/null
