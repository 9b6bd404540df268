"""The rows of //bench:compare that run real programs, Debian's own where installed, on generated inputs."""

import json
import random
import shutil
import subprocess
import time
import typing

_PATH = "/usr/bin:/bin"  # not what the caller's PATH puts before it: a wrapper would be measured instead


def find(tool):
    return shutil.which(tool, path=_PATH)


class Program(typing.NamedTuple):
    title: str
    package: str           # of Debian
    command: tuple         # its first word is looked up; FOLDER stands for a folder with the input in it
    write_input: object    # (folder, scale): writes the input
    environment: dict = {}
    drive: object = None   # (folder, scale): works with the program while it runs, and makes it end

    def command_line(self, folder):
        return [find(self.command[0]), *(word.replace("FOLDER", str(folder)) for word in self.command[1:])]


def times(number, scale):
    return max(1, round(number * scale))


def write_c(folder, scale):
    """Functions with loops, switches and structures, so that every pass of the compiler has something to do."""
    draw = random.Random(12345)
    parts = ["struct item { int key; double weight; struct item *next; char name[16]; };\n"]
    for i in range(times(120, scale)):
        cases = "".join(f"    case {k}: sum += a[(i + {draw.randrange(64)}) % 64] * {draw.randrange(1, 99)}; break;\n"
                        for k in range(draw.randrange(3, 12)))
        parts.append(f"""
static int walk_{i}(struct item *p, int limit) {{
  int n = 0;
  for (; p != 0 && n < limit; p = p->next) n += p->key % {i + 3} ? p->name[{i % 16}] : (int)(p->weight * {i + 1});
  return n;
}}
int function_{i}(const int *a, struct item *p, int n) {{
  int sum = 0;
  for (int i = 0; i < n; i++) {{
    switch ((a[i % 64] ^ {i}) % 13) {{
{cases}    default: sum ^= walk_{i}(p, i);
    }}
  }}
  return sum{f" + function_{i - 1}(a, p, n / 2)" if i > 0 else ""};
}}
""")
    (folder / "input.c").write_text("".join(parts), encoding="utf-8")


def write_python(folder, scale):
    (folder / "input.py").write_text(f"""
import json, re

class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

def insert(root, key):
    while root.key != key:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            setattr(root, side, Node(key))
            return
        root = child

for i in range({times(24, scale)}):
    records = [{{"id": k, "name": f"name {{k * 7919 % 10007}}", "tags": [str(j) for j in range(k % 9)]}}
               for k in range(5000)]
    text = json.dumps(records)
    words = {{}}
    for word in re.findall(r"[a-z0-9]+", text):
        words[word] = words.get(word, 0) + 1
    assert json.loads(text) == records
    root = Node(10**6)
    x = i + 1
    for _ in range(5000):
        x = x * 1103515245 % 2147483648
        insert(root, x)
    lines = ["%d:%s" % (k, "x" * (k % 200)) for k in range(12000)]
    lines.sort(key=lambda line: line[-20:])
""", encoding="utf-8")


def write_lua(folder, scale):
    (folder / "input.lua").write_text(f"""
local function tree(depth)
  if depth == 0 then return {{}} end
  return {{ tree(depth - 1), tree(depth - 1), tostring(depth) }}
end
for i = 1, {times(12, scale)} do
  local t = tree(14)
  local words = {{}}
  for k = 1, 40000 do
    local key = "key" .. (k * 7919 % 30011)
    words[key] = (words[key] or "") .. string.char(97 + k % 26)
  end
  local parts = {{}}
  for key, value in pairs(words) do parts[#parts + 1] = key .. "=" .. value:upper() end
  table.sort(parts)
  assert(#table.concat(parts, ";") > 100000 and t[3] == "14")
end
""", encoding="utf-8")


def write_sql(folder, scale):
    rows = times(150000, scale)
    (folder / "input.sql").write_text(f"""
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL, text TEXT);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
INSERT INTO t SELECT n, 'name' || (n * 7919 % 10007), n * 0.5, printf('%.*c', n % 300, 'x') FROM c;
CREATE INDEX i ON t(name, value);
SELECT count(*) FROM (SELECT name, group_concat(text), max(value) FROM t GROUP BY name);
SELECT count(*) FROM t a JOIN t b ON a.name = b.name AND a.id < b.id;
UPDATE t SET text = text || name WHERE id % 3 = 0;
SELECT count(DISTINCT text || upper(name)) FROM t;
DELETE FROM t WHERE id % 5 = 0;
SELECT count(*) FROM (SELECT text FROM t ORDER BY text, name);
""", encoding="utf-8")


def write_postscript(folder, scale):
    (folder / "input.ps").write_text(f"""%!PS
/Times-Roman findfont 9 scalefont setfont
1 1 {times(60, scale)} {{
  /page exch def
  0 1 70 {{ /i exch def
    40 780 i 10 mul sub moveto
    0 1 12 {{ page mul i add 20 string cvs show ( words of text ) show }} for
  }} for
  0 1 400 {{ /i exch def
    newpath i 7 mul 600 mod i 11 mul 800 mod 20 i 10 mod add 0 300 arc
    i 400 div page 60 div 0.5 setrgbcolor fill
  }} for
  1 1 2000 {{ dup array exch 20 dict exch 3 string exch put pop }} for
  showpage
}} for
""", encoding="utf-8")


def write_smt(folder, scale):
    """Bit vectors: colours of a graph, sums and products that must agree."""
    draw = random.Random(12345)
    n = times(60, scale)
    lines = ["(set-logic QF_BV)"]
    lines += [f"(declare-const x{i} (_ BitVec 16))" for i in range(n)]
    for _ in range(3 * n):
        a, b, c = (draw.randrange(n) for _ in range(3))
        lines.append(f"(assert (not (= (bvadd x{a} (bvmul x{b} #x{draw.randrange(65536):04x})) (bvxor x{c} "
                     f"#x{draw.randrange(65536):04x}))))")
        lines.append(f"(assert (or (bvult x{a} #x{draw.randrange(65536):04x}) (bvugt (bvadd x{b} x{c}) "
                     f"#x{draw.randrange(65536):04x})))")
    lines.append("(check-sat)")
    (folder / "input.smt2").write_text("\n".join(lines), encoding="utf-8")


def write_cpp(folder, scale):
    """Containers, algorithms and lambdas of many types, as the headers of the standard library are made for."""
    parts = ["".join(f"#include <{header}>\n" for header in ("algorithm", "functional", "map", "memory", "regex", "set",
                                                            "sstream", "string", "unordered_map", "vector"))]
    for i in range(times(4, scale)):
        parts.append(f"""
template <typename T> struct Item{i} {{
  T value;
  std::string name;
  bool operator<(const Item{i} &other) const {{ return name < other.name; }}
}};
int function_{i}(int n) {{
  std::map<std::string, std::vector<Item{i}<int>>> by_name;
  std::unordered_map<int, std::set<Item{i}<double>>> by_key;
  for (int k = 0; k < n; k++) {{
    by_name[std::to_string(k % {i + 3})].push_back({{k, "a"}});
    by_key[k % {i + 5}].insert({{k * 0.5, std::to_string(k)}});
  }}
  std::function<int(int)> add = [&](int k) {{ return k + static_cast<int>(by_key.size()); }};
  auto &items = by_name["1"];
  std::sort(items.begin(), items.end(), [](const auto &a, const auto &b) {{ return b < a; }});
  std::ostringstream out;
  for (const auto &item : items) out << add(item.value) << item.name;
  return static_cast<int>(out.str().size());
}}
""")
    (folder / "input.cc").write_text("".join(parts), encoding="utf-8")


def write_perl(folder, scale):
    (folder / "input.pl").write_text(f"""
use strict; use warnings;
my (%count, %places, @kept);
my $x = 1;
sub draw {{ $x = ($x * 1103515245 + 12345) % 2147483648; return $x % $_[0]; }}
for my $round (1 .. {times(32, scale)}) {{
  my $text = join " ", map {{ "word" . draw(9000) . ("x" x draw(20)) }} 1 .. 12000;
  while ($text =~ /([a-z]+)([0-9]+)(x*)/g) {{
    $count{{"$1$2"}}++;
    push @{{$places{{$2}}}}, [length $3, pos $text];
  }}
  my @most = sort {{ $count{{$b}} <=> $count{{$a}} || $a cmp $b }} keys %count;
  delete $count{{$_}} for @most[@most / 2 .. $#most];
  delete $places{{draw(9000)}} for 1 .. 3000;
  push @kept, {{ round => $round, most => [@most[0 .. 99]], text => substr($text, 0, draw(length $text)) }};
  shift @kept if @kept > 5;
}}
die unless @kept;
""", encoding="utf-8")


def write_tcl(folder, scale):
    (folder / "input.tcl").write_text(f"""
set x 1
proc draw n {{ global x; set x [expr {{($x * 1103515245 + 12345) % 2147483648}}]; return [expr {{$x % $n}}] }}
for {{set round 0}} {{$round < {times(6, scale)}}} {{incr round}} {{
  set table [dict create]
  set rows {{}}
  for {{set i 0}} {{$i < 20000}} {{incr i}} {{
    set key key[draw 3000]
    dict lappend table $key "value $i"
    lappend rows [list $key $i [string repeat x [draw 60]]]
  }}
  set rows [lsort -index 2 [lsort -index 0 $rows]]
  set total 0
  dict for {{key values}} $table {{ foreach value $values {{ incr total [string length [string toupper $value]] }} }}
  foreach row $rows {{ regsub -all {{x+}} [join $row ";"] "<&>" line; incr total [llength [split $line ";"]] }}
}}
""", encoding="utf-8")


def write_xml(folder, scale):
    draw = random.Random(12345)
    lines = ["<?xml version='1.0'?>", "<catalogue>"]
    for i in range(times(300000, scale)):
        words = " ".join(f"word{draw.randrange(1000)}" for _ in range(draw.randrange(1, 9)))
        lines.append(f"<item id='{i}' kind='{'abcdef'[draw.randrange(6)]}'><name>{'n' * draw.randrange(3, 20)}</name>"
                     f"<price>{draw.random():.6f}</price><text>{words}</text></item>")
    lines.append("</catalogue>")
    (folder / "input.xml").write_text("\n".join(lines), encoding="utf-8")


def write_json(folder, scale):
    draw = random.Random(12345)
    records = [{"id": i, "name": "x" * draw.randrange(1, 30), "price": draw.random(),
                "tags": [f"tag{draw.randrange(50)}" for _ in range(draw.randrange(6))]}
               for i in range(times(80000, scale))]
    (folder / "input.json").write_text(json.dumps(records), encoding="utf-8")
    (folder / "input.jq").write_text("""
[.[] | {id, length: (.name | length), tags: (.tags | unique)}] | group_by(.length) | map(length)
""", encoding="utf-8")


def drive_redis(folder, scale):
    """Fills and uses the server by clients that are not on the allocator under test."""
    client = ["-s", str(folder / "socket")]
    deadline = time.monotonic() + 30
    while subprocess.run([find("redis-cli"), *client, "ping"], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError("redis-server does not answer")
        time.sleep(0.02)
    for size in (50, 400, 3000):
        subprocess.run([find("redis-benchmark"), *client, "-q", "-n", str(times(20000, scale)), "-c", "20", "-P", "16",
                        "-r", "50000", "-d", str(size), "-t", "set,get,incr,lpush,rpop,sadd,hset,zadd,mset"],
                       stdout=subprocess.DEVNULL, check=True)
    subprocess.run([find("redis-cli"), *client, "shutdown", "nosave"], capture_output=True, check=False)


def write_nothing(_folder, _scale):
    pass


PROGRAMS = [
    Program("gcc -O2", "gcc", ("gcc", "-O2", "-c", "FOLDER/input.c", "-o", "FOLDER/output.o"), write_c),
    Program("g++ -O1", "g++", ("g++", "-std=c++17", "-O1", "-c", "FOLDER/input.cc", "-o", "FOLDER/output.o"), write_cpp),
    Program("cppcheck", "cppcheck", ("cppcheck", "-q", "--enable=all", "FOLDER/input.c"),
            lambda folder, scale: write_c(folder, 2 * scale)),
    # Every object through malloc instead of Python's own arenas, and with them.
    Program("python3, all by malloc", "python3", ("python3", "FOLDER/input.py"), write_python,
            {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}),
    Program("python3", "python3", ("python3", "FOLDER/input.py"), write_python, {"PYTHONHASHSEED": "0"}),
    Program("perl", "perl", ("perl", "FOLDER/input.pl"), write_perl, {"PERL_HASH_SEED": "0"}),
    Program("tclsh", "tcl", ("tclsh", "FOLDER/input.tcl"), write_tcl),
    Program("lua", "lua5.4", ("lua5.4", "FOLDER/input.lua"), write_lua),
    Program("jq", "jq", ("jq", "-c", "-f", "FOLDER/input.jq", "FOLDER/input.json"), write_json),
    Program("xmllint", "libxml2-utils", ("xmllint", "--format", "--output", "/dev/null", "FOLDER/input.xml"), write_xml),
    Program("sqlite3", "sqlite3", ("sqlite3", "-batch", ":memory:", ".read FOLDER/input.sql"), write_sql),
    Program("redis-server", "redis-server",
            ("redis-server", "--port", "0", "--unixsocket", "FOLDER/socket", "--save", "", "--appendonly", "no",
             "--daemonize", "no", "--dir", "FOLDER"), write_nothing, drive=drive_redis),
    Program("ghostscript", "ghostscript", ("gs", "-q", "-dNOPAUSE", "-dBATCH", "-dSAFER", "-sDEVICE=ppmraw", "-r100",
                                           "-sOutputFile=/dev/null", "FOLDER/input.ps"), write_postscript),
    Program("z3", "z3", ("z3", "FOLDER/input.smt2"), write_smt),
]
