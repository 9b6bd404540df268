#!/usr/bin/env bash
# That compare runs each row and finds figures for it, refuses what it cannot do, and writes what it found in each form.
#
# usage: compare_test.sh COMPARE
set -euo pipefail

compare="$PWD/$1"
source bench/expect.sh

html=(--html "$folder/all.html")
if ! /usr/bin/python3 -c 'import matplotlib' 2>/dev/null; then
  expect 2 "" "Debian's package is python3-matplotlib" "$compare" "${html[@]}"
  html=()
fi

# All rows but the vectors, which would need more memory than a test should; suite_test has them.
"$compare" --list | grep -v '^vector ' >"$folder/titles"
"$compare" --scale 0.0005 --repetitions 1 --allocators hakmem,limit --only '^(?!vector)' \
  --json "$folder/all.json" --csv "$folder/all.csv" --markdown "$folder/all.md" "${html[@]}" \
  >"$folder/output" 2>"$folder/errors" || fail "compare ends with status $?"
grep -qE '^[0-9]+/[0-9]+, [0-9]+ s: [^ ].*$' "$folder/errors" || fail 'no progress'
grep -q '^| bench .*| *hakmem | *limit |' "$folder/output" || fail 'the table has no header'
[[ "$(grep -c '^Allocator: ' "$folder/output")" == 2 ]] || fail 'two allocators are not named'

n_rows=0
while read -r title; do
  if grep -qF "compare: $title is left out: Debian's package" "$folder/errors"; then continue; fi
  n_rows=$((n_rows + 1))
  # Once in each of the tables of CPU time, wall time and peak RSS, with figures of all allocators.
  n_lines="$(grep -F "| $title [" "$folder/output" | grep -cE '( *[0-9.,]+ ±[0-9]+% \|){2}' || true)"
  ((n_lines == 3)) || fail "$title has $n_lines lines of figures instead of 3"
done <"$folder/titles"
((n_rows > 50)) || fail "only $n_rows rows"
(($(wc -l <"$folder/all.csv") == 1 + n_rows * 2)) || fail "all.csv has $(wc -l <"$folder/all.csv") lines"
(($(grep -cE '^\| [^|]+ \| [0-9.,]+ (ns|µs|ms|s|MiB) \| [0-9.]+ \|$' "$folder/all.md") == 3 * n_rows)) || fail 'all.md'
/usr/bin/python3 - "$folder/all.json" "$n_rows" <<'END' || fail 'all.json'
import json, sys
rows = json.load(open(sys.argv[1]))["rows"]
assert len(rows) == int(sys.argv[2])
for row in rows:
    for result in row["results"].values():
        samples = result["samples"]
        assert result["error"] is None and len(samples) == 1, row
        assert all(s["wall_seconds"] > 0 and s["peak_rss_kib"] > 1000 for s in samples), row
END
if ((${#html[@]} > 0)); then
  # One page that needs nothing else: bars for each of 7 groups and for RSS, scaling, RSS over time.
  (($(grep -c '<svg' "$folder/all.html") == 10)) || fail "all.html has $(grep -c '<svg' "$folder/all.html") plots"
  grep -qE 'src=|<link|url\(http|@import' "$folder/all.html" && fail 'all.html needs other files'
fi

# A library by its path, beside which hakmem has a best peer.
expect 0 '^\| single pairs 64 B \[ns\] ( *\| +[0-9.,]+ ±[0-9]+%){2} .* again ' '^1/4, ' "$compare" --only single \
  --scale 0.001 --repetitions 2 --allocators hakmem --lib "again=$(readlink -f "$(dirname "$compare")/liblimit.so")"

# Counts, which repeat where no time is read; of real programs too.
expect 0 '^\| single pairs 64 B \[1\] ( *\| +[0-9.,]+ ±0%){2} ' '^1/8, ' "$compare" --count \
  --only '^(single|sqlite3)' --scale 0.001 --repetitions 2 --allocators hakmem,glibc --csv "$folder/counts.csv"
head -1 "$folder/counts.csv" | grep -q ',instructions,d1_misses,ll_misses,branch_misses,error' ||
  fail 'counts.csv has no counts'
if command -v sqlite3 >/dev/null; then
  (($(grep -cE '^sqlite3,.*(,[0-9]+){4},.?$' "$folder/counts.csv") == 4)) || fail 'sqlite3 was not counted'
fi

# A limit on memory reaches the program if compare sets it, and not if the caller has.
limited=("$compare" --only '^Huge.*ends' --scale 0.001 --repetitions 1 --allocators hakmem)
expect 0 '^\| Huge .* ±0%' '^1/1, ' env HAKMEM_LIMIT=1m "${limited[@]}"
expect 1 '^Environment: HAKMEM_LIMIT=1m$' 'ERROR .*malloc.* failed' "${limited[@]}" --env HAKMEM_LIMIT=1m

expect 2 '' 'matches no row' "$compare" --only nonesuch
expect 2 '' '--scale is 0' "$compare" --scale 0
expect 2 '' '--repetitions is 0' "$compare" --repetitions 0
expect 2 '' 'must be NAME=PATH' "$compare" --lib nonesuch
expect 2 '' 'hakmem is the name of another' "$compare" --lib "hakmem=$(readlink -f "$(dirname "$compare")/liblimit.so")"
expect 2 '' 'has an empty name' "$compare" --allocators hakmem,
expect 2 '' 'no regular expression' "$compare" --only '('
expect 2 '' 'cannot write .*: No such file' "$compare" --json "$folder/nonesuch/all.json"

# What was measured before the user gives up is not lost.
env --default-signal=INT "$compare" --scale 0.01 --repetitions 100000 --allocators hakmem --only '^single' \
  --json "$folder/interrupted.json" \
  >"$folder/output" 2>"$folder/errors" &
until grep -qs '^1/' "$folder/errors"; do sleep 0.1; done
kill -INT $!
wait $! && fail 'compare does not say that it was interrupted'
grep -q '"error": "interrupted"' "$folder/interrupted.json" || fail 'interrupted.json'
expect 3 '' 'nonesuch is not measured: .*unknown' "$compare" --allocators hakmem,nonesuch
libm="$(ldd "$(dirname "$compare")/pairs" | sed -nE 's/.*=> (.*libm\.so\.6) .*/\1/p')"
expect 3 '' 'libm is not measured: .*malloc comes from' "$compare" --allocators hakmem --lib "libm=$libm"

end_test
