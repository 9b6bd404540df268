"""Plots of measurements by allocator, as SVG elements for report.page. Needs Debian's python3-matplotlib."""

import io
import statistics

import matplotlib
from matplotlib.figure import Figure

import report

matplotlib.rcParams.update({
    "svg.fonttype": "none",   # text stays text
    "svg.hashsalt": "hakmem",  # the same file from the same figures
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
})

_COLOURS = {"hakmem": "#d62728", "glibc": "#7f7f7f", "jemalloc": "#1f77b4", "mimalloc": "#2ca02c",
            "tcmalloc": "#ff7f0e", "limit": "#000000"}
_RATIO_TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
_MORE_COLOURS = ("#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf")


def colours(allocators):
    others = [name for name in allocators if name not in _COLOURS]
    return {**_COLOURS, **{name: _MORE_COLOURS[i % len(_MORE_COLOURS)] for i, name in enumerate(others)}}


def svg(figure):
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return text.getvalue()[text.getvalue().index("<svg"):]


def bars(table):
    """A group of bars for each row: every allocator in multiples of the subject, with the range of its repetitions."""
    rows = [row for row in table.rows if row.samples.get(report.SUBJECT)]
    colour_of = colours(table.allocators)
    figure = Figure(figsize=(11, 1 + 0.14 * len(rows) * (len(table.allocators) + 1)))
    axes = figure.subplots()
    height = 1 / (len(table.allocators) + 1)
    for k, name in enumerate(table.allocators):
        places, widths, ranges = [], [], ([], [])
        for i, row in enumerate(rows):
            median = report.relative(row, name)
            if median is None:
                continue
            subject = statistics.median(row.samples[report.SUBJECT])
            places.append(i + k * height)
            widths.append(median)
            ranges[0].append(median - min(row.samples[name]) / subject)
            ranges[1].append(max(row.samples[name]) / subject - median)
        axes.barh(places, widths, height, label=name, color=colour_of[name], xerr=ranges,
                  error_kw={"elinewidth": 0.6, "ecolor": "#444444"})
    axes.set_xscale("log")
    lowest, highest = axes.get_xlim()
    axes.set_xticks([tick for tick in _RATIO_TICKS if lowest <= tick <= highest])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_yticks([i + 0.4 for i in range(len(rows))], [row.title for row in rows])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel(f"in multiples of {report.SUBJECT}; less is better")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=len(table.allocators))
    return svg(figure)


def lines(panels, allocators, x_label, y_label):
    """One panel for each of {title: {series: [(x, y), ...]}}; series that are no allocator are drawn dashed."""
    colour_of = colours(allocators)
    n_rows = (len(panels) + 2) // 3
    figure = Figure(figsize=(12, 3.2 * n_rows), layout="constrained")
    all_axes = iter(figure.subplots(n_rows, 3, squeeze=False).flat)
    for (title, series), axes in zip(panels.items(), all_axes):
        for name, points in series.items():
            style = {"color": colour_of[name]} if name in colour_of else {"color": "#444444", "linestyle": "--"}
            axes.plot(*zip(*points), label=name, marker="." if len(points) < 10 else "", **style)
            if len(points) < 10:
                axes.set_xticks([x for x, _ in points])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
    for axes in all_axes:
        axes.set_visible(False)
    return svg(figure)
