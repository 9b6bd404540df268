#!/usr/bin/env bash
# That the scenarios of //bench:footprint run, count what they say, and that the tables are made of their lines.
#
# usage: footprint_test.sh FOOTPRINT FOOTPRINT_SCENARIO
set -euo pipefail

footprint="$PWD/$1"
scenario="$PWD/$2"

source bench/expect.sh

# expect_checkpoints SCENARIO NAME...: with few bytes, exactly these checkpoints in this order, in well-formed lines.
expect_checkpoints() {
  local name="$1" line=' +[0-9.]+ +[0-9.]+ +-?[0-9.]+ +(-?[0-9.]+|-) +[0-9]+ +[1-9][0-9]*  '
  shift
  expect 0 '^Allocator: hakmem = ' "" "$scenario" "$name" 0.002 0.01 3
  local actual expected
  actual="$(sed -nE "3,\$s/^$line([^ ].*)$/\2/p" "$folder/output")"
  expected="$(printf '%s\n' "$@")"
  if [[ "$actual" != "$expected" || "$(wc -l <"$folder/output")" != $(($# + 2)) ]]; then
    fail "$name: not just the checkpoints: $*"
  fi
}

expect_checkpoints hello main
expect_checkpoints idle freed idle trimmed
expect_checkpoints steady filled '5 rounds' '20 rounds'
expect_checkpoints peak-sparse peak freed idle trimmed
expect_checkpoints peak-empty peak freed idle trimmed
for order in shift shift-random; do
  expect_checkpoints "$order" '48 B' '640 B' '96 B' '2000 B' '32 B' '1000 B' '224 B' '5000 B'
done
expect_checkpoints store 'minute 10' 'minute 20' 'minute 30' 'minute 40' 'minute 50' 'minute 60'
expect_checkpoints short-threads 'threads ended'
expect_checkpoints producers {1,2,3,4,5,6,7,8,9}0'% freed' freed idle trimmed
expect_checkpoints threads filled replaced 'threads ended' freed idle trimmed
expect_checkpoints remote-frees filled replaced 'threads ended' freed idle trimmed
expect_checkpoints one-class start peak freed idle trimmed
expect_checkpoints all-classes start peak freed idle trimmed

# holds CHECKPOINT CONDITION SCENARIO ARGUMENT...: an awk condition on live and rss (MiB), faults and mappings.
holds() {
  local checkpoint="$1" condition="$2"
  shift 2
  expect 0 "  $checkpoint\$" "" "$scenario" "$@"
  awk -v name="$checkpoint" '
    NR > 2 { line = $0; for (i = 1; i <= 6; ++i) sub(/^ *[^ ]+/, "", line); sub(/^ +/, "", line) }
    NR > 2 && line == name { live = $2; rss = $3; faults = $5; mappings = $6; found = 1; if ('"$condition"') holds = 1 }
    END { exit !(found && holds) }' "$folder/output" || fail "$*: $checkpoint: $condition"
}

# What is counted: every byte of every live block and none of the bench's own.
for allocator in hakmem glibc; do
  holds peak 'live >= 20.4 && live < 21 && rss >= live && rss < 1.2 * live && faults > 3000' \
    peak-empty 0.02 0 --allocator "$allocator"
  holds freed 'live > 0.2 && live < 0.9' peak-sparse 0.02 0 --allocator "$allocator"
  holds trimmed 'live == 0' peak-empty 0.02 0 --allocator "$allocator"
  holds start 'live == 0 && rss < 0.2 && faults < 50' one-class 0.1 0 --allocator "$allocator"
  holds peak 'live > 24.4 && live < 24.5 && rss >= live && rss < 1.3 * live' one-class 0.1 0 --allocator "$allocator"
  holds main 'rss > 1 && mappings > 20' hello --allocator "$allocator"
  holds 'threads ended' 'live == 0.02 && rss >= live' short-threads 0.025 --allocator "$allocator"
  holds '50% freed' 'live <= 6.5' producers 0.05 0 4 --allocator "$allocator"
  holds freed 'live == 0' producers 0.05 0 4 --allocator "$allocator"
done

# The same seed is the same program.
"$scenario" store 0.01 0 1 7 | awk 'NR > 2 { print $2 }' >"$folder/first"
"$scenario" store 0.01 0 1 7 --allocator glibc | awk 'NR > 2 { print $2 }' >"$folder/second"
cmp "$folder/first" "$folder/second" || fail 'the same seed gave another program'

# Arguments of the scenario program.
expect 2 "" "scenario is 'nonesuch', must be one of hello, idle," "$scenario" nonesuch
expect 2 "" "scale is '0', must be a number from" "$scenario" steady 0
expect 0 'scenario +.*: one of hello, idle, ' "" "$scenario" --help

# Tables, on two allocators that are always there. The lines of progress go to standard error.
few=("$footprint" "--allocators=hakmem,glibc" --scale 0.002 --idle 0.01 --runs 2)
expect 0 '^\| hello world, over glibc \| -?[0-9.]+ \| 0\.00 \| 0\.35 \| 0\.2 \|$' 'run 2, hello, glibc' "${few[@]}"
for row in 'steady churn' '16 producers, one frees, highest' '200 threads' 'page faults, steady churn .*'; do
  expect_output "^\| $row( \| [0-9.,]+){2}( \| [0-9.]*){2} \|\$"
done
expect 0 '"row": "peak, nothing survives, freed"' 'peak-empty, hakmem' "${few[@]}" --scenarios peak-empty --json
python3 -c '
import json, sys
lines = json.load(open(sys.argv[1]))
assert len(lines) == 6, lines
assert all(line["lowest"] <= line["median"] <= line["highest"] and line["runs"] == 2 for line in lines), lines
' "$folder/output" || fail 'not the JSON that was to be'
expect 0 '^MiB,"peak, nothing survives, freed",peak-empty,hakmem,[0-9.]+,[0-9.]+,[0-9.]+,2,,$' 'peak-empty, hakmem' \
  "${few[@]}" --scenarios peak-empty --csv
if /usr/bin/python3 -c 'import matplotlib' 2>"$folder/errors"; then
  expect 0 'peak, nothing' 'peak-empty' "${few[@]}" --scenarios peak-empty --html "$folder/page.html"
  matches "$folder/page.html" '<svg ' || fail 'no plot in the page'
  matches "$folder/page.html" 'A peak of which nothing survives' || fail 'no title in the page'
  expect 2 '' 'cannot write .*: No such file' "${few[@]}" --html "$folder/nonesuch/page.html"
else
  expect 3 '' "Debian's package is python3-matplotlib" "${few[@]}" --html "$folder/page.html"
fi

# Whatever cannot be measured is said.
expect 3 '' 'nonesuch is not measured: .*unknown' "$footprint" --allocators nonesuch
expect 2 '' "'nonesuch' is no scenario; there are hello" "$footprint" --scenarios nonesuch
expect 2 '' "must be NAME=PATH of a library" "$footprint" --lib x=/nonesuch
expect 2 '' 'is 0, must be at least 1' "$footprint" --runs 0
expect 2 '' '--scale: is 0.0009, must be at least 0.001' "$footprint" --scale 0.0009
expect 0 '^\| 200 threads \| [0-9]' 'hakmem' "$footprint" --allocators hakmem --scale 0.001 --idle 0 --runs 1
expect 2 '' "--env: is 'x', must be NAME=VALUE" "$footprint" --env x
expect 2 '' "--env: is '1=2', must be NAME=VALUE" "$footprint" --env 1=2
expect 2 '' "--env: is 'LD_PRELOAD=x', but LD_PRELOAD is set for each" "$footprint" --env LD_PRELOAD=x

# A scenario program that is told by name what to print: hakmem takes 5 MiB, glibc 1; "steady" breaks.
cat >"$folder/greedy" <<'END'
#!/usr/bin/env bash
[[ $1 != steady ]] || { echo "corrupted" >&2; exit 1; }
case ${*: -1} in
  hakmem) rss=5 ;;
  glibc) rss=1 ;;
esac
printf 'Allocator: %s\nheader\n 0 0.00 %s.00 - 7 8  main\n' "${*: -1}" "$rss"
END
chmod +x "$folder/greedy"
greedy=("$footprint" "--allocators=hakmem,glibc" --runs 1 --program "$folder/greedy")
expect 0 '^\| hello world, over glibc \| 4\.00 \| 0\.00 \| 0\.35 \| 0\.2 \|$' 'hello, glibc' \
  "${greedy[@]}" --scenarios hello
expect 1 'over glibc' 'hello world, over glibc \(hello\): 4, at most 0\.35' "${greedy[@]}" --scenarios hello --check
expect 3 'over glibc' 'steady on hakmem: corrupted' "${greedy[@]}" --scenarios hello,steady

# What the caller has set for an allocator reaches none, and what --env sets reaches all.
cat >"$folder/witness" <<END
#!/usr/bin/env bash
env >>"$folder/environment"
printf 'Allocator: x\nheader\n 0 0.00 1.00 - 7 8  main\n'
END
chmod +x "$folder/witness"
expect 0 '^Environment: HAKMEM_THP=never EMPTY=$' 'hello, glibc' env HAKMEM_THP=always HAKMEM_WIPE=1 \
  MALLOC_ARENA_MAX=1 mimalloc_verbose=0 TCMALLOC_SKIP_SBRK=1 GLIBC_TUNABLES=glibc.pthread.rseq=1 \
  HAK_BENCH_PRELOADED=1 KEPT=kept "$footprint" --allocators=hakmem,glibc --runs 1 --scenarios hello \
  --program "$folder/witness" --env HAKMEM_THP=never --env EMPTY=
grep -iE '^(HAK|MALLOC|MIMALLOC|TCMALLOC|GLIBC|EMPTY|KEPT)' "$folder/environment" | sort | uniq -c >"$folder/output"
printf '%7d %s\n' 4 EMPTY= 4 HAKMEM_THP=never 4 KEPT=kept | cmp -s - "$folder/output" || fail 'the environment:'

end_test
