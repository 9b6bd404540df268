#!/usr/bin/env bash
# That every bench of the suite does its work with each of its patterns, on hakmem and on the limit allocator, and
# refuses a pattern that it does not have.
#
# usage: suite_test.sh PATH_OF_ANY_BENCH
set -euo pipefail

bench="$PWD/$(dirname "$1")"

source bench/expect.sh

# runs OPERATIONS BENCH ARGUMENTS...: it must say that it did so many operations.
runs() {
  local operations="$1" program="$bench/$2" allocator
  shift 2
  for allocator in hakmem limit; do
    expect 0 "^Operations: $operations in [0-9.]+ s, [0-9.]+ s user, [0-9.]+ s system\$" "" "$program" "$@" --allocator "$allocator"
    expect_output "^Allocator: $allocator = .*proved"
    expect_output '^Throughput = [1-9][0-9]* operations per second$'
    expect_output '^Peak RSS: [1-9][0-9]* KiB$'
  done
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
expect 0 '^Sample: 20 s' '' "$bench/store" 24 1000 500
awk '/^Sample: / { n++; wrong += $4 + 0 <= 0 || $4 + 0 > $7 + 0 } END { exit !(n == 2 && !wrong) }' "$folder/output" ||
  fail 'the samples of store'

expect 2 "" "pattern is 'nonesuch', must be one of lifo, fifo, random" "$bench/pairs" nonesuch
expect 2 "" "batches is '0', must be" "$bench/pairs" lifo 0
expect 2 "" "'--check' is unknown" "$bench/pairs" --check
expect 2 "" "batch is '1000', must be" "$bench/producer_consumer" deliver 1 1000
expect 2 "" "touch is 'nonesuch', must be one of ends, pages" "$bench/random_mixed" 1 1 1 1 1 1 nonesuch
expect 0 'pattern +.*: one of lifo, fifo, random; default lifo' "" "$bench/pairs" --help

end_test
