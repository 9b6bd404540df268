#!/usr/bin/env bash
# Verifies a Promela model, and shows that each planted bug is found.
#
#   testing/model/verify.sh MODEL.pml
#
# The model names its scenarios in lines `// Scenario: SWITCHES`; all of them must hold. What it has behind a switch
# BUG_... is a planted bug: with it, at least one scenario must fail. Exit status 0 if all is so. Needs spin and gcc.
#
# Bazel's shards of the test (TEST_SHARD_INDEX of TEST_TOTAL_SHARDS) share the scenarios and the bugs.
set -euo pipefail

n_shards="${TEST_TOTAL_SHARDS:-1}"
shard="${TEST_SHARD_INDEX:-0}"
[[ -z "${TEST_SHARD_STATUS_FILE:-}" ]] || touch -- "$TEST_SHARD_STATUS_FILE"

model="$(readlink -f -- "$1")"
folder="$(mktemp -d)"
trap 'rm -rf -- "$folder"' EXIT
cd -- "$folder"

# Whether the scenario holds; its report is in the file `report`.
holds() {
  spin "$@" -a "$model" >spin_report || { cat spin_report && exit 2; }
  gcc -O1 -w -DSAFETY -DCOLLAPSE -DMEMLIM=1500 -o pan pan.c
  ./pan -m100000 -w22 >report
  if ! grep -q 'errors: 0' report; then
    grep -q 'errors: 1' report && return 1
    cat report && exit 2
  fi
  # A search that was cut short proves nothing.
  if grep -q 'max search depth too small\|out of memory\|Search not completed' report; then
    cat report && exit 2
  fi
}

# Whether the next of all scenarios and bugs is for this shard.
next=0
is_mine() { ((next++ % n_shards == shard)); }

found_by() {
  local scenario
  for scenario in "${scenarios[@]}"; do
    # shellcheck disable=SC2086 # several switches
    if ! holds "-D$1" $scenario; then
      printf '%s is found: %s\n' "$1" "$(sed -n 's/^pan:1: \(.*\) (at depth .*/\1/p' report)"
      return 0
    fi
  done
  printf '%s is NOT found\n' "$1"
  return 1
}

mapfile -t scenarios < <(sed -n 's,^// Scenario: ,,p' "$model")
mapfile -t bugs < <(sed -n 's/^#if.*\<\(BUG_[A-Z_]*\).*/\1/p' "$model" | sort -u)
((${#scenarios[@]} > 0 && ${#bugs[@]} >= 4))

failed=0
for scenario in "${scenarios[@]}"; do
  is_mine || continue
  # shellcheck disable=SC2086 # several switches
  if holds $scenario; then
    printf '%s holds: %s states\n' "$scenario" "$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' report)"
  else
    cat report
    failed=1
  fi
done
for bug in "${bugs[@]}"; do
  is_mine || continue
  found_by "$bug" || failed=1
done
((failed == 0))
