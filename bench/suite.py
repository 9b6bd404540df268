"""The rows of //bench:compare that run programs of this folder: what each is called, and its command line.

In a command line, {N} is a number of operations (or, with a point, of seconds) that --scale multiplies, and @ the
number of threads. At scale 1 a row takes from a twentieth of a second to some seconds.
"""

import re
import typing

_SCALED = re.compile(r"\{([0-9.]+)\}")


class Bench(typing.NamedTuple):
    title: str
    group: str
    command: str
    threads: int = 1
    family: str = ""  # what rows share that differ in the number of threads only

    def command_line(self, scale):
        def scaled(match):
            number = match.group(1)
            if "." in number:
                return f"{max(0.01, float(number) * scale):.3f}"
            return str(max(1, round(int(number) * scale)))
        return _SCALED.sub(scaled, self.command).replace("@", str(self.threads)).split()


def scaling(title, group, command, threads):
    """The same bench with each of several numbers of threads."""
    return [Bench(f"{title}, {n} thread{'s' if n > 1 else ''}", group, command, n, title) for n in threads]


BENCHES = [
    *(Bench(f"pairs {order} {size} B", "small", f"pairs {order} {{200000}} 100 {size}")
      for size in (16, 64, 256, 1024) for order in ("lifo", "fifo", "random")),
    Bench("single pairs 64 B", "small", "pairs lifo {20000000} 1 64"),
    Bench("pairs random 8 KiB", "small", "pairs random {40000} 100 8192"),
    *scaling("pairs random 64 B", "threads", "pairs random {200000} 100 64 @", (2, 4, 8)),
    *scaling("random_mixed 8 B to 1 KiB", "threads", "random_mixed {10000000} 4096 8 1024 1 @", (1, 2, 4, 8)),
    *scaling("random_mixed 1 to 32 KiB", "threads", "random_mixed {2000000} 1024 1024 32768 1 @", (1, 2)),
    *scaling("larson 8 to 128 B, short-lived", "threads", "larson {1.0} 8 128 1024 1 12345 @", (1, 2, 4, 8)),
    *scaling("larson 8 to 1000 B, long-lived", "threads", "larson {1.0} 8 1000 5000 100 4141 @", (1, 2, 4, 16)),
    Bench("one thread allocates, one frees", "hand-over", "producer_consumer deliver {150000} 100 16 256 1", 2),
    Bench("one thread allocates 1 to 16 KiB, one frees", "hand-over",
          "producer_consumer deliver {20000} 100 1024 16384 1", 2),
    Bench("three threads allocate, one frees", "hand-over", "producer_consumer deliver {50000} 100 16 256 3", 4),
    *scaling("pipeline 16 B to 1 KiB", "hand-over", "producer_consumer exchange {80000} 100 16 1024 @", (2, 4)),
    *scaling("thread churn", "hand-over", "thread_churn {4000} @ 100", (1, 2, 8)),
    *scaling("phases of a compiler", "programs of a kind", "phases {20} 200000 @", (1, 2)),
    Bench("ageing store", "programs of a kind", "store 600 {6000} 50000"),
    Bench("strings, exact", "programs of a kind", "strings exact {6000000}"),
    Bench("strings, doubling", "programs of a kind", "strings doubling {10000000}"),
    Bench("vector to 1 GiB", "large", "vector {1} 1024 50"),
    Bench("vector to 256 MiB in small steps", "large", "vector {2} 256 12"),
    *scaling("ACE 32 KiB to 2 MiB, ends written", "large", "random_mixed {1000000} 64 32769 2097151 1 @", (1, 2)),
    *scaling("ACE 32 KiB to 2 MiB, pages written", "large", "random_mixed {200000} 64 32769 2097151 1 @ pages", (1, 2)),
    Bench("Huge 2 to 32 MiB, ends written", "large", "random_mixed {100000} 16 2097152 33554432"),
    Bench("Huge 2 to 32 MiB, pages written", "large", "random_mixed {500} 16 2097152 33554432 1 1 pages"),
    Bench("all sizes to 4 MiB", "calls", "all_sizes malloc {2000000} 256 8 4194304"),
    Bench("calloc to 32 KiB", "calls", "all_sizes calloc {2000000} 1024 8 32768"),
    Bench("calloc 32 KiB to 4 MiB", "calls", "all_sizes calloc {10000} 64 32768 4194304"),
    Bench("aligned to 64 KiB", "calls", "all_sizes aligned {3000000} 1024 8 65536"),
    *scaling("false sharing, active", "threads", "false_sharing active {10000} 10000 8 @", (2, 4)),
    *scaling("false sharing, passive", "threads", "false_sharing passive {10000} 10000 8 @", (2, 4)),
]
