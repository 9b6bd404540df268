#!/usr/bin/env bash
# Builds the fuzz targets and runs one after the other. Stops at the first input that fails, and names it.
#
#   testing/fuzz/run.sh                                   a minute in all
#   testing/fuzz/run.sh --seconds=86400 --corpus=DIR      a day; what is found interesting is kept in DIR/TARGET
#   testing/fuzz/run.sh --seconds=600 ace router          these targets
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

targets=(tiny mid ace huge router)
seconds=60
corpus=
chosen=()

for argument in "$@"; do
  case $argument in
    --seconds=*) seconds=${argument#*=} ;;
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
each=$((seconds / ${#targets[@]}))
((each > 0)) || each=1

bazel/install-packages.sh clang
./bazelw build --config=fuzz //testing/fuzz:all
bin=$(./bazelw info --config=fuzz bazel-bin 2>/dev/null)/testing/fuzz

for target in "${targets[@]}"; do
  found=${corpus:-$scratch}/$target
  mkdir -p "$found"
  printf '== %s for %d s\n' "$target" "$each"
  "$bin/${target}_fuzz" -max_total_time="$each" -timeout=30 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="${target}-" "$found" "$bin/corpus"
done
