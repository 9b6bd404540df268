#!/usr/bin/env python3
"""Counts the instructions that a malloc+free pair executes, by allocator and pattern.

Runs //bench:patterns under callgrind twice for every pattern and allocator, with different numbers of pairs, so that
the difference holds neither start-up nor the patterns' first fill. The caller's loop, the calls and the jumps through
the PLT are included, 12 to 30 instructions a pair. Unlike times the counts of one build repeat: exactly, or to within
half a per cent for allocators that look at the clock or draw random numbers. So they guard against regressions.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import typing

import allocators


class Pattern(typing.NamedTuple):
    title: str
    n_short: int  # pairs of the shorter and of the longer run
    n_long: int
    limit: int    # what hakmem may execute at most (--check): what holds today, down to the aim
    aim: int


PATTERNS = (
    Pattern("pair of 64 B", 20000, 120000, 45, 45),
    Pattern("pair, 25 sizes to 1,000 B in turn", 20000, 120000, 60, 60),
    Pattern("100 mallocs of 22 sizes to 512 B, then 100 frees", 20000, 120000, 55, 55),
    Pattern("random replacement in 4,096 slots, 8 to 1,008 B", 100000, 300000, 60, 62),
    Pattern("the same in 256 slots, 1,100 to 31,100 B", 20000, 120000, 80, 80),
    Pattern("the same in 64 slots, 33,000 to 933,000 B", 20000, 120000, 120, 120),
)
EXIT_REGRESSION = 1
TIMEOUT_SECONDS = 600


def count(program, allocator, pattern, n_pairs, environment):
    """Instructions executed by one whole run of the program."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={folder}/out.%p",
                   str(program), str(pattern), str(n_pairs), "--allocator", allocator]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment,
                                 check=False)
        except subprocess.TimeoutExpired:
            raise allocators.NotMeasured(f"no end within {TIMEOUT_SECONDS} s") from None
    if run.returncode != 0 or not run.stdout.startswith("Allocator: "):
        own_lines = [line for line in run.stderr.splitlines() if not line.startswith("==")]
        raise allocators.NotMeasured(" ".join(own_lines) or f"{allocator}: {allocators.status_text(run.returncode)}")
    # One line only: the program executes itself again to get at its allocator, and the first image ends uncounted.
    totals = re.findall(r"Collected : (\d+)", run.stderr)
    if len(totals) != 1:
        raise allocators.NotMeasured(f"{allocator}: {len(totals)} counts from callgrind instead of one")
    return int(totals[0])


def instructions_per_pair(program, allocator, i, environment):
    pattern = PATTERNS[i]
    short, long = (count(program, allocator, i + 1, n_pairs, environment)
                   for n_pairs in (pattern.n_short, pattern.n_long))
    return (long - short) / (pattern.n_long - pattern.n_short)


def measure(program, to_measure, required, arguments):
    """{name: [figure per pattern]} of the allocators that could be measured."""
    environment = allocators.clean_environment(arguments)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {name: [pool.submit(instructions_per_pair, program, allocator, i, environment)
                          for i in range(len(PATTERNS))]
                   for name, allocator in to_measure.items()}
        figures = {}
        for name, of_patterns in futures.items():
            try:
                figures[name] = [future.result() for future in of_patterns]
            except allocators.NotMeasured as error:
                print(f"instructions: {name} was not measured: {error}", file=sys.stderr)
                if name in required:
                    pool.shutdown(cancel_futures=True)
                    sys.exit(allocators.EXIT_NOT_MEASURED)
    return figures


def print_table(notes, figures):
    names = list(figures)
    for note in notes:
        print(f"{note}\n")
    print("Instructions per malloc+free, the caller's loop and calls included:\n")
    print(f"| pattern | {' | '.join(names)} | hakmem at most | aim |")
    print("|---|" + "---|" * (len(names) + 2))
    for i, pattern in enumerate(PATTERNS):
        counts = " | ".join(f"{figures[name][i]:,.1f}" for name in names)
        print(f"| {pattern.title} | {counts} | {pattern.limit} | {pattern.aim} |")


def print_json(figures):
    rows = [{"pattern": pattern.title, "hakmem_at_most": pattern.limit, "aim": pattern.aim,
             "instructions": {name: round(figures[name][i], 3) for name in figures}}
            for i, pattern in enumerate(PATTERNS)]
    print(json.dumps(rows, indent=2))


def exceeded(of_hakmem):
    return [f"{pattern.title}: {figure:.1f} instructions, {pattern.limit} allowed"
            for pattern, figure in zip(PATTERNS, of_hakmem) if figure > pattern.limit]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="instructions", description=__doc__.splitlines()[0])
    allocators.add_options(parser, ("hakmem",) + allocators.PEERS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--check", action="store_true",
                        help=f"exit with status {EXIT_REGRESSION} where hakmem executes more than it may")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (counts do not depend on it)")
    parser.add_argument("--patterns", metavar="PATH", type=pathlib.Path, help="the program to run")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}, must be at least 1")
    return parser, arguments


def main():
    parser, arguments = parse_arguments()
    to_measure, required = allocators.chosen(parser, arguments)
    if arguments.check and "hakmem" not in to_measure:
        parser.error("--check needs hakmem among the --allocators")
    if shutil.which("valgrind") is None:
        print("instructions: valgrind is not installed; Debian's package is valgrind", file=sys.stderr)
        return allocators.EXIT_NOT_MEASURED

    figures = measure(arguments.patterns or allocators.find_program("patterns"), to_measure, required, arguments)
    if arguments.json:
        print_json(figures)
    else:
        print_table(allocators.environment_notes(arguments), figures)
    too_many = exceeded(figures["hakmem"]) if arguments.check else []
    for line in too_many:
        print(f"instructions: {line}", file=sys.stderr)
    return EXIT_REGRESSION if too_many else 0


if __name__ == "__main__":
    sys.exit(main())
