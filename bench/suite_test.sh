#!/usr/bin/env bash
# That every bench of the suite does its work with each of its patterns, on hakmem and on the limit allocator, and
# refuses a pattern that it does not have.
#
# usage: suite_test.sh PATH_OF_ANY_BENCH
set -euo pipefail

cd "$(dirname "$1")"
folder="$(mktemp -d)"
trap 'rm -rf -- "$folder"' EXIT
n_failed=0

fail() {
  n_failed=$((n_failed + 1))
  printf 'FAILED: %s\n' "$*"
  sed 's/^/  | /' "$folder/output"
}

# runs OPERATIONS BENCH ARGUMENTS...: it must say that it did so many operations.
runs() {
  local operations="$1" program="./$2" allocator
  shift 2
  for allocator in hakmem limit; do
    if ! timeout 60 "$program" "$@" --allocator "$allocator" >"$folder/output" 2>&1 ||
      ! grep -qE "^Allocator: $allocator = .*proved" "$folder/output" ||
      ! grep -qE '^Throughput = [1-9][0-9]* operations per second$' "$folder/output" ||
      ! grep -qE "^Operations: $operations in [0-9.]+ s, [0-9.]+ s user$" "$folder/output" ||
      ! grep -qE '^Peak RSS: [1-9][0-9]* KiB$' "$folder/output"; then
      fail "$program $* on $allocator"
    fi
  done
}

refuses() {
  local program="./$1" status=0
  shift
  "$program" "$@" >"$folder/output" 2>&1 || status=$?
  ((status == 2)) || fail "$program $*: status $status, expected 2"
}

for pattern in lifo fifo random; do
  runs 3000 pairs "$pattern" 10 100 64 3
done
runs 2000 producer_consumer deliver 20 100 16 256 1
runs 6000 producer_consumer deliver 20 100 16 256 3
runs 6000 producer_consumer exchange 20 100 16 2000 3
runs 600 thread_churn 10 3 20
runs 2000 phases 2 500 2
runs 2400 store 24 100 500
for growth in exact doubling; do
  runs 50000 strings "$growth" 50000 100 5000
done
runs 16 vector 2 8 30
for call in malloc calloc aligned; do
  runs 3000 all_sizes "$call" 3000 64 1 1000000 --check
done
for pattern in active passive; do
  runs 200 false_sharing "$pattern" 10 10 8 2
done
runs 6000 random_mixed 2000 100 8 3000 1 3 pages --check
runs 100 random_mixed 100 16 2097152 5000000 1 1 ends --check

# Two samples of 24 s; what is live cannot be more than what is resident.
./store 24 1000 500 >"$folder/output"
awk '/^Sample: / { n++; wrong += $4 + 0 <= 0 || $4 + 0 > $7 + 0 } END { exit !(n == 2 && !wrong) }' "$folder/output" ||
  fail 'the samples of store'

refuses pairs nonesuch
refuses pairs lifo 0
refuses pairs --check
refuses producer_consumer deliver 1 1000
refuses random_mixed 1 1 1 1 1 1 nonesuch

((n_failed == 0)) || printf '%d checks failed\n' "$n_failed"
((n_failed == 0))
