#!/usr/bin/env bash
# Static analysis of the allocator: testing/analyze.sh runs all tools, testing/analyze.sh TOOL... these.
#
# clang-format looks at every C and C++ file; the others at the C sources of the libraries that are not for tests, with
# the flags that Bazel gives them, and at the headers that these include. What a tool gets wrong is excused where the
# tool is configured (.clang-tidy, .bazelrc) or in a comment at the line, with the reason. The exit status is 0 if all
# tools are content, 1 if one is not, 2 for a wrong call.
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

all_tools=(clang-format clang-tidy cppcheck gcc-analyzer thread-safety)

run_clang-format() {
  find . -path './.*' -prune -o \( -name '*.[ch]' -o -name '*.cc' \) -print0 |
    xargs -0 clang-format --dry-run --Werror
}

run_clang-tidy() {
  jq --raw-output '.[].file' "$folder/compile_commands.json" |
    xargs --max-procs="$(nproc)" --max-args=1 clang-tidy -p "$folder" --quiet 2> >(grep -v ' warnings generated' >&2)
}

run_cppcheck() {
  cppcheck --project="$folder/compile_commands.json" --enable=warning,performance,portability,style --inline-suppr \
    --error-exitcode=1 --quiet -j "$(nproc)"
}

run_gcc-analyzer() { build --config=analyzer; }

run_thread-safety() { build --config=clang; }

build() { ./bazelw build "$1" --keep_going --noshow_progress --show_result=0 -- "${libraries[@]}"; }

# Sets `libraries`, and writes how their sources are compiled, in terms that all tools understand.
read_build() {
  mapfile -t libraries < <(quiet_bazel query 'kind(cc_library, //...) except attr(testonly, 1, //...)')
  quiet_bazel aquery --output=jsonproto "mnemonic(CppCompile, set(${libraries[*]}))" |
    jq --arg root "$PWD" '
      [.actions[].arguments
       | map(select(. != "-fno-canonical-system-headers") | if . == "-iquote" then "-I" else . end)
       | {directory: $root, file: .[index("-c") + 1], arguments: .}]' >"$folder/compile_commands.json"
  [[ $(jq length "$folder/compile_commands.json") -gt 0 ]]
}

quiet_bazel() { ./bazelw "$1" --noshow_progress --ui_event_filters=-info "${@:2}"; }

main() {
  local tool started failed=()
  (($# > 0)) || set -- "${all_tools[@]}"
  for tool in "$@"; do
    if [[ " ${all_tools[*]} " != *" $tool "* ]]; then
      printf 'analyze.sh: no tool %s; there are: %s\n' "$tool" "${all_tools[*]}" >&2
      exit 2
    fi
  done
  if command -v dpkg-query >/dev/null; then
    bazel/install-packages.sh analysis clang style
  fi
  folder=$(mktemp -d)
  trap 'rm -rf -- "$folder"' EXIT
  read_build
  for tool in "$@"; do
    started=$SECONDS
    "run_$tool" || failed+=("$tool")
    printf '%s: %s, %d s\n' "$tool" "$([[ " ${failed[*]-} " == *" $tool "* ]] && echo FAILED || echo clean)" \
      $((SECONDS - started))
  done
  ((${#failed[@]} == 0))
}

main "$@"
