"""Tables of measurements by allocator: medians with their spread, ratios to the best peer, geometric means.

Everything here is a figure of which less is better: a time, a size. A Table is what a script has measured; the
functions turn it into text for a terminal, which shows the spread, into Markdown for a document, which does not, and
into HTML.
"""

import html
import math
import statistics
import typing

SUBJECT = "hakmem"
LIMIT = "limit"  # not a peer: nobody could use it


class Row(typing.NamedTuple):
    title: str
    samples: dict        # {allocator: [figure of each repetition]}; the n-th of all were measured together
    errors: dict = {}    # {allocator: why it has no samples here}


class Unit(typing.NamedTuple):
    name: str
    factor: float


TIME_UNITS = (Unit("ns", 1e9), Unit("µs", 1e6), Unit("ms", 1e3), Unit("s", 1))  # of seconds
MEMORY_UNITS = (Unit("MiB", 1 / 1024),)                                         # of KiB
COUNT_UNITS = (Unit("1", 1), Unit("thousand", 1e-3), Unit("million", 1e-6))


class Table(typing.NamedTuple):
    title: str
    units: tuple  # from the smallest to the largest
    allocators: list
    rows: list


class Ratio(typing.NamedTuple):
    """By how much the best peer's figure is above the subject's: above 1, the subject is first."""
    peer: str
    value: float
    lowest: float
    highest: float


def spread(samples):
    """Half the distance between the extremes, relative to the median."""
    median = statistics.median(samples)
    return (max(samples) - min(samples)) / 2 / median if median > 0 else 0.0


def peers(table):
    return [name for name in table.allocators if name not in (SUBJECT, LIMIT)]


def relative(row, name):
    """The allocator's median in multiples of the subject's; None where one of them is missing or nothing."""
    if not row.samples.get(name) or not row.samples.get(SUBJECT):
        return None
    subject = statistics.median(row.samples[SUBJECT])
    figure = statistics.median(row.samples[name])
    return figure / subject if subject > 0 and figure > 0 else None


def ratio_to_best(table, row):
    """The Ratio of the best peer, its range over the repetitions, each of which ran side by side; None without one."""
    ratios = {name: relative(row, name) for name in peers(table)}
    measured = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if not measured:
        return None
    best = min(measured, key=measured.get)
    of_rounds = [peer / subject for peer, subject in zip(row.samples[best], row.samples[SUBJECT]) if subject > 0]
    return Ratio(best, measured[best], min(of_rounds), max(of_rounds))


def geometric_mean(figures):
    return math.exp(statistics.fmean(math.log(figure) for figure in figures))


def mean_text(table, name, of_all, n_digits):
    """The mean, and of how many rows it is where one of the two was not measured in all."""
    if name not in of_all:
        return "-"
    n_rows = sum(relative(row, name) is not None for row in table.rows)
    return f"{of_all[name]:.{n_digits}f}" + (f" ({n_rows} rows)" if n_rows < len(table.rows) else "")


def means(table):
    """{name: geometric mean of its multiples of the subject}, with "best peer" for the best one of each row."""
    result = {}
    for name in table.allocators:
        ratios = [ratio for ratio in (relative(row, name) for row in table.rows) if ratio is not None]
        if ratios and name != SUBJECT:
            result[name] = geometric_mean(ratios)
    best = [ratio.value for ratio in (ratio_to_best(table, row) for row in table.rows) if ratio is not None]
    if best:
        result["best peer"] = geometric_mean(best)
    return result


def unit_of(table, row):
    """The smallest unit that keeps the row's least figure below 10,000."""
    least = min((statistics.median(samples) for samples in row.samples.values() if samples), default=0.0)
    for unit in table.units:
        if least * unit.factor < 10000:
            return unit
    return table.units[-1]


def figure_text(value):
    """Three digits, or all of those before the point."""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def cells(table, row):
    unit = unit_of(table, row)
    texts = [f"{row.title} [{unit.name}]"]
    for name in table.allocators:
        samples = row.samples.get(name)
        if samples:
            texts.append(f"{figure_text(statistics.median(samples) * unit.factor)} ±{100 * spread(samples):.0f}%")
        else:
            texts.append("ERROR" if name in row.errors else "-")
    ratio = ratio_to_best(table, row)
    if ratio is None:
        texts.append("-")
    else:
        texts.append(f"{ratio.value:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f}) {ratio.peer}")
    if LIMIT in table.allocators:
        distance = relative(row, LIMIT)
        texts.append("-" if distance is None else f"{distance:.2f}")
    return texts


def mean_cells(table):
    of_all = means(table)
    texts = [f"geometric mean / {SUBJECT}"]
    for name in table.allocators:
        texts.append("1" if name == SUBJECT else mean_text(table, name, of_all, 3))
    texts.append(f"{of_all['best peer']:.3f}" if "best peer" in of_all else "-")
    if LIMIT in table.allocators:
        texts.append(mean_text(table, LIMIT, of_all, 3))
    return texts


def header_cells(table):
    limit = [LIMIT] if LIMIT in table.allocators else []
    return ["bench", *table.allocators, *(f"{name} / {SUBJECT}" for name in ["best peer", *limit])]


def all_cells(table):
    return [header_cells(table), *(cells(table, row) for row in table.rows), mean_cells(table)]


def errors_of(table):
    return [f"{row.title}, {name}: {error}" for row in table.rows for name, error in row.errors.items()]


def to_text(table):
    lines = all_cells(table)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def text_line(texts):
        padded = [texts[0].ljust(widths[0])] + [text.rjust(width) for text, width in zip(texts[1:], widths[1:])]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    texts = [f"{table.title}\n", text_line(lines[0]), rule, *(text_line(line) for line in lines[1:])]
    return "\n".join(texts) + "\n"


def to_markdown(table):
    """The subject's figures, the others in multiples of them: the best peer's in bold, the limit's last."""
    others = [*peers(table), *([LIMIT] if LIMIT in table.allocators else [])]
    n_digits = 3 if table.units is COUNT_UNITS else 2
    lines = []
    for row in table.rows:
        unit = unit_of(table, row)
        texts = {name: "ERROR" if name in row.errors else "-" for name in (SUBJECT, *others)}
        if row.samples.get(SUBJECT):
            figure = figure_text(statistics.median(row.samples[SUBJECT]) * unit.factor)
            texts[SUBJECT] = f"{figure} {unit.name}".removesuffix(" 1")
        best = ratio_to_best(table, row)
        for name in others:
            ratio = relative(row, name)
            if ratio is not None:
                texts[name] = f"{ratio:.{n_digits}f}"
        if best is not None:
            texts[best.peer] = f"**{texts[best.peer]}**"
        lines.append([row.title, *texts.values()])
    of_all = means(table)
    lines.append([f"geometric mean of all {len(table.rows)} rows", "1",
                  *(mean_text(table, name, of_all, n_digits) for name in others)])
    header = [f"{table.title}:\n", f"| {' | '.join(['bench', SUBJECT, *others])} |", f"|{'---|' * (2 + len(others))}"]
    return "\n".join([*header, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def to_html(table):
    """The table; what the subject loses by more than the spread of the repetitions is marked."""
    lines = [f"<h2>{html.escape(table.title)}</h2>", "<table>"]
    lines.append("<tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in header_cells(table)) + "</tr>")
    for row in table.rows:
        ratio = ratio_to_best(table, row)
        kind = "" if ratio is None else "lost" if ratio.highest < 1 else "won" if ratio.lowest > 1 else ""
        texts = [html.escape(text) for text in cells(table, row)]
        lines.append(f"<tr class='{kind}'>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    lines.append("<tr class='mean'>" + "".join(f"<td>{html.escape(t)}</td>" for t in mean_cells(table)) + "</tr>")
    lines.append("</table>")
    return "\n".join(lines)


_STYLE = """
body { font: 14px sans-serif; margin: 2em auto; max-width: 90em; }
table { border-collapse: collapse; }
th, td { padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.won { color: #176f2c; }
tr.lost { color: #b00020; }
tr.mean td { border-top: 2px solid #888; font-weight: bold; }
figure { margin: 1em 0; }
"""


def page(title, paragraphs, tables, figures):
    """One self-contained HTML page. `figures` are pairs of a caption and an SVG element."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs]
    for table in tables:
        body.append(to_html(table))
    for caption, svg in figures:
        body.append(f"<figure><figcaption><h2>{html.escape(caption)}</h2></figcaption>\n{svg}</figure>")
    errors = sorted({error for table in tables for error in errors_of(table)})
    if errors:
        body.append("<h2>Not measured</h2><ul>" + "".join(f"<li>{html.escape(e)}</li>" for e in errors) + "</ul>")
    content = "\n".join(body)
    return (f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
            f"<style>{_STYLE}</style></head>\n<body>\n{content}\n</body></html>\n")
