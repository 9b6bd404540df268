#!/usr/bin/env bash
# Runs the 4-thread Larson benchmark many times and counts the runs that finish.
#
# A run finishes if it ends by itself, with status 0 and a throughput, within its time limit. The exit status is 0 if all
# did, 1 if any did not, 2 for a bad option.
set -euo pipefail

workspace="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
readonly workspace

runs=20
seconds=10
limit=
config=release
binary=
larson_options=()

usage() {
  cat <<'END'
usage: testing/stability.sh [options]

  --runs=N         how often (default 20)
  --seconds=S      length of each run (default 10)
  --limit=S        a run that takes longer hangs (default: 60 more than its length, for start-up and slow sanitizers)
  --config=NAME    .bazelrc configuration to build with (default release); for asan, tsan and ubsan the program has
                   hakmem linked in, so that the sanitizer sees the allocator itself
  --allocator=A    as in bench/README.md (default hakmem)
  --check          verify both ends of each block before it is freed
  --binary=PATH    run this larson instead of building one
END
}

refuse() {
  printf 'stability.sh: %s\n' "$1" >&2
  exit 2
}

parse_options() {
  local option
  for option in "$@"; do
    case "$option" in
      --runs=*) runs="${option#*=}" ;;
      --seconds=*) seconds="${option#*=}" ;;
      --limit=*) limit="${option#*=}" ;;
      --config=*) config="${option#*=}" ;;
      --allocator=* | --check) larson_options+=("$option") ;;
      --binary=*) binary="${option#*=}" ;;
      --help)
        usage
        exit 0
        ;;
      *) refuse "'$option' is unknown; see --help" ;;
    esac
  done
  [[ "$runs" =~ ^[1-9][0-9]{0,5}$ ]] || refuse "--runs is '$runs', must be a whole number from 1 to 999999"
  [[ "$seconds" =~ ^[1-9][0-9]{0,4}$ ]] || refuse "--seconds is '$seconds', must be a whole number from 1 to 99999"
  limit="${limit:-$((seconds + 60))}"
  [[ "$limit" =~ ^[1-9][0-9]{0,5}$ ]] || refuse "--limit is '$limit', must be a whole number from 1 to 999999"
}

# Builds the benchmark and sets `binary`.
build() {
  local target=larson
  case "$config" in
    asan | tsan | ubsan) target=larson_linked ;;
  esac
  cd -- "$workspace"
  ./bazelw build "--config=$config" "//bench:$target"
  binary="$(./bazelw info "--config=$config" bazel-bin 2>/dev/null)/bench/$target"
  [[ -x "$binary" ]] || refuse "the build left no program at $binary"
}

# Runs the benchmark once. Appends its throughput to the file $2, or says what went wrong and shows its output.
run_once() {
  local number="$1" throughputs="$2" output="$3" status=0 throughput
  timeout --kill-after=5 "$limit" \
    "$binary" "${larson_options[@]}" "$seconds" 8 128 1024 1 12345 4 >"$output" 2>&1 || status=$?
  throughput="$(sed -n 's/^Throughput = \([0-9][0-9]*\) operations per second$/\1/p' "$output")"
  if [[ "$status" == 0 && -n "$throughput" ]]; then
    printf '%s\n' "$throughput" >>"$throughputs"
    return
  fi
  case "$status" in
    124 | 137) printf 'run %d did not end within %d s\n' "$number" "$limit" ;;
    0) printf 'run %d printed no throughput\n' "$number" ;;
    *) printf 'run %d ended with status %d\n' "$number" "$status" ;;
  esac >&2
  sed 's/^/  | /' "$output" >&2
}

main() {
  parse_options "$@"
  [[ -n "$binary" ]] || build
  [[ -x "$binary" ]] || refuse "'$binary' is not a program"

  local folder number finished
  folder="$(mktemp -d)"
  # shellcheck disable=SC2064 # the folder's name now, not at exit
  trap "rm -rf -- '$folder'" EXIT
  : >"$folder/throughputs"
  for ((number = 1; number <= runs; ++number)); do
    run_once "$number" "$folder/throughputs" "$folder/output"
    if ((number == 1)); then sed -n '/^Allocator: /p' "$folder/output"; fi
  done

  finished="$(wc -l <"$folder/throughputs")"
  printf '%d of %d finished\n' "$finished" "$runs"
  if ((finished > 0)); then
    sort -n "$folder/throughputs" | awk '
      { v[NR] = $1 }
      END {
        median = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
        printf "throughput in operations per second: min %.0f, median %.0f, max %.0f\n", v[1], median, v[NR]
      }'
  fi
  ((finished == runs))
}

main "$@"
