#!/usr/bin/env bash
# Builds the fuzz targets and runs them, as many at a time as there are cores. Stops at the first input that fails, and
# names it.
#
#   testing/fuzz/run.sh                                   each for a minute
#   testing/fuzz/run.sh --seconds=86400 --corpus=DIR      a day; what is found interesting is kept in DIR/TARGET
#   testing/fuzz/run.sh --seconds=600 ace router          these targets
#   testing/fuzz/run.sh --afl --seconds=60 ace            with AFL++ instead of libFuzzer
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

targets=(tiny mid ace huge router)
seconds=60
corpus=
fuzzer=libfuzzer
chosen=()

for argument in "$@"; do
  case $argument in
    --seconds=*) seconds=${argument#*=} ;;
    --afl) fuzzer=afl ;;
    --corpus=*) corpus=${argument#*=} ;;
    tiny | mid | ace | huge | router) chosen+=("$argument") ;;
    *)
      printf "run.sh: '%s' is unknown; the targets are: %s\n" "$argument" "${targets[*]}" >&2
      exit 2
      ;;
  esac
done
if [[ ! $seconds =~ ^[1-9][0-9]{0,7}$ ]]; then
  printf "run.sh: --seconds is '%s', must be a whole number\n" "$seconds" >&2
  exit 2
fi
if ((${#chosen[@]} > 0)); then
  targets=("${chosen[@]}")
fi

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

# Both take a target, the seed corpus, and a folder for what they find.

run_libfuzzer() {
  "$bin/$1_fuzz" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$1-" "$3" "$2"
}

run_afl() {
  local crash crashed=0
  AFL_NO_UI=1 AFL_AUTORESUME=1 AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_BENCH_UNTIL_CRASH=1 \
    afl-fuzz -V "$seconds" -t 30000 -m none -i "$2" -o "$3" -- "$bin/$1_fuzz" >"$3.log" || {
    tail -n 40 "$3.log" >&2
    return 1
  }
  grep -E '^(execs_done|execs_per_sec|corpus_count|corpus_found|edges_found|saved_crashes|saved_hangs) ' \
    "$3/default/fuzzer_stats"
  for crash in "$3"/default/crashes/id*; do
    [[ -e $crash ]] || continue
    cp -- "$crash" "$1-crash-afl-$((++crashed))"
    printf 'failed: %s-crash-afl-%d\n' "$1" "$crashed" >&2
  done
  ((crashed == 0))
}

if [[ $fuzzer == afl ]]; then
  bazel/install-packages.sh clang afl
  config=afl
else
  bazel/install-packages.sh clang
  config=fuzz
fi
labels=("${targets[@]/#///testing/fuzz:}")
./bazelw build --config="$config" //testing/fuzz:corpus "${labels[@]/%/_fuzz}"
bin=$(./bazelw info --config="$config" bazel-bin 2>/dev/null)/testing/fuzz

# Shows what the target said when it has ended. xargs starts no other after status 255.
run_target() {
  local found=${corpus:-$scratch}/$1 status=0
  mkdir -p "$found"
  "run_$fuzzer" "$1" "$bin/corpus" "$found" >"$scratch/$1.log" 2>&1 || status=255
  printf '== %s for %d s\n%s\n' "$1" "$seconds" "$(<"$scratch/$1.log")"
  return "$status"
}

export -f run_libfuzzer run_afl run_target
export fuzzer bin corpus scratch seconds
# shellcheck disable=SC2016 # for the shell that xargs starts
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -n 1 bash -c 'run_target "$1"' run_target
