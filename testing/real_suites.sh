#!/usr/bin/env bash
# Runs test suites and benchmarks that Debian ships, without and with hakmem, and compares their verdicts: CPython's own
# regression tests, stress-ng's malloc stressors, pgbench, nginx under wrk, memcached, and Chromium.
#
# The exit status is 0 if all that are installed end the same way, 1 if not, 2 for a bad option.
set -euo pipefail

workspace="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
readonly workspace

require_all=no
quick=no
keep=no
library=
selected=()
all_suites=(cpython stress-ng postgresql nginx memcached chromium)
limit=300 # seconds for one run of one command

usage() {
  cat <<END
usage: testing/real_suites.sh [options] [SUITE...]

  --quick            leave out the longest of CPython's tests
  --require-all      a suite that is not installed is a failure and not skipped
  --library=PATH     preload this library instead of the one that ./hakmem builds
  --keep             keep the directory with all outputs, and print its name

SUITE: ${all_suites[*]} (default: all)
END
}

refuse() {
  printf 'real_suites.sh: %s\n' "$1" >&2
  exit 2
}

for option in "$@"; do
  case "$option" in
    --quick) quick=yes ;;
    --require-all) require_all=yes ;;
    --library=*) library="$(readlink -f -- "${option#*=}")" || refuse "$option: no such file" ;;
    --keep) keep=yes ;;
    --help)
      usage
      exit 0
      ;;
    -*) refuse "'$option' is unknown; see --help" ;;
    *)
      [[ " ${all_suites[*]} " == *" $option "* ]] || refuse "'$option' is none of: ${all_suites[*]}"
      selected+=("$option")
      ;;
  esac
done
((${#selected[@]} > 0)) || selected=("${all_suites[@]}")

scratch="$(mktemp -d)"
chmod 755 "$scratch" # servers run as users of their own
cleanup() {
  if [[ "$keep" == yes ]]; then printf 'kept: %s\n' "$scratch"; else rm -rf -- "$scratch"; fi
}
trap cleanup EXIT

# on_allocator COMMAND...: runs a command without or with hakmem, as $side says. A status other than 0 is part of the
# output.
side=plain
preload=()
on_allocator() {
  local status=0
  timeout --kill-after=5 "$limit" env "${preload[@]}" "$@" || status=$?
  ((status == 0)) || printf '%s ended with status %d\n' "$1" "$status"
}

# as_user USER COMMAND...: root runs it as that user; anybody else as himself.
as_user() {
  local user=$1
  shift
  if ((EUID == 0)); then runuser -u "$user" -- "$@"; else "$@"; fi
}

# wait_until COMMAND...: until it succeeds, for 30 seconds.
wait_until() {
  local tries=0
  until "$@" >/dev/null 2>&1; do
    ((++tries <= 300)) || return 1
    sleep 0.1
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# The suites: each function runs in an empty directory of its own and prints nothing that depends on the time, the place
# or the process.

run_cpython() {
  local -a tests=(test_memoryio test_thread test_threading test_fork1 test_gc test_bytes test_list test_mmap test_array
    test_pickle test_zlib test_struct test_buffer test_dict test_unicode test_re test_json)
  if [[ "$quick" == no ]]; then
    tests+=(test_subprocess test_multiprocessing_fork test_posix test_wait4 test_os test_tempfile)
  fi
  # PYTHONMALLOC: every small object through malloc instead of Python's own arenas.
  PYTHONMALLOC=malloc on_allocator "$(program_of cpython)" -m test -j2 --timeout 200 "${tests[@]}" >log 2>&1 </dev/null
  sed -nE 's/^.*\] (test_[a-z0-9_]+ (passed|failed|skipped|crashed)).*$/\1/p' log | sort
  grep -E '^(All [0-9]+ tests OK|[0-9]+ tests? failed|== Tests result|.* ended with status)' log
}

run_stress-ng() {
  on_allocator stress-ng --verify --malloc 2 --malloc-ops 100000 --bigheap 1 --bigheap-ops 2000 \
    --pthread 1 --pthread-ops 100 --fork 1 --fork-ops 200 >log 2>&1
  sed -nE 's/^stress-ng: [a-z]+: +\[[0-9]+\] //p' log | sed -E 's/ in [0-9.]+s.*//' | sort
  grep 'ended with status' log || true
}

run_postgresql() {
  # Not local: the trap below runs when this function is over.
  data="$PWD/data"
  bin="$(dirname -- "$(program_of postgresql)")"
  if ((EUID == 0)); then chown postgres .; fi
  as_user postgres "$bin/initdb" -D "$data" -U postgres -A trust --no-sync >initdb.log 2>&1
  as_user postgres env "${preload[@]}" "$bin/postgres" -D "$data" -c listen_addresses= -c unix_socket_directories="$PWD" \
    -c fsync=off -c jit=off >server.log 2>&1 &
  local server=$!
  # Whatever happens here, the server does not outlive this subshell.
  trap 'as_user postgres "$bin/pg_ctl" -D "$data" -m immediate stop >/dev/null 2>&1 || true' EXIT
  wait_until "$bin/pg_isready" -h "$PWD"
  on_allocator "$bin/pgbench" -h "$PWD" -U postgres -i -q -s 2 postgres >/dev/null 2>&1
  on_allocator "$bin/pgbench" -h "$PWD" -U postgres -c 4 -j 2 -t 300 --random-seed=7 postgres 2>&1 |
    grep -E 'transactions actually|failed transactions|status'
  on_allocator "$bin/psql" -h "$PWD" -U postgres -At postgres 2>&1 <<'END'
SELECT sum(abalance), sum(aid::bigint) FROM pgbench_accounts;
SELECT sum(delta), count(*) FROM pgbench_history;
SELECT md5(string_agg(aid::text || bid, ',' ORDER BY md5(aid::text))) FROM pgbench_accounts;
END
  as_user postgres "$bin/pg_ctl" -D "$data" -m fast stop >/dev/null
  wait "$server" || printf 'the server ended with status %d\n' $?
}

run_nginx() {
  local port
  port="$(free_port)"
  mkdir www logs
  seq 1 30000 >www/large
  echo small >www/small
  cat >nginx.conf <<END
daemon off;
worker_processes 2;
pid $PWD/nginx.pid;
error_log $PWD/logs/error.log;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path $PWD/body; proxy_temp_path $PWD/proxy; fastcgi_temp_path $PWD/fastcgi;
  uwsgi_temp_path $PWD/uwsgi; scgi_temp_path $PWD/scgi;
  gzip on; gzip_types *; gzip_min_length 100;
  server {
    listen 127.0.0.1:$port;
    root $PWD/www;
    location /again/ { proxy_pass http://127.0.0.1:$port/; }
  }
}
END
  on_allocator nginx -p "$PWD" -c "$PWD/nginx.conf" >server.log 2>&1 &
  trap '[[ ! -f nginx.pid ]] || kill "$(<nginx.pid)" 2>/dev/null || true' EXIT
  local url="http://127.0.0.1:$port"
  wait_until python3 -c "import urllib.request; urllib.request.urlopen('$url/small')"
  local page
  for page in small large again/small again/large; do
    on_allocator wrk -t 2 -c 20 -d 2s -H 'Accept-Encoding: gzip' "$url/$page" >wrk.log 2>&1
    awk '/requests in/ { requests = $1 } /Socket errors|Non-2xx|status/ { print }
         END { print (requests > 100 ? "many" : "few"), "requests served" }' wrk.log
    python3 -c "import urllib.request; print(urllib.request.urlopen('$url/$page').read())" | sha256sum
  done
  kill -QUIT "$(<nginx.pid)"
  wait
  cat server.log
  grep -E '\[(alert|emerg|crit)\]' logs/error.log || true
}

run_memcached() {
  local socket
  socket="$(mktemp -u /tmp/hakmem-memcached-XXXXXX)" # short: a socket's path has 107 bytes
  chmod 777 . # it writes its pid as nobody
  on_allocator memcached -u nobody -s "$socket" -t 4 -m 64 -P "$PWD/memcached.pid" >server.log 2>&1 &
  trap '[[ ! -f memcached.pid ]] || kill "$(<memcached.pid)" 2>/dev/null || true' EXIT
  wait_until test -S "$socket" -a -s memcached.pid
  python3 - "$socket" <<'END'
import hashlib, socket, sys, threading

# Four clients, each with keys of its own: set, get, append, delete; more than the cache has room for.
digests = [None] * 4

def client(number):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    stream = connection.makefile("rwb")
    digest = hashlib.sha256()

    def ask(request, lines):
        stream.write(request)
        stream.flush()
        answer = stream.readline()
        while answer.startswith(b"VALUE") and not answer.endswith(b"END\r\n"):
            answer += stream.read(int(answer.split(b" ")[3].split(b"\r")[0]) + 2 + 5)
        digest.update(answer)

    for i in range(6000):
        key = b"k%d-%d" % (number, i % 500)
        value = (b"%d," % i) * (1 + i * 37 % 3000)
        ask(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value), 1)
        ask(b"get %s\r\n" % key, 1)
        if i % 3 == 0: ask(b"append %s 0 0 4\r\nmore\r\n" % key, 1)
        if i % 7 == 0: ask(b"delete %s\r\n" % key, 1)
    digests[number] = digest.hexdigest()

threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("\n".join(digests))
END
  kill "$(<memcached.pid)"
  wait
  cat server.log
}

# Chromium's program file has a malloc of its own, which comes before ours; what is tested is that the two get along in
# its many processes.
run_chromium() {
  cat >page.html <<'END'
<!DOCTYPE html><title>page</title><style>p { column-count: 3 }</style><body><p id=text></p><canvas id=canvas></canvas>
<script>
const words = [];
for (let i = 0; i < 20000; i++) words.push('w' + i % 97);
document.getElementById('text').textContent = words.sort().slice(0, 300).join(' ');
const context = document.getElementById('canvas').getContext('2d');
for (let i = 0; i < 50; i++) context.fillRect(i * 5, i * i % 100, 4, 20);
document.title = words.join('').length + ' ' + JSON.stringify(words).length;
</script>
END
  local -a browser=(chromium --headless --no-sandbox --disable-gpu --user-data-dir="$PWD/profile")
  on_allocator "${browser[@]}" --dump-dom "file://$PWD/page.html" 2>/dev/null
  on_allocator "${browser[@]}" --screenshot="$PWD/shot.png" --window-size=600,400 "file://$PWD/page.html" 2>/dev/null
  sha256sum <shot.png
}

# program_of SUITE: the program of which it must be shown that its malloc is hakmem's.
program_of() {
  case "$1" in
    cpython) printf '/usr/bin/python3\n' ;; # Debian's: others do not come with Debian's tests
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' | tail -n 1 ;;
    *) type -P -- "$1" || true ;;
  esac
}

# missing_of SUITE: prints what is not installed, if anything.
missing_of() {
  local program
  program="$(program_of "$1")"
  if [[ ! -x "$program" ]]; then
    printf '%s\n' "$1"
  elif [[ "$1" == cpython ]] && ! "$program" -c 'import test.test_memoryio' 2>/dev/null; then
    printf 'libpython3-testsuite\n'
  elif [[ "$1" == nginx ]] && ! type -P wrk >/dev/null; then
    printf 'wrk\n'
  fi
}

# Prints what is wrong if the dynamic linker does not take the malloc of SUITE's program from hakmem.
check_malloc() {
  local program
  program="$(program_of "$1")"
  [[ "$1" != chromium ]] || return 0
  LD_BIND_NOW=1 LD_DEBUG=bindings LD_DEBUG_OUTPUT="$scratch/$1/bindings" LD_PRELOAD="$library" "$program" --version \
    >/dev/null 2>&1 || true # nginx does not know the option, and says its version all the same
  grep -qF "to $library [0]: normal symbol \`malloc'" "$scratch/$1"/bindings.* ||
    printf 'the malloc of %s is not hakmem'\''s\n' "$program"
}

# run_side SUITE SIDE: output goes to a file.
run_side() {
  local directory="$scratch/$1/$2"
  mkdir -p -- "$directory/work"
  (
    cd -- "$directory/work"
    side="$2"
    [[ "$side" == plain ]] || preload=("LD_PRELOAD=$library")
    "run_$1"
  ) >"$directory/output" 2>"$directory/errors" || printf 'run_%s failed\n' "$1" >>"$directory/output"
}

# Verdicts that mean that a suite fails, on whichever side.
readonly failure_pattern='ended with status|^run_.* failed$|FAILURE|few requests|unsuccessful'

main() {
  local suite missing wrong same=0 different=0 skipped=0
  unset LD_PRELOAD "${!HAKMEM_@}"
  export LC_ALL=C.UTF-8 TZ=UTC
  [[ -n "$library" ]] || library="$("$workspace/hakmem" printenv LD_PRELOAD)"
  cp -- "$library" "$scratch/libhakmem.so" # where every user may read it
  library="$scratch/libhakmem.so"
  for suite in "${selected[@]}"; do
    missing="$(missing_of "$suite")"
    if [[ -n "$missing" ]]; then
      printf '%-12s SKIPPED: %s is not installed\n' "$suite" "$missing"
      skipped=$((skipped + 1))
      continue
    fi
    mkdir -- "$scratch/$suite"
    run_side "$suite" plain
    run_side "$suite" hakmem
    wrong="$(
      check_malloc "$suite"
      grep -E "$failure_pattern" "$scratch/$suite/plain/output" && printf 'without hakmem already\n'
      diff -- "$scratch/$suite/plain/output" "$scratch/$suite/hakmem/output" || true
    )" || true
    if [[ -s "$scratch/$suite/plain/output" && -z "$wrong" ]]; then
      printf '%-12s same: %d lines\n' "$suite" "$(wc -l <"$scratch/$suite/hakmem/output")"
      same=$((same + 1))
    else
      printf '%-12s DIFFERENT (< without, > with hakmem):\n' "$suite"
      head -n 40 <<<"${wrong:-no output at all}"
      different=$((different + 1))
    fi
  done
  printf 'real suites: %d same, %d different, %d skipped\n' "$same" "$different" "$skipped"
  ((different == 0 && same > 0)) || exit 1
  if [[ "$require_all" == yes ]] && ((skipped > 0)); then exit 1; fi
}

main
