#!/usr/bin/env bash
# That the benches measure the allocator they say, refuse what they cannot do, and that stability.sh counts right.
#
# usage: bench_test.sh LARSON RANDOM_MIXED LARSON_LINKED STABILITY
set -euo pipefail

larson="$PWD/$1"
random_mixed="$PWD/$2"
larson_linked="$PWD/$3"
stability="$PWD/$4"

source bench/expect.sh

throughput='^Throughput = [1-9][0-9]* operations per second$'

# expect_proof ALLOCATOR REGEX: both programs run on it, with intact blocks, and say how they know.
expect_proof() {
  local program
  for program in "$larson 0.02 8 3000 100 2 1 3" "$random_mixed 20000 100 8 3000 1"; do
    # shellcheck disable=SC2086 # words
    expect 0 "^Allocator: $2" "" $program --check --allocator "$1"
    expect_output "$throughput"
  done
}

expect_proof hakmem 'hakmem = .*libhakmem\.so \(proved: .*hak_owner says tiny for 8, 154; mid for 3000 B'
expect_proof glibc 'glibc = .*libc\.so\.6 \(proved: .*its bytes in use grow\)'
for peer in 'jemalloc libjemalloc.so.2 libjemalloc2' 'mimalloc libmimalloc.so.2.0 libmimalloc2.0' \
  'tcmalloc libtcmalloc_minimal.so.4 libtcmalloc-minimal4'; do
  read -r name file package <<<"$peer"
  if compgen -G "/usr/lib/*/$file" >/dev/null; then
    expect_proof "$name" "$name = .*$file \(proved: .* says .* for 8, 154, 3000 B"
  else
    expect 3 "" "$file is not installed.*$package" "$larson" --allocator "$name"
  fi
done
expect 0 'hakmem, linked in \(proved: hak_owner says tiny for 8 B' "" "$larson_linked" 0.02

# hakmem's own library, by a path that the loader cannot take as it is.
mkdir "$folder/a b:c"
cp -L "$(sed -nE 's/^Allocator: hakmem = (.*) \(proved.*/\1/p' <("$larson" 0.01))" "$folder/a b:c/copy.so"
expect 0 '= .*/a b:c/copy\.so \(proved: .*hak_owner says' "" "$larson" 0.02 --allocator "$folder/a b:c/copy.so"

# Nothing may be measured by mistake.
libm="$(ldd "$random_mixed" | sed -nE 's/.*=> (.*libm\.so\.6) .*/\1/p')"
cp "$folder/a b:c/copy.so" "$folder/copy.so"
expect 3 "" 'malloc comes from .*libc\.so' "$larson" --allocator "$libm"
expect 3 "" 'malloc comes from .*libc\.so' env HAK_BENCH_PRELOADED=1 "$larson" --allocator hakmem
expect 3 "" 'malloc comes from .*copy\.so' \
  env HAK_BENCH_PRELOADED=1 "LD_PRELOAD=$folder/copy.so" "$larson" --allocator glibc
expect 0 'glibc = .*libc\.so\.6 ' "" env "LD_PRELOAD=$folder/copy.so" "$larson" 0.02 --allocator glibc
expect 3 "" 'nonesuch: unknown' "$larson" --allocator nonesuch
expect 3 "" 'No such file' "$larson" --allocator /nonesuch.so
expect 3 "" 'measures nothing else' "$larson_linked" --allocator glibc

# Arguments.
expect 2 "" "seconds is '-1', must be a number from" "$larson" -1
expect 2 "" "smallest is 'x', must be a whole number from 1 to" "$larson" 1 x
expect 2 "" "largest is '4', must be a whole number from 8 to" "$larson" 1 8 4
expect 2 "" "blocks is '0'" "$larson" 1 8 128 0
expect 2 "" "rounds is '1.5'" "$larson" 1 8 128 1024 1.5
expect 2 "" "threads is '0'" "$larson" 1 8 128 1024 1 12345 0
expect 2 "" "'8' is one argument too many" "$larson" 1 2 3 4 5 6 7 8
expect 2 "" "cycles is 'nan'" "$random_mixed" nan
expect 2 "" "'--foo' is unknown" "$random_mixed" --foo
expect 2 "" "'--allocator' is unknown or lacks its value" "$random_mixed" --allocator
expect 0 'seconds .*0.001 to 86400' "" "$larson" --help

# stability.sh, on programs that misbehave: the second run crashes, the third hangs, the fourth measures nothing.
cat >"$folder/flaky" <<'END'
#!/usr/bin/env bash
n=$(cat "$0.runs" 2>/dev/null || echo 0)
echo $((n + 1)) >"$0.runs"
case $n in
  1) exit 134 ;;
  2) exec sleep 1000 ;;
  3) exit 0 ;;
esac
echo "Throughput = $((100 * n + 5)) operations per second"
END
chmod +x "$folder/flaky"
expect 1 '^3 of 6 finished$' 'run 2 ended with status 134' "$stability" --runs=6 --limit=2 "--binary=$folder/flaky"
expect_output 'min 5, median 405, max 505'
matches "$folder/errors" 'run 3 did not end within 2 s' || fail 'no word of run 3'
expect 0 '^2 of 2 finished$' "" "$stability" --runs=2 --seconds=1 "--binary=$larson"
expect 2 "" "runs is '0'" "$stability" --runs=0
expect 2 "" "unknown" "$stability" --nonesuch

end_test
