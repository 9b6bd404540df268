# shellcheck shell=bash
# Sourced by the tests of the benches: what a command must print, and how many checks failed.

folder="$(mktemp -d)"
trap 'rm -rf -- "$folder"' EXIT
n_failed=0

# The status, standard output and standard error that the command must have: a number and two extended regular
# expressions, "" for a stream that must stay empty.
expect() {
  local status="$1" output="$2" errors="$3" actual=0
  shift 3
  timeout 60 "$@" >"$folder/output" 2>"$folder/errors" || actual=$?
  if [[ "$actual" == "$status" ]] && matches "$folder/output" "$output" && matches "$folder/errors" "$errors"; then
    return
  fi
  fail "$(printf '%s\n  status %d, expected %d, /%s/ and /%s/' "$*" "$actual" "$status" "$output" "$errors")"
}

# The same of the standard output of the last command, once more.
expect_output() {
  matches "$folder/output" "$1" || fail "no /$1/ in:"
}

matches() {
  if [[ -z "$2" ]]; then
    [[ ! -s "$1" ]]
  else
    grep -qE -- "$2" "$1"
  fi
}

# Counts a failure, and says what the last command printed.
fail() {
  n_failed=$((n_failed + 1))
  printf 'FAILED: %s\n' "$1"
  sed 's/^/  | /' "$folder/output" "$folder/errors"
}

# The test's last line.
end_test() {
  ((n_failed == 0)) || printf '%d checks failed\n' "$n_failed"
  ((n_failed == 0))
}
