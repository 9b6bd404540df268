#!/usr/bin/python3
# The system's own Python, since that is the one that Debian's python3-matplotlib is for.
"""Sets side by side what allocators keep resident for a program's live blocks, and what they give back.

Runs the scenarios of //bench:footprint_scenario over every allocator found, each in a process of its own and the
allocators in turn, and prints medians. RSS is what is resident beyond the scenario's start, live what the program has
asked for and not freed. README.md describes the scenarios.
"""

import argparse
import csv
import html
import io
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Callable, List, NamedTuple, Optional

import allocators

EXIT_EXCEEDED = 1
TIMEOUT_SECONDS = 900
SAMPLE = "."  # the name of the scenario program's lines between checkpoints


class Point(NamedTuple):
    """One line of the scenario program."""
    seconds: float
    live: float  # MiB, as rss
    rss: float
    faults: int
    mappings: int
    name: str


class Scenario(NamedTuple):
    """What is run: the scenario program's first argument, the plot's title, and a number of threads."""
    word: str
    title: str
    threads: int = 16

    @property
    def key(self):
        return f"{self.word}-{self.threads}" if self.word == "threads" else self.word


class Row(NamedTuple):
    """One row of a table: a figure of a scenario, computed from the points of one run."""
    table: str
    title: str
    scenario: str
    figure: Callable[[List[Point]], float]
    limit: Optional[float] = None  # what hakmem may have at most (--check): what it needs today, with a little room
    aim: Optional[float] = None    # what it shall have at most
    is_over_glibc: bool = False


SCENARIOS = {scenario.key: scenario for scenario in (
    Scenario("hello", "A program that does nothing yet"),
    Scenario("idle", "A small program that idles"),
    Scenario("steady", "Steady churn"),
    Scenario("peak-sparse", "A peak of which every 50th block survives"),
    Scenario("peak-empty", "A peak of which nothing survives"),
    Scenario("shift", "The dominant size changes, the oldest blocks leave"),
    Scenario("shift-random", "The dominant size changes, random blocks leave"),
    Scenario("store", "An hour in an ageing key-value store"),
    Scenario("short-threads", "4,000 short threads"),
    Scenario("producers", "16 producers, one thread frees"),
    Scenario("threads", "One thread replaces blocks", 1),
    Scenario("threads", "16 threads replace blocks", 16),
    Scenario("threads", "200 threads replace blocks", 200),
    Scenario("remote-frees", "16 threads, every block freed by another"),
    Scenario("one-class", "4 million blocks of one class"),
    Scenario("all-classes", "4 million blocks of all classes"),
)}


def at(name):
    """The point of the checkpoint with that name."""
    return lambda points: next(point for point in points if point.name == name)


def rss(name):
    return lambda points: at(name)(points).rss


def ratio(name):
    return lambda points: at(name)(points).rss / at(name)(points).live


def mean_ratio(points):
    return statistics.mean(point.rss / point.live for point in points if point.name != SAMPLE)


def highest_rss(points):
    return max(point.rss for point in points if point.name != SAMPLE)


def mappings(name):
    return lambda points: at(name)(points).mappings


def faults(first, last):
    return lambda points: at(last)(points).faults - at(first)(points).faults


RATIO = "RSS over live"
MIB = "MiB"
COUNT = "Numbers"

ROWS = (
    Row(RATIO, "steady churn", "steady", ratio("20 rounds"), 1.40, 1.10),
    Row(RATIO, "dominant size changes 8 times, mean", "shift", mean_ratio, 1.25, 1.10),
    Row(RATIO, "the same, random blocks leave", "shift-random", mean_ratio),
    Row(RATIO, "key-value store, high tide after 50 minutes", "store", ratio("minute 50")),
    Row(RATIO, "key-value store, low tide after 60 minutes", "store", ratio("minute 60")),
    Row(RATIO, "1 thread", "threads-1", ratio("replaced")),
    Row(RATIO, "16 threads", "threads-16", ratio("replaced")),
    Row(RATIO, "200 threads", "threads-200", ratio("replaced")),
    Row(RATIO, "16 threads, all frees remote", "remote-frees", ratio("replaced")),
    Row(RATIO, "4 million blocks of 64 B", "one-class", ratio("peak")),
    Row(RATIO, "4 million blocks of all classes", "all-classes", ratio("peak")),
    Row(MIB, "peak, 2% survive, freed", "peak-sparse", rss("freed")),
    Row(MIB, "the same, idle", "peak-sparse", rss("idle"), 105, 100),
    Row(MIB, "the same, trimmed", "peak-sparse", rss("trimmed"), 82, 66),
    Row(MIB, "peak, nothing survives, freed", "peak-empty", rss("freed")),
    Row(MIB, "the same, idle", "peak-empty", rss("idle"), 10, 10),
    Row(MIB, "the same, trimmed", "peak-empty", rss("trimmed"), 1, 1),
    Row(MIB, "16 producers, one frees, highest", "producers", highest_rss),
    Row(MIB, "the same, idle", "producers", rss("idle")),
    Row(MIB, "16 threads, freed and idle", "threads-16", rss("idle")),
    Row(MIB, "16 threads, all frees remote, freed and idle", "remote-frees", rss("idle")),
    Row(MIB, "4 million blocks of all classes, freed and idle", "all-classes", rss("idle")),
    Row(MIB, "the same, trimmed", "all-classes", rss("trimmed")),
    Row(MIB, "4,000 short threads", "short-threads", rss("threads ended"), 1.3, 1.2),
    Row(MIB, "small program, half freed, idle", "idle", rss("idle")),
    Row(MIB, "the same, trimmed", "idle", rss("trimmed")),
    Row(MIB, "hello world, over glibc", "hello", rss("main"), 0.35, 0.2, is_over_glibc=True),
    Row(COUNT, "mappings, 4 million blocks of all classes", "all-classes", mappings("peak"), 999, 999),
    Row(COUNT, "page faults, steady churn from round 5 to 20", "steady", faults("5 rounds", "20 rounds")),
)


def parse_points(output):
    points = []
    for line in output.splitlines()[2:]:  # after the proof and the header
        seconds, live, resident, _, n_faults, n_mappings, name = line.split(None, 6)
        points.append(Point(float(seconds), float(live), float(resident), int(n_faults), int(n_mappings), name))
    return points


def run_scenario(program, scenario, allocator, arguments):
    """The points of one run."""
    command = [str(program), scenario.word, str(arguments.scale), str(arguments.idle), str(scenario.threads),
               str(arguments.seed), "1" if arguments.html else "0", "--allocator", allocator]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
                             env=allocators.clean_environment(arguments), check=False)
    except subprocess.TimeoutExpired:
        raise allocators.NotMeasured(f"no end within {TIMEOUT_SECONDS} s") from None
    if run.returncode != 0 or not run.stdout.startswith("Allocator: "):
        raise allocators.NotMeasured(run.stderr.strip() or allocators.status_text(run.returncode))
    return parse_points(run.stdout)


def usable(program, wanted, required, arguments):
    """Those allocators that can be measured."""
    found = {}
    for name, allocator in wanted.items():
        try:
            run_scenario(program, SCENARIOS["hello"], allocator, arguments)
            found[name] = allocator
        except allocators.NotMeasured as error:
            print(f"footprint: {name} is not measured: {error}", file=sys.stderr)
            if name in required:
                sys.exit(allocators.EXIT_NOT_MEASURED)
    return found


def measure(program, scenarios, found, arguments):
    """{scenario's key: {allocator's name: [points of a run]}}, and whether every run came to its end."""
    results = {scenario.key: {name: [] for name in found} for scenario in scenarios}
    is_complete = True
    n_left = arguments.runs * len(scenarios) * len(found)
    for n_run in range(1, arguments.runs + 1):
        for scenario in scenarios:
            for name, allocator in found.items():
                print(f"footprint: {n_left} left: run {n_run}, {scenario.key}, {name}", file=sys.stderr)
                n_left -= 1
                try:
                    results[scenario.key][name].append(run_scenario(program, scenario, allocator, arguments))
                except allocators.NotMeasured as error:
                    print(f"footprint: {scenario.key} on {name}: {error}", file=sys.stderr)
                    is_complete = False
    return results, is_complete


def row_figures(row, runs_of):
    """{allocator's name: [figure of a run]} for one row."""
    figures = {name: [row.figure(points) for points in runs] for name, runs in runs_of.items() if runs}
    if row.is_over_glibc:
        if "glibc" not in figures:
            return {}
        base = statistics.median(figures["glibc"])
        figures = {name: [value - base for value in values] for name, values in figures.items()}
    return figures


def summarise(results):
    """A list of dictionaries, one for each row and allocator."""
    def rounded(value):
        return round(value, 4) + 0.0  # a sum, since it turns -0.0 into 0.0

    return [{"table": row.table, "row": row.title, "scenario": row.scenario, "allocator": name,
             "median": rounded(statistics.median(values)), "lowest": rounded(min(values)),
             "highest": rounded(max(values)), "runs": len(values), "hakmem_at_most": row.limit, "aim": row.aim}
            for row in ROWS if row.scenario in results
            for name, values in row_figures(row, results[row.scenario]).items()]


def exceeded(summary):
    return [f"{line['table']}: {line['row']} ({line['scenario']}): {line['median']:g}, "
            f"at most {line['hakmem_at_most']:g}"
            for line in summary
            if line["allocator"] == "hakmem" and line["hakmem_at_most"] is not None
            and line["median"] > line["hakmem_at_most"]]


def show(table, value):
    if value is None:
        return "-"
    if table == COUNT:
        return f"{value:,.0f}"
    return f"{value:.2f}" if table == RATIO or abs(value) < 10 else f"{value:,.0f}"


def tables(summary, names):
    """Yields (title, header, rows of cells) for each table that has rows."""
    medians = {(line["table"], line["row"], line["scenario"], line["allocator"]): line["median"] for line in summary}
    measured = {line["scenario"] for line in summary}
    for table in (RATIO, MIB, COUNT):
        rows = [[row.title] + [show(table, medians.get((table, row.title, row.scenario, name))) for name in names] +
                ["" if bound is None else f"{bound:g}" for bound in (row.limit, row.aim)]
                for row in ROWS if row.table == table and row.scenario in measured]
        if rows:
            yield table, ["scenario"] + names + ["hakmem at most", "aim"], rows


def print_tables(notes, summary, names):
    for note in notes:
        print(f"{note}\n")
    for title, header, rows in tables(summary, names):
        print(f"{title}:\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        print()


def print_csv(summary):
    writer = csv.DictWriter(sys.stdout, fieldnames=list(summary[0]) if summary else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(summary)


def plot(pyplot, scenario, runs_of):
    """An SVG element: RSS and live over the course of the first run.

    The allocators' lines are the same points of the program, so that they can be compared; seconds would differ.
    """
    figure, axes = pyplot.subplots(figsize=(9, 4))
    points = []
    for name, runs in runs_of.items():
        if runs:
            points = runs[0]
            axes.plot([point.rss for point in points], label=name, linewidth=1.2)
    axes.plot([point.live for point in points], label="live", color="black", linestyle="--", linewidth=1)
    checkpoints = [i for i, point in enumerate(points) if point.name != SAMPLE]
    axes.set_xticks(checkpoints)
    axes.set_xticklabels([points[i].name for i in checkpoints], rotation=90, fontsize="small")
    axes.grid(axis="x", linewidth=0.3)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MiB")
    axes.set_title(scenario.title)
    axes.legend()
    svg = io.StringIO()
    figure.savefig(svg, format="svg", bbox_inches="tight")
    pyplot.close(figure)
    return svg.getvalue()[svg.getvalue().index("<svg"):]


def html_page(pyplot, notes, summary, names, results):
    """A page that needs no other file."""
    parts = ["<!DOCTYPE html>", "<html lang='en'><meta charset='utf-8'><title>Footprint</title>",
             "<style>body{font-family:sans-serif;max-width:70em;margin:auto}"
             "td,th{padding:.1em .8em;text-align:right}td:first-child{text-align:left}</style>",
             "<h1>Resident memory of allocators</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    for title, header, rows in tables(summary, names):
        parts.append(f"<h2>{html.escape(title)}</h2><table>")
        parts += ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"]
        parts += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts.append("</table>")
    parts.append("<h2>RSS over time</h2><p>Time is the program's: from left to right equal steps of its work, six more "
                 "while it idles.</p>")
    # One point is no course of time.
    parts += [plot(pyplot, SCENARIOS[key], runs_of) for key, runs_of in results.items()
              if any(len(points) > 1 for runs in runs_of.values() for points in runs)]
    return "\n".join(parts + ["</html>\n"])


def load_pyplot():
    try:
        import matplotlib  # pylint: disable=import-outside-toplevel
    except ImportError:
        print("footprint: --html needs matplotlib; Debian's package is python3-matplotlib", file=sys.stderr)
        sys.exit(allocators.EXIT_NOT_MEASURED)
    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel
    return pyplot


def at_least(kind, lowest):
    def parse(text):
        value = kind(text)
        if not value >= lowest:
            raise argparse.ArgumentTypeError(f"is {text}, must be at least {lowest}")
        return value
    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(prog="footprint", description=__doc__.splitlines()[0])
    allocators.add_options(parser, ("hakmem", *allocators.PEERS))
    parser.add_argument("--scenarios", metavar="A,B", default=",".join(SCENARIOS), help="default: %(default)s")
    parser.add_argument("--runs", type=at_least(int, 1), default=3, help="of each; medians are shown (default 3)")
    # Below that, what is live may be printed as 0.00 MiB, and nothing is a ratio to that.
    parser.add_argument("--scale", type=at_least(float, 1e-3), default=1.0,
                        help="size of the scenarios, as a part of what README.md says (default 1)")
    parser.add_argument("--idle", type=at_least(float, 0), default=3.0, help="seconds of idling (default 3)")
    parser.add_argument("--seed", type=at_least(int, 0), default=12345, help="of the random numbers (default 12345)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON instead of tables")
    output.add_argument("--csv", action="store_true", help="print CSV instead of tables")
    parser.add_argument("--html", metavar="FILE", type=allocators.output_path,
                        help="write a page with tables and plots over time as well")
    parser.add_argument("--check", action="store_true",
                        help=f"exit with status {EXIT_EXCEEDED} where hakmem takes more than it may")
    parser.add_argument("--program", metavar="PATH", type=pathlib.Path, help="the scenario program to run")
    arguments = parser.parse_args()
    for key in arguments.scenarios.split(","):
        if key not in SCENARIOS:
            parser.error(f"'{key}' is no scenario; there are {', '.join(SCENARIOS)}")
    return parser, arguments


def main():
    parser, arguments = parse_arguments()
    wanted, required = allocators.chosen(parser, arguments)
    if arguments.check and "hakmem" not in wanted:
        parser.error("--check needs hakmem among the --allocators")
    pyplot = load_pyplot() if arguments.html else None
    program = arguments.program or allocators.find_program("footprint_scenario")

    found = usable(program, wanted, required, arguments)
    scenarios = [SCENARIOS[key] for key in arguments.scenarios.split(",")]
    results, is_complete = measure(program, scenarios, found, arguments)
    summary = summarise(results)
    notes = allocators.environment_notes(arguments)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    elif arguments.csv:
        print_csv(summary)
    else:
        print_tables(notes, summary, list(found))
    if arguments.html:
        page = html_page(pyplot, notes, summary, list(found), results)
        arguments.html.write_text(page, encoding="utf-8")
    if not is_complete:
        return allocators.EXIT_NOT_MEASURED
    too_much = exceeded(summary) if arguments.check else []
    for line in too_much:
        print(f"footprint: {line}", file=sys.stderr)
    return EXIT_EXCEEDED if too_much else 0


if __name__ == "__main__":
    sys.exit(main())
