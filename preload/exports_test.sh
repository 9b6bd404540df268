#!/usr/bin/env bash
# What libhakmem.so shows to the dynamic linker: exactly the documented names, no library but libc, initial-exec TLS.
# Usage: exports_test.sh LIBRARY EXPORTS INTERPOSABLE HEADER
set -euo pipefail

library=$1
exports=$2       # the expected names, one per line
interposable=$3  # linker list of the names that a program's own definitions may take over
header=$4        # router/hakmem.h

failures=0
fail() {
  printf 'FAIL: %s\n' "$1"
  failures=$((failures + 1))
}

# expect_same CLAIM EXPECTED ACTUAL: two sorted lists.
expect_same() {
  if [[ -z "$2" ]]; then
    fail "$1: the expected list is empty"
  elif [[ "$2" != "$3" ]]; then
    fail "$1 (< expected, > found):"
    diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") || true
  else
    printf 'ok: %s\n' "$1"
  fi
}

export LC_ALL=C
expected=$(sort -u "$exports")

# Names of local symbols (lower case, such as hidden thread-local variables) cannot be bound to.
defined=$(nm -D --defined-only "$library" | awk '$2 ~ /^[A-Z]$/ && $2 != "A" {print $3}' | sed 's/@.*//' | sort -u)
expect_same 'the exported names are the documented ones' "$expected" "$defined"

declared=$(grep -oE '\bhak_[a-z_]+\(' "$header" | tr -d '(' | sort -u)
expect_same 'every function of router/hakmem.h is exported' "$declared" "$(grep '^hak_' <<<"$expected")"

needed=$(readelf -dW "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^ld-linux' | sort -u)
expect_same 'libc is the only library needed' 'libc.so.6' "$needed"

# Calls inside the library go through the GOT only where a program may replace the callee.
own_relocations=$(readelf -rW "$library" | awk '/GLOB_DAT|JUMP_SLO/ {print $5}' | sed 's/@.*//' | sort -u |
  comm -12 - <(printf '%s\n' "$expected"))
listed=$(grep -oE '^ +_Z[A-Za-z0-9_]+;' "$interposable" | tr -d ' ;' | sort -u)
expect_same 'only the listed operators can be interposed' "$listed" "$own_relocations"

# TPOFF: a fixed offset from the thread pointer. DTPMOD and TLSDESC would be a call to __tls_get_addr, which allocates.
tls=$(readelf -rW "$library" | grep -oE 'R_[A-Z0-9_]*(TPOFF|DTPMOD|DTPOFF|TLSDESC|TPREL)[0-9]*' | sort -u)
case "$tls" in
  R_X86_64_TPOFF64 | R_AARCH64_TLS_TPREL*) printf 'ok: TLS is initial-exec\n' ;;
  *) fail "TLS is not initial-exec alone: ${tls:-no TLS relocation}" ;;
esac
if nm -D --undefined-only "$library" | grep -q '__tls_get_addr'; then fail '__tls_get_addr is called'; fi

# Functions of libc that allocate would come back to this library, from inside of it. Only malloc_info, which
# writes to a stream, and the start of the background thread do so, with no lock held.
allocating='^(malloc|calloc|realloc|free|strn?dup|(__)?[a-z]*printf(_chk)?|fopen|fdopen|open_memstream|getline'
allocating+='|getdelim|qsort|pthread_create)$'
if called=$(nm -D --undefined-only "$library" | awk '{print $2}' | sed 's/@.*//' | grep -E "$allocating" |
  grep -vE '^((__)?fprintf(_chk)?|pthread_create)$'); then
  fail "functions of libc that allocate are called: $called"
else
  printf 'ok: no function of libc that allocates is called\n'
fi

((failures == 0)) || exit 1
