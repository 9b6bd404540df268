"""How //bench:compare runs one row on one allocator, and makes sure that it was that one."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import typing

import allocators

TIMEOUT_SECONDS = 600
PROBE_TIMEOUT_SECONDS = 60
COUNTING_TIMEOUT_SECONDS = 7200

# With caches of a usual size, whatever those of the machine are.
COUNTING = ("valgrind", "--tool=cachegrind", "--branch-sim=yes", "--cache-sim=yes", "--I1=32768,8,64",
            "--D1=32768,8,64", "--LL=8388608,16,64", "--trace-children=yes", "--cachegrind-out-file=/dev/null")
UNOPTIMISED = "of a build without optimisation"  # the end of a bench's proof
COUNTS = {"instructions": r"I +refs: +([\d,]+)", "d1_misses": r"D1 +misses: +([\d,]+)",
          "ll_misses": r"LLd misses: +([\d,]+)", "branch_misses": r"Mispredicts: +([\d,]+)"}


class Allocator(typing.NamedTuple):
    name: str
    option: str   # what --allocator of a bench takes
    library: str  # the file to preload; glibc's own too, since some programs are linked with another allocator
    proof: str


class Failed(Exception):
    """A run that gave no figures: what went wrong."""


class Run(typing.NamedTuple):
    output: str
    wall_seconds: float
    cpu_seconds: float
    counts: dict  # by name, as in COUNTS; of all processes together


def kill_all(process):
    """Ends what is left of the process and of its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(command, environment, folder, drive=None, count=False):
    """Runs one process, with `drive()` meanwhile; with `count`, under Valgrind."""
    timeout_seconds = COUNTING_TIMEOUT_SECONDS if count else TIMEOUT_SECONDS
    is_late = threading.Event()
    if count:
        command = [*COUNTING, *command]
    text = {"mode": "w+", "encoding": "utf-8", "errors": "replace"}
    with open(folder / "stdout", **text) as out, open(folder / "stderr", **text) as err:
        start = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
                              start_new_session=True) as process:
            def stop():
                is_late.set()
                kill_all(process)

            timer = threading.Timer(timeout_seconds, stop)
            timer.daemon = True  # the user may interrupt where it is not cancelled yet: who waits for it waits long
            timer.start()
            try:
                if drive is not None:
                    drive()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                if not is_late.is_set():
                    raise Failed(str(error)) from error
            finally:
                kill_all(process)  # whatever was raised: `with` waits for the end
                timer.cancel()
        if is_late.is_set():
            raise Failed(f"no end within {timeout_seconds:g} s")
        wall_seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            last_words = (err.read().strip() or out.read().strip()).splitlines()[-1:]
            raise Failed(" ".join([allocators.status_text(process.returncode), *last_words]))
        counts = counted(err.read()) if count else {}
        return Run(out.read(), wall_seconds, usage.ru_utime + usage.ru_stime, counts)


def matched(pattern, output):
    """The match of a line that a bench must print."""
    match = re.search(pattern, output, re.M)
    if match is None:
        raise Failed(f"no line {pattern} in its output")
    return match


def counted(report):
    counts = {}
    for name, pattern in COUNTS.items():
        figures = re.findall(pattern, report)
        if not figures:
            raise Failed("Valgrind has counted nothing")
        counts[name] = sum(int(figure.replace(",", "")) for figure in figures)
    return counts


class Bench:
    """A program of our own: it gets at its allocator by itself, proves it, and tells its figures."""

    def __init__(self, bench, scale, environment, count):
        self.title, self.group, self.threads, self.family = bench.title, bench.group, bench.threads, bench.family
        self._environment, self._count = environment, count
        name, *arguments = bench.command_line(scale)
        self._command = [str(allocators.find_program(name)), *arguments]

    def measure(self, allocator, folder):
        output, _, _, counts = run([*self._command, "--allocator", allocator.option], self._environment, folder,
                                   count=self._count)
        if not output.startswith(f"Allocator: {allocator.option} = ") or "(proved: " not in output.splitlines()[0]:
            raise Failed("it did not prove its allocator")
        # The bench's own times, without the program's start and end.
        operations = matched(r"^Operations: (\d+) in (\d+\.\d+) s, (\d+\.\d+) s user, (\d+\.\d+) s system$", output)
        series = re.findall(r"^Sample: (\d+) s, (\d+) KiB live, (\d+) KiB resident$", output, re.M)
        return {
            "operations": int(operations.group(1)),
            "wall_seconds": float(operations.group(2)),
            "cpu_seconds": float(operations.group(3)) + float(operations.group(4)),
            "peak_rss_kib": int(matched(r"^Peak RSS: (\d+) KiB$", output).group(1)),
            **counts,
            "series": [[int(number) for number in sample] for sample in series],
        }


class Program:
    """A real program, with the allocator preloaded, and the witness that tells whose malloc every process of it got."""

    threads, family, group = 1, "", "real programs"

    def __init__(self, program, scale, inputs, environment, count):
        self.title, self._program, self._scale, self._count = program.title, program, scale, count
        self._environment = {**environment, **program.environment}
        self._folder = inputs / re.sub(r"[^a-z0-9]+", "_", program.title.lower())
        self._folder.mkdir()
        program.write_input(self._folder, scale)
        self._witness = allocators.find_program("libwitness.so")

    def measure(self, allocator, folder):
        statement = folder / "witness"
        statement.write_text("")
        environment = {**self._environment, "HAK_BENCH_WITNESS": str(statement),
                       "LD_PRELOAD": f"{self._witness}:{allocator.library}"}
        drive = self._program.drive
        _, wall_seconds, cpu_seconds, counts = run(
            self._program.command_line(self._folder), environment, folder,
            drive and (lambda: drive(self._folder, self._scale)), self._count)
        return {
            "operations": 1,
            "wall_seconds": wall_seconds,
            "cpu_seconds": cpu_seconds,
            "peak_rss_kib": checked_peak(statement.read_text(), allocator),
            **counts,
            "series": [],
        }


def checked_peak(statement, allocator):
    """The largest peak RSS of all processes in a witness's statement; Failed if one of them had another malloc."""
    peak_kib = 0
    for line in statement.splitlines():
        kind, _, rest = line.split(" ", 2)
        if kind == "start" and not (os.path.exists(rest) and os.path.samefile(rest, allocator.library)):
            raise Failed(f"malloc comes from {rest}")
        if kind == "end":
            glibc_bytes, process_peak_kib = (int(number) for number in rest.split())
            if allocator.name != "glibc" and glibc_bytes > 0:
                raise Failed(f"{glibc_bytes} B came from glibc")
            peak_kib = max(peak_kib, process_peak_kib)
    if peak_kib == 0:
        raise Failed("no process told its malloc and its peak RSS")
    return peak_kib


def find_allocators(wanted, required, environment):
    """The Allocators that work here. One that is required and does not ends the script."""
    found = []
    for name, option in wanted.items():
        try:
            probe = subprocess.run([allocators.find_program("pairs"), "lifo", "1", "--allocator", option],
                                   capture_output=True, text=True, env=environment, check=False,
                                   timeout=PROBE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            probe = subprocess.CompletedProcess((), 0, "", f"no end within {PROBE_TIMEOUT_SECONDS:g} s")
        proof = re.match(r"Allocator: (.* = (.*) \(proved: .*)", probe.stdout)
        if proof:
            if UNOPTIMISED in proof.group(1) and not found:
                print(f"compare: the benches are {UNOPTIMISED}, whose figures say nothing: use bazel run -c opt or "
                      "--config=release", file=sys.stderr)
            found.append(Allocator(name, option, proof.group(2), proof.group(1)))
            continue
        reason = probe.stderr.strip() or allocators.status_text(probe.returncode)
        print(f"compare: {name} is not measured: {reason}", file=sys.stderr)
        if name in required:
            sys.exit(allocators.EXIT_NOT_MEASURED)
    return found
