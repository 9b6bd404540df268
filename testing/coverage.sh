#!/usr/bin/env bash
# Runs all tests with counts in the allocator's C code, and prints which lines and branches no test has reached.
#
#   testing/coverage.sh [PERCENT [TARGET...]]
#
# Two tables, of lines and of branches, a row for each file with what is missing; then the totals. The exit status is 0
# if all tests pass and PERCENT of the lines (default 95) were run, and not 0 otherwise. TARGET... are the tests to run,
# //... by default. What a signal other than SIGABRT stops does not count.
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

percent=${1-95}
if ! [[ $percent =~ ^[0-9]{1,3}$ ]]; then
  printf 'coverage.sh: %s is not a percentage\n' "$percent" >&2
  exit 2
fi
shift $(($# > 0))
(($# > 0)) || set -- //...

if command -v dpkg-query >/dev/null; then
  bazel/install-packages.sh coverage
fi
report=$(mktemp)
trap 'rm -f -- "$report"' EXIT

info() { ./bazelw info --config=coverage --noshow_progress "$1"; }
execution_root=$(info execution_root)

# A file's counts grow with each run. They belong beside the objects; Bazel has compiled these for /proc/self/cwd. The
# hardened library and the one for dlopen have folders of their own.
if [[ -d $execution_root/bazel-out ]]; then
  find "$execution_root"/bazel-out -path '*-coverage*' -name '*.gcda' -delete
fi
tests=0
./bazelw test --config=coverage --keep_going --noshow_progress \
  --test_env=GCOV_PREFIX="$execution_root" --test_env=GCOV_PREFIX_STRIP=3 "$@" || tests=$?

cd "$execution_root"
gcovr --root . --exclude '.*/(testing|testdata|bench)/' --exclude '.*/os_fake' --json "$report" \
  bazel-out/*-coverage*/bin
gcovr --root . --add-tracefile "$report" --branches
gcovr --root . --add-tracefile "$report" --print-summary --fail-under-line "$percent"
((tests == 0))
