#!/usr/bin/python3
"""Runs the benches of this folder and real programs over all allocators that are installed, and compares.

The allocators take turns within each repetition, so that a machine whose speed drifts is as fast for one as for the
other, in an order that is drawn for each (A B C B A C), so that none has always the same one before it, whose memory it
gets in the pieces in which that has left it. Tables show medians of CPU time (user and system time, what other programs
do meanwhile left out), of the time that passes, and of the peak RSS, with the ratio to the best peer. Each measured
process proves whose memory it got; a row of one that cannot is an error. With --count the tables show instructions,
cache misses and mispredicted branches as Valgrind counts them, which vary little whatever else the machine does.
"""
# The shebang names Debian's Python: the one that its python3-matplotlib is for.

import argparse
import csv
import json
import os
import pathlib
import platform
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
import typing

import allocators
import programs
import report
import runner
import suite

DEFAULT_ALLOCATORS = ("hakmem", *allocators.PEERS, "limit")
QUICK_SCALE = 0.2
FEW_REPETITIONS = 3
EXIT_ERRORS = 1


class Measure(typing.NamedTuple):
    title: str
    caption: str  # of plots
    units: tuple
    figure: typing.Callable  # of one run's sample


def per_operation(field):
    return lambda sample: sample[field] / sample["operations"]


EACH = "per operation, or of a program's run"
TIMED = (
    Measure(f"CPU time (user and system) {EACH}", "CPU time", report.TIME_UNITS, per_operation("cpu_seconds")),
    Measure(f"Wall time {EACH}", "Wall time", report.TIME_UNITS, per_operation("wall_seconds")),
    Measure("Peak RSS", "Peak RSS", report.MEMORY_UNITS, lambda sample: sample["peak_rss_kib"]),
)
COUNTED = tuple(
    Measure(f"{caption}, {EACH}", caption, report.COUNT_UNITS, per_operation(field))
    for field, caption in (("instructions", "Instructions"),
                           ("d1_misses", "Data cache misses, first level"),
                           ("ll_misses", "Data cache misses, last level"),
                           ("branch_misses", "Mispredicted branches")))


def choose_rows(pattern, scale, inputs, environment, count):
    rows = [runner.Bench(bench, scale, environment, count) for bench in suite.BENCHES if pattern.search(bench.title)]
    for program in programs.PROGRAMS:
        if not pattern.search(program.title):
            continue
        if programs.find(program.command[0]) is None:
            print(f"compare: {program.title} is left out: Debian's package {program.package} is not installed",
                  file=sys.stderr)
        else:
            rows.append(runner.Program(program, scale, inputs, environment, count))
    return rows


class Progress:
    """One line on stderr: rewritten in place on a terminal, a line per row elsewhere."""

    def __init__(self, n_runs):
        self._n_runs, self._n_done, self._start, self._title = n_runs, 0, time.monotonic(), None
        self._is_terminal = sys.stderr.isatty()

    def next(self, title, repetition, name):
        self._n_done += 1
        line = f"{self._n_done}/{self._n_runs}, {time.monotonic() - self._start:.0f} s: {title}"
        if self._is_terminal:
            print(f"\r\033[K{line}, repetition {repetition}, {name}", end="", file=sys.stderr, flush=True)
        elif title != self._title:
            print(line, file=sys.stderr, flush=True)
        self._title = title

    def end(self):
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class Result:
    """What an allocator did in a row: figures of each repetition, and what ended them, if something did."""

    def __init__(self):
        self.samples, self.error = [], None

    @property
    def usable(self):
        return [] if self.error else self.samples


def measure_all(rows, measured, repetitions):
    """{title: {allocator: Result}}, of the rows that were begun when the user interrupts."""
    results = {}
    progress = Progress(len(rows) * len(measured) * repetitions)
    with tempfile.TemporaryDirectory(prefix="hakmem-compare-") as folder:
        try:
            for row in rows:
                results[row.title] = {allocator.name: Result() for allocator in measured}
                measure_row(row, measured, repetitions, results[row.title], progress, pathlib.Path(folder))
        except KeyboardInterrupt:
            for result in results[row.title].values():
                result.error = result.error or "interrupted"
    progress.end()
    return results


def measure_row(row, measured, repetitions, results, progress, folder):
    draw = random.Random(row.title)
    for repetition in range(1, repetitions + 1):
        for allocator in draw.sample(measured, len(measured)):
            progress.next(row.title, repetition, allocator.name)
            result = results[allocator.name]
            if result.error:
                continue
            try:
                result.samples.append(row.measure(allocator, folder))
            except runner.Failed as error:
                result.error = str(error)


def table(measure, rows, names, results):
    """The report.Table of one figure of every run."""
    table_rows = []
    for row in rows:
        of_row = results[row.title]
        samples = {name: [measure.figure(sample) for sample in of_row[name].usable] for name in names}
        errors = {name: result.error for name, result in of_row.items() if result.error}
        table_rows.append(report.Row(row.title, samples, errors))
    return report.Table(measure.title, measure.units, names, table_rows)


def make_figures(measures, rows, names, results, tables):
    import plots  # pylint: disable=import-outside-toplevel  # needs a package that the rest does without

    figures = []
    for group in dict.fromkeys(row.group for row in rows):
        titles = {row.title for row in rows if row.group == group}
        part = tables[0]._replace(rows=[row for row in tables[0].rows if row.title in titles])
        if any(row.samples.get(report.SUBJECT) for row in part.rows):
            figures.append((f"{measures[0].caption}: {group}", plots.bars(part)))
    if any(row.samples.get(report.SUBJECT) for row in tables[-1].rows):
        figures.append((measures[-1].caption, plots.bars(tables[-1])))
    if measures is COUNTED:  # Valgrind runs one thread at a time, and counts its own memory
        return figures

    scaling = {}
    for row in rows:
        if not row.family:
            continue
        for name in names:
            samples = results[row.title][name].usable
            if samples:
                rates = [sample["operations"] / sample["wall_seconds"] / 1e6 for sample in samples]
                panel = scaling.setdefault(row.family, {})
                panel.setdefault(name, []).append((row.threads, statistics.median(rates)))
    if scaling:
        figures.append(("Scaling", plots.lines(scaling, names, "threads", "million operations / s")))

    ageing = {}
    for row in rows:
        for name in names:
            samples = results[row.title][name].usable
            if samples and samples[0]["series"]:
                panel = ageing.setdefault(row.title, {})
                panel[name] = [(second, rss / 1024) for second, _, rss in samples[0]["series"]]
                panel["live"] = [(second, live / 1024) for second, live, _ in samples[0]["series"]]
    if ageing:
        figures.append(("RSS over time", plots.lines(ageing, names, "virtual seconds", "MiB")))
    return figures


def describe(measured, arguments):
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}"
    return [f"Machine: {machine}. Repetitions: {arguments.repetitions}. Scale: {arguments.scale}.",
            *allocators.environment_notes(arguments),
            *(f"Allocator: {allocator.proof}" for allocator in measured)]


def write_json(path, notes, rows, results):
    content = {"notes": notes,
               "rows": [{"title": row.title, "group": row.group, "threads": row.threads,
                         "results": {name: vars(result) for name, result in results[row.title].items()}}
                        for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_csv(path, rows, results, count):
    fields = ["operations", "wall_seconds", "cpu_seconds", "peak_rss_kib", *(runner.COUNTS if count else ())]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("bench", "group", "threads", "allocator", "repetition", *fields, "error"))
        for row in rows:
            for name, result in results[row.title].items():
                for i, sample in enumerate(result.samples, 1):
                    writer.writerow((row.title, row.group, row.threads, name, i, *(sample[f] for f in fields), ""))
                if result.error:
                    writer.writerow((row.title, row.group, row.threads, name, "", *("" for _ in fields), result.error))


def pattern(text):
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"is '{text}', no regular expression: {error}") from error


def parse_arguments():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.splitlines()[0])
    allocators.add_options(parser, DEFAULT_ALLOCATORS)
    parser.add_argument("--only", metavar="REGEX", type=pattern, default=re.compile(""),
                        help="rows whose title it matches somewhere")
    parser.add_argument("--list", action="store_true", help="print the titles of the rows, and end")
    parser.add_argument("--repetitions", type=int, metavar="N",
                        help=f"default 5, with --quick or --count {FEW_REPETITIONS}")
    parser.add_argument("--scale", type=float, metavar="F",
                        help=f"multiplies every row's operations; default 1, with --quick {QUICK_SCALE}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, for a first look")
    parser.add_argument("--count", action="store_true",
                        help="count instructions, cache misses and mispredicted branches under Valgrind, 50 times as "
                             "slow, in place of times")
    for kind, name in (("json", "JSON"), ("csv", "CSV"), ("markdown", "Markdown"), ("html", "HTML")):
        parser.add_argument(f"--{kind}", metavar="FILE", type=allocators.output_path,
                            help=f"write the results as {name} too")
    arguments = parser.parse_args()
    if arguments.repetitions is None:
        arguments.repetitions = FEW_REPETITIONS if arguments.quick or arguments.count else 5
    if arguments.scale is None:
        arguments.scale = QUICK_SCALE if arguments.quick else 1.0
    if arguments.repetitions < 1:
        parser.error(f"--repetitions is {arguments.repetitions}, must be at least 1")
    if not 0 < arguments.scale <= 1000:
        parser.error(f"--scale is {arguments.scale}, must be above 0 and at most 1000")
    return parser, arguments


def require_matplotlib(parser):
    try:
        import matplotlib  # pylint: disable=import-outside-toplevel,unused-import
    except ImportError:
        parser.error("--html needs matplotlib; Debian's package is python3-matplotlib")


def main():
    parser, arguments = parse_arguments()
    if arguments.list:
        print("\n".join(row.title for row in (*suite.BENCHES, *programs.PROGRAMS)))
        return 0
    if arguments.html:
        require_matplotlib(parser)
    if arguments.count and shutil.which(runner.COUNTING[0]) is None:
        parser.error("--count needs Debian's package valgrind")
    measures = COUNTED if arguments.count else TIMED
    wanted, required = allocators.chosen(parser, arguments)
    environment = allocators.clean_environment(arguments)
    measured = runner.find_allocators(wanted, required, environment)
    with tempfile.TemporaryDirectory(prefix="hakmem-compare-") as folder:
        rows = choose_rows(arguments.only, arguments.scale, pathlib.Path(folder), environment, arguments.count)
        if not rows:
            parser.error(f"--only {arguments.only.pattern} matches no row; --list prints them")
        results = measure_all(rows, measured, arguments.repetitions)
        rows = [row for row in rows if row.title in results]

    names = [allocator.name for allocator in measured]
    tables = [table(measure, rows, names, results) for measure in measures]
    notes = describe(measured, arguments)
    print("\n".join(notes), end="\n\n")
    for one in tables:
        print(report.to_text(one))
    errors = report.errors_of(tables[0])
    for error in errors:
        print(f"compare: ERROR {error}", file=sys.stderr)
    if arguments.json:
        write_json(arguments.json, notes, rows, results)
    if arguments.csv:
        write_csv(arguments.csv, rows, results, arguments.count)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(report.to_markdown(one) for one in tables), encoding="utf-8")
    if arguments.html:
        figures = make_figures(measures, rows, names, results, tables)
        arguments.html.write_text(report.page("hakmem beside other allocators", notes, tables, figures),
                                  encoding="utf-8")
    return EXIT_ERRORS if errors else 0


if __name__ == "__main__":
    sys.exit(main())
