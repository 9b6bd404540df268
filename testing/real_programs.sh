#!/usr/bin/env bash
# Runs real programs without and with hakmem and compares what they print and how they end. For every process of the second
# run the dynamic linker's own record must show that its malloc is hakmem's.
#
# The exit status is 0 if all programs that are installed behave the same, 1 if not, 2 for a bad option.
set -euo pipefail

workspace="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
readonly workspace

require_all=no
library=
selected=()
all_programs=(bash python3 git gcc g++ sqlite3 redis-server node java)
limit=120 # seconds for one run of one program

usage() {
  cat <<END
usage: testing/real_programs.sh [options] [PROGRAM...]

  --require-all      a program that is not installed is a failure and not skipped
  --library=PATH     preload this library; by default the programs are started through ./hakmem
  --keep             keep the directory with all inputs and outputs, and print its name

PROGRAM: ${all_programs[*]} (default: all)
END
}

refuse() {
  printf 'real_programs.sh: %s\n' "$1" >&2
  exit 2
}

keep=no
for option in "$@"; do
  case "$option" in
    --require-all) require_all=yes ;;
    --library=*) library="$(readlink -f -- "${option#*=}")" || refuse "$option: no such file" ;;
    --keep) keep=yes ;;
    --help)
      usage
      exit 0
      ;;
    -*) refuse "'$option' is unknown; see --help" ;;
    *)
      [[ " ${all_programs[*]} " == *" $option "* ]] || refuse "'$option' is none of: ${all_programs[*]}"
      selected+=("$option")
      ;;
  esac
done
((${#selected[@]} > 0)) || selected=("${all_programs[@]}")
[[ -z "$library" || -f "$library" ]] || refuse "$library: no such file"

scratch="$(mktemp -d)"
cleanup() {
  if [[ "$keep" == yes ]]; then printf 'kept: %s\n' "$scratch"; else rm -rf -- "$scratch"; fi
}
trap cleanup EXIT

# on_allocator COMMAND...: runs a command without or with hakmem, as $side says. A status other than 0 is part of the output.
side=plain
record_directory=
on_allocator() {
  local status=0
  local -a run=(timeout --kill-after=5 "$limit" "$@")
  if [[ "$side" == hakmem ]]; then
    # LD_DEBUG makes the dynamic linker write, for each process, which library every symbol was taken from.
    run=(env LD_DEBUG=bindings "LD_DEBUG_OUTPUT=$record_directory/ld" "${run[@]}")
    if [[ -n "$library" ]]; then
      run=(env "LD_PRELOAD=$library" "${run[@]}")
    else
      run=("$workspace/hakmem" "${run[@]}")
    fi
  fi
  "${run[@]}" || status=$?
  ((status == 0)) || printf '%s ended with status %d\n' "$1" "$status"
}

# The programs: each function runs in an empty directory of its own, with the inputs in "$inputs", and prints nothing that
# depends on the time, the place or the process.

run_bash() {
  on_allocator bash "$inputs/program.sh" 2>&1
}

run_python3() {
  # PYTHONMALLOC: every small object through malloc instead of Python's own arenas.
  PYTHONHASHSEED=0 PYTHONMALLOC=malloc on_allocator python3 "$inputs/program.py" 2>&1
  PYTHONHASHSEED=0 on_allocator python3 "$inputs/program.py" 2>&1
}

run_git() {
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME="$PWD"
  export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_AUTHOR_DATE='2020-01-01T00:00:00Z'
  export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
  on_allocator bash "$inputs/program_git.sh" 2>&1
}

run_gcc() {
  cp "$inputs/program.c" .
  on_allocator gcc -O2 -g "-fdebug-prefix-map=$PWD=." -Wall -c program.c -o program.o 2>&1
  sha256sum <program.o
  on_allocator gcc program.o -o program 2>&1
  on_allocator ./program
}

run_g++() {
  cp "$inputs/program.cc" .
  on_allocator g++ -std=c++17 -O2 -Wall -c program.cc -o program.o 2>&1
  sha256sum <program.o
  on_allocator g++ program.o -o program -pthread 2>&1
  on_allocator ./program
}

run_sqlite3() {
  on_allocator sqlite3 -batch database <"$inputs/program.sql" 2>&1
}

run_redis-server() {
  local socket server
  socket="$(mktemp -u /tmp/hakmem-redis-XXXXXX)" # short: a socket's path has 107 bytes
  # Whatever happens here, the server does not outlive this subshell.
  trap '[[ ! -f redis.pid ]] || kill "$(<redis.pid)" 2>/dev/null || true' EXIT
  on_allocator redis-server --port 0 --unixsocket "$socket" --save '' --appendonly no --daemonize no \
    --pidfile "$PWD/redis.pid" --io-threads 2 >server.log 2>&1 &
  server=$!
  local tries=0
  until redis-cli -s "$socket" ping >/dev/null 2>&1; do
    if ((++tries > 300)) || ! kill -0 "$server" 2>/dev/null; then
      cat server.log
      return 1
    fi
    sleep 0.1
  done
  on_allocator redis-cli -s "$socket" --no-raw <"$inputs/program.redis" 2>&1
  # The rates differ from run to run; that each test was completed does not.
  on_allocator redis-benchmark -s "$socket" -q -n 10000 -c 20 -d 200 \
    -t ping,set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset 2>&1 |
    tr '\r' '\n' | sed -n 's/^\([^:]*\): [0-9.]* requests per second.*/\1: done/p'
  # Frees in a background thread what the main thread has allocated.
  on_allocator redis-cli -s "$socket" flushall async 2>&1
  on_allocator redis-cli -s "$socket" shutdown nosave 2>&1
  wait "$server"
  grep -c 'bye bye' server.log
  rm -f -- "$socket"
}

run_node() {
  on_allocator node "$inputs/program.js" 2>&1
}

run_java() {
  cp "$inputs/Program.java" .
  on_allocator java -XX:+UseSerialGC -Xmx128m -XX:-UsePerfData Program.java 2>&1
  on_allocator javac -J-XX:-UsePerfData -d . Program.java 2>&1
  on_allocator java -XX:+UseG1GC -Xmx128m -XX:-UsePerfData -cp . Program 2>&1
}

# check_record DIRECTORY: prints what is wrong with the dynamic linker's records in it. Each process must take malloc,
# calloc, realloc and free from hakmem. A program that is not position-independent also binds them to a jump of its own
# that leads there: such a target is right if it takes the symbol from hakmem itself.
check_record() {
  local -a records=("$1"/ld.*)
  if [[ ! -f "${records[0]}" ]]; then
    printf 'the dynamic linker left no record\n'
    return
  fi
  awk '
    function finish() {
      if (file == "") return
      if (!served) print file ": no malloc was taken from hakmem"
      for (key in others) if (!(key in own)) print file ": " others[key]
      delete others
      delete own
      served = 0
    }
    FNR == 1 { finish(); file = FILENAME }
    match($0, /binding file .* to .*: normal symbol `(malloc|calloc|realloc|free)\047/) {
      text = substr($0, RSTART + 13, RLENGTH - 13)
      split(text, parts, / \[[0-9]+\] to | \[[0-9]+\]: normal symbol `/)
      from = parts[1]; to = parts[2]; symbol = parts[3]
      if (to ~ /\/libhakmem[^\/]*\.so$/) {
        served = 1
        own[from, symbol] = 1
      } else {
        others[to, symbol] = "taken from elsewhere: " text
      }
    }
    END { finish() }
  ' "${records[@]}"
}

write_inputs() {
  inputs="$scratch/inputs"
  mkdir -- "$inputs"

  cat >"$inputs/program.sh" <<'END'
declare -A words
for i in {1..3000}; do words[k$((i % 700))]+=" $i"; done
printf '%s\n' "${#words[@]}" "${words[k3]}"
text=$(printf 'line %s\n' {1..5000})
printf '%s\n' "${#text}" "${text//line/LINE}" | cksum
mapfile -t lines <<<"$text"
printf '%s\n' "${lines[4999]}"
(sort -r | head -n 3) <<<"$text"
f() { local n=$1; ((n < 2)) && echo 1 || echo $(($(f $((n - 1))) + n)); }
f 40
printf '%s\n' {1..20000} | { sum=0; while read -r n; do ((sum += n)); done; echo "$sum"; }
exit 7
END

  cat >"$inputs/program.py" <<'END'
import collections, concurrent.futures, hashlib, json, re, subprocess, sys, threading, zlib

print(sys.version_info[0])
data = [{"id": i, "name": "n%d" % i, "tags": [str(j) for j in range(i % 7)]} for i in range(20000)]
text = json.dumps(data)
assert json.loads(text) == data
print(len(text), hashlib.sha256(text.encode()).hexdigest(), zlib.crc32(zlib.compress(text.encode())) != 0)
print(collections.Counter(re.findall(r"[a-z]+", text)).most_common(3))
big = bytearray()
for i in range(300):
    big += bytes([i % 256]) * 30000
print(len(big), hashlib.md5(big).hexdigest())
print(hex(3 ** 20000)[-20:], sum(int(d, 16) for d in hex(7 ** 9000)[2:]))

def work(n):
    return sum(len(str(i) * (i % 50)) for i in range(n))

with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(work, [20000] * 8)))
threads = [threading.Thread(target=work, args=(100,)) for _ in range(50)]
for t in threads: t.start()
for t in threads: t.join()
print(subprocess.run(["sh", "-c", "echo from a child"], capture_output=True, text=True).stdout, end="")
END

  cat >"$inputs/program_git.sh" <<'END'
set -e
git init -q -b main repository
cd repository
for i in 1 2 3 4 5; do
  for j in $(seq 1 40); do seq $((i * j)) $((i * j + 300)) >"file$j"; done
  git add -A
  git commit -q -m "commit $i"
done
git checkout -q -b side HEAD~2
echo side >side
git add side
git commit -q -m side
git merge -q -m merge main
git log --format='%H %s'
git diff --stat HEAD~1 HEAD | tail -n 3
git -c pack.threads=2 repack -a -d -q
git gc -q --aggressive
git fsck --full
git blame file7 | cksum
git grep -c 33 -- 'file1*'
cd ..
git clone -q repository clone
git -C clone rev-parse HEAD
END

  cat >"$inputs/program.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node { struct node *left, *right; int key; char text[20]; };

static struct node *insert(struct node *n, int key) {
  if (n == NULL) {
    n = calloc(1, sizeof *n);
    n->key = key;
    snprintf(n->text, sizeof n->text, "node %d", key);
  } else if (key < n->key) {
    n->left = insert(n->left, key);
  } else if (key > n->key) {
    n->right = insert(n->right, key);
  }
  return n;
}

static long walk(const struct node *n) { return n == NULL ? 0 : walk(n->left) + (long)strlen(n->text) + walk(n->right); }

static void drop(struct node *n) {
  if (n == NULL) return;
  drop(n->left);
  drop(n->right);
  free(n);
}

int main(void) {
  struct node *root = NULL;
  unsigned x = 1;
  for (int i = 0; i < 200000; i++) {
    x = x * 1103515245u + 12345u;
    root = insert(root, (int)(x >> 8) % 100000);
  }
  printf("%ld\n", walk(root));
  drop(root);
  return 3;
}
END

  cat >"$inputs/program.cc" <<'END'
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <memory_resource>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

int main() {
  std::unordered_map<std::string, std::vector<int>> table;
  for (int i = 0; i < 100000; i++) table["key" + std::to_string(i % 5000)].push_back(i);
  std::map<size_t, std::string> sorted;
  for (auto &[key, values] : table) sorted[values.front()] = key;
  std::cout << sorted.size() << ' ' << sorted.begin()->second << '\n';

  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<std::string>> made(4000);
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&made, t] {
      for (int i = t; i < 4000; i += 4) made[i] = std::make_unique<std::string>(i, 'x');
    });
  }
  for (auto &thread : threads) thread.join();
  size_t total = 0;
  for (auto &text : made) total += text->size();
  std::cout << total << '\n';

  struct alignas(128) Wide { char bytes[300]; };
  std::vector<Wide> wide(1000);
  std::cout << reinterpret_cast<size_t>(wide.data()) % 128 << '\n';
  std::pmr::vector<std::pmr::string> names(std::pmr::new_delete_resource());
  for (int i = 0; i < 1000; i++) names.emplace_back(std::to_string(i));
  std::cout << names.back() << '\n';

  std::string text;
  for (int i = 0; i < 500; i++) text += "word" + std::to_string(i) + " ";
  std::cout << std::regex_replace(text, std::regex("[a-z]+([0-9])"), "$1-").size() << '\n';
  try {
    std::vector<int> none;
    none.at(3) = 1;
  } catch (const std::exception &e) {
    std::cout << e.what() << '\n';
  }
  try {
    std::vector<char> huge;
    huge.reserve(size_t{1} << 62);
  } catch (const std::bad_alloc &) {
    std::cout << "bad_alloc\n";
  }
}
END

  cat >"$inputs/program.sql" <<'END'
PRAGMA journal_mode = memory;
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50000)
INSERT INTO t SELECT n, 'name' || (n * 7919 % 1000), n * 0.5 FROM c;
CREATE INDEX i ON t(name);
SELECT count(*), sum(value), group_concat(id) FROM t WHERE name = 'name17';
SELECT name, count(*), max(value) FROM t GROUP BY name ORDER BY 3 DESC LIMIT 5;
SELECT length(group_concat(name, '')) FROM t;
UPDATE t SET name = name || name WHERE id % 3 = 0;
DELETE FROM t WHERE id % 5 = 0;
SELECT count(*) FROM t a JOIN t b ON a.id = b.id + 1 WHERE a.name > b.name;
SELECT hex(zeroblob(3)), length(zeroblob(3000000));
VACUUM;
PRAGMA integrity_check;
END

  cat >"$inputs/program.redis" <<'END'
SET a 1
INCRBY a 41
APPEND s hello
SETRANGE s 100000 end
STRLEN s
RPUSH l 1 2 3 4 5
LRANGE l 0 -1
HSET h f1 v1 f2 v2
HGETALL h
ZADD z 3 c 1 a 2 b
ZRANGE z 0 -1 WITHSCORES
EVAL "local t = {} for i = 1, 1000 do t[i] = string.rep('x', i) end return #table.concat(t)" 0
MEMORY PURGE
EXISTS a s l h z none
DBSIZE
END

  cat >"$inputs/program.js" <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const zlib = require('zlib');
if (isMainThread) {
  const objects = [];
  for (let i = 0; i < 200000; i++) objects.push({ id: i, name: 'n' + i });
  console.log(JSON.stringify(objects).length);
  const buffers = [];
  for (let i = 1; i <= 200; i++) buffers.push(Buffer.alloc(i * 1000, i));
  const all = Buffer.concat(buffers);
  console.log(all.length, crypto.createHash('sha256').update(all).digest('hex'));
  console.log(zlib.gunzipSync(zlib.gzipSync(all)).equals(all));
  let map = new Map();
  for (let i = 0; i < 100000; i++) map.set('k' + i, [i]);
  map = null;
  Promise.all([1, 2, 3, 4].map((n) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: n });
    worker.on('message', resolve);
    worker.on('error', reject);
  }))).then((sums) => console.log(sums.join(' ')));
} else {
  let sum = 0;
  for (let i = 0; i < 300; i++) sum += Buffer.alloc(workerData * 3000 + i, 1).length;
  parentPort.postMessage(sum);
}
END

  cat >"$inputs/Program.java" <<'END'
import java.nio.ByteBuffer;
import java.util.*;
import java.util.stream.*;
import java.util.zip.*;

public class Program {
  public static void main(String[] arguments) throws Exception {
    Map<String, List<Integer>> map = new TreeMap<>();
    for (int i = 0; i < 200000; i++) map.computeIfAbsent("k" + i % 1000, k -> new ArrayList<>()).add(i);
    System.out.println(map.size() + " " + map.get("k7").get(100));
    System.out.println(IntStream.range(0, 1000000).parallel().mapToLong(i -> i % 7).sum());
    CRC32 crc = new CRC32();
    for (int i = 1; i < 300; i++) {
      ByteBuffer buffer = ByteBuffer.allocateDirect(i * 1000);
      while (buffer.hasRemaining()) buffer.put((byte) i);
      buffer.flip();
      crc.update(buffer);
    }
    System.out.println(crc.getValue());
    Deflater deflater = new Deflater();
    deflater.setInput(new byte[1000000]);
    deflater.finish();
    byte[] out = new byte[10000];
    System.out.println(deflater.deflate(out) > 0);
    deflater.end();
    Thread[] threads = new Thread[20];
    long[] sums = new long[threads.length];
    for (int t = 0; t < threads.length; t++) {
      int n = t;
      threads[t] = new Thread(() -> { for (int i = 0; i < 10000; i++) sums[n] += ("" + i).hashCode() % 10; });
      threads[t].start();
    }
    for (Thread thread : threads) thread.join();
    System.out.println(Arrays.stream(sums).distinct().count());
    System.exit(5);
  }
}
END
}

# run_side PROGRAM SIDE: output and exit status of the program go to files.
run_side() {
  local directory="$scratch/$1/$2/work"
  mkdir -p -- "$directory" "$scratch/$1/$2/record"
  (
    cd -- "$directory"
    side="$2"
    record_directory="$scratch/$1/$2/record"
    "run_$1" || printf 'run_%s failed\n' "$1"
  ) >"$scratch/$1/$2/output"
}

# expected_ends PROGRAM: how its commands end other than with status 0. Anything else, without hakmem as well, means that the
# program did not do what it is here for.
expected_ends() {
  case "$1" in
    bash) printf 'bash ended with status 7\n' ;;
    gcc) printf './program ended with status 3\n' ;;
    java) printf 'java ended with status 5\njava ended with status 5\n' ;;
  esac
}

# tools_of PROGRAM: what must be installed for it.
tools_of() {
  case "$1" in
    redis-server) printf '%s\n' redis-server redis-cli redis-benchmark ;;
    java) printf '%s\n' java javac ;;
    *) printf '%s\n' "$1" ;;
  esac
}

missing_tool() {
  local tool
  while read -r tool; do
    if ! type -P -- "$tool" >/dev/null; then
      printf '%s\n' "$tool"
      return
    fi
  done < <(tools_of "$1")
}

main() {
  local program missing wrong same=0 different=0 skipped=0
  unset LD_PRELOAD "${!HAKMEM_@}"
  export LC_ALL=C TZ=UTC
  write_inputs
  if [[ -z "$library" ]]; then "$workspace/hakmem" true; fi # builds the library, outside the time limits
  for program in "${selected[@]}"; do
    missing="$(missing_tool "$program")"
    if [[ -n "$missing" ]]; then
      printf '%-14s SKIPPED: %s is not installed\n' "$program" "$missing"
      skipped=$((skipped + 1))
      continue
    fi
    mkdir -- "$scratch/$program"
    run_side "$program" plain
    run_side "$program" hakmem
    wrong="$(
      diff -- <(expected_ends "$program") <(grep -E ' (ended with status [0-9]+|failed)$' "$scratch/$program/plain/output") ||
        printf 'without hakmem already, the program did not end as it must\n'
      diff -- "$scratch/$program/plain/output" "$scratch/$program/hakmem/output" || true
      check_record "$scratch/$program/hakmem/record"
    )"
    if [[ -s "$scratch/$program/plain/output" && -z "$wrong" ]]; then
      printf '%-14s same: %d lines, %d processes on hakmem\n' "$program" "$(wc -l <"$scratch/$program/hakmem/output")" \
        "$(find "$scratch/$program/hakmem/record" -type f | wc -l)"
      same=$((same + 1))
    else
      printf '%-14s DIFFERENT (< without, > with hakmem):\n' "$program"
      head -n 40 <<<"${wrong:-no output at all}"
      different=$((different + 1))
    fi
  done
  printf 'real programs: %d same, %d different, %d skipped\n' "$same" "$different" "$skipped"
  ((different == 0 && same > 0)) || exit 1
  if [[ "$require_all" == yes ]] && ((skipped > 0)); then exit 1; fi
}

main
