#!/usr/bin/env bash
# What hakmem may take for live blocks, in scenarios whose every run is the same. The limits leave room above what was
# measured: 1% to 4% where blocks were only allocated or all of them freed, a tenth to two fifths elsewhere, half a MiB
# after a trim, where that is nothing.
#
# usage: footprint_guard_test.sh FOOTPRINT_SCENARIO
set -euo pipefail

scenario="$PWD/$1"

source bench/expect.sh

# at_most FIGURE LIMIT CHECKPOINT SCENARIO SCALE: the figure is ratio (RSS over live), rss (MiB) or mappings.
at_most() {
  local figure="$1" limit="$2" checkpoint="$3"
  shift 3
  expect 0 "  $checkpoint\$" "" "$scenario" "$@" 0
  awk -v figure="$figure" -v limit="$limit" -v name="$checkpoint" '
    BEGIN { column["rss"] = 3; column["ratio"] = 4; column["mappings"] = 6 }
    NR > 2 && substr($0, length($0) - length(name) - 1) == "  " name { found = 1; value = $column[figure] }
    END { exit !(found && value + 0 <= limit) }' "$folder/output" || fail "$*: $figure at '$checkpoint' over $limit"
}

at_most ratio 1.10 filled steady 1
at_most ratio 1.45 '20 rounds' steady 1
at_most ratio 1.35 '224 B' shift 1
at_most ratio 1.05 peak one-class 1
at_most rss 0.5 trimmed one-class 1
at_most ratio 1.10 peak all-classes 0.1
at_most mappings 200 peak all-classes 0.1
at_most rss 0.5 trimmed all-classes 0.1
at_most ratio 1.10 peak peak-empty 0.25
at_most rss 4.5 freed peak-empty 0.25
at_most rss 0.5 trimmed peak-empty 0.25
at_most rss 31 freed peak-sparse 0.25
at_most rss 1.6 'threads ended' short-threads 1

end_test
