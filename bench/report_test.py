#!/usr/bin/env python3
"""Tests of report.py and of the suite's command lines."""

import unittest

import report
import suite


def row(title, **samples):
    return report.Row(title, samples)


def table(*rows, names=("hakmem", "a", "b", "limit")):
    return report.Table("Title", report.TIME_UNITS, list(names), list(rows))


class Ratios(unittest.TestCase):
    def test_best_peer_is_the_one_with_the_least_median(self):
        one = row("x", hakmem=[2.0, 2.0, 4.0], a=[3.0, 3.0, 2.0], b=[9.0, 1.0, 9.0], limit=[1.0, 1.0, 1.0])
        self.assertEqual(report.ratio_to_best(table(one), one), report.Ratio("a", 1.5, 0.5, 1.5))

    def test_no_ratio_without_the_subject_or_a_peer(self):
        for one in (row("x", a=[1.0]), row("x", hakmem=[1.0]), row("x", hakmem=[1.0], limit=[1.0]),
                    row("x", hakmem=[0.0], a=[1.0])):
            self.assertIsNone(report.ratio_to_best(table(one), one))

    def test_spread_is_half_the_range(self):
        self.assertAlmostEqual(report.spread([8.0, 10.0, 14.0]), 0.3)
        self.assertEqual(report.spread([0.0, 0.0]), 0)

    def test_geometric_means_leave_out_what_was_not_measured(self):
        two = table(row("x", hakmem=[1.0], a=[2.0], b=[4.0]), row("y", hakmem=[1.0], a=[8.0], limit=[0.5]))
        means = report.means(two)
        self.assertAlmostEqual(means["a"], 4)
        self.assertAlmostEqual(means["b"], 4)
        self.assertAlmostEqual(means["limit"], 0.5)
        self.assertAlmostEqual(means["best peer"], 4)
        self.assertNotIn("hakmem", means)


class Texts(unittest.TestCase):
    def test_figures_have_three_digits(self):
        for value, text in ((0, "0"), (1.234567, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346"),
                            (0.01234, "0.0123")):
            self.assertEqual(report.figure_text(value), text)

    def test_the_unit_suits_the_least_figure(self):
        for seconds, unit in ((5e-9, "ns"), (9e-6, "ns"), (2e-5, "µs"), (0.02, "ms"), (20, "s"), (1e6, "s")):
            one = row("x", hakmem=[seconds], a=[seconds * 2])
            self.assertEqual(report.unit_of(table(one), one).name, unit)

    def test_a_line_of_the_table(self):
        one = row("x", hakmem=[1e-8, 1e-8, 2e-8], a=[2e-8, 2e-8, 2e-8], limit=[5e-9, 5e-9, 5e-9])
        one = one._replace(errors={"b": "broken"})
        self.assertEqual(report.cells(table(one), one),
                         ["x [ns]", "10.0 ±50%", "20.0 ±0%", "ERROR", "5.00 ±0%", "2.00 (1.00 to 2.00) a", "0.50"])
        self.assertEqual(report.errors_of(table(one)), ["x, b: broken"])
        self.assertIn("| geometric mean / hakmem |", report.to_text(table(one)))

    def test_markdown_has_one_unit_and_ratios(self):
        one = row("x", hakmem=[1e-8, 1e-8, 2e-8], limit=[5e-9], a=[2e-8], b=[1.5e-8])._replace(errors={"c": "broken"})
        two = row("y", hakmem=[20.0], limit=[40.0], a=[10.0])
        names = ("a", "hakmem", "limit", "b", "c")
        self.assertEqual(report.to_markdown(table(one, two, names=names)), """Title:

| bench | hakmem | a | b | c | limit |
|---|---|---|---|---|---|
| x | 10.0 ns | 2.00 | **1.50** | ERROR | 0.50 |
| y | 20.0 s | **0.50** | - | - | 2.00 |
| geometric mean of all 2 rows | 1 | 1.00 | 1.50 (1 rows) | - | 1.00 |
""")

    def test_markdown_of_counts_has_three_decimals_and_no_unit_of_one(self):
        counts = table(row("x", hakmem=[400.0], a=[401.0]), row("y", hakmem=[7.5e7], a=[7.5e7], b=[8e7]),
                       row("z", a=[1.0])._replace(errors={"hakmem": "broken"}))
        self.assertEqual(report.to_markdown(counts._replace(units=report.COUNT_UNITS)).splitlines()[4:], [
            "| x | 400 | **1.002** | - | - |", "| y | 75.0 million | **1.000** | 1.067 | - |",
            "| z | ERROR | - | - | - |", "| geometric mean of all 3 rows | 1 | 1.001 (2 rows) | 1.067 (1 rows) | - |"])

    def test_html_marks_what_is_lost_beyond_the_spread_and_escapes(self):
        lost, even = row("<x>", hakmem=[2e-9, 2e-9], a=[1e-9, 1e-9]), row("y", hakmem=[1.0, 2.0], a=[2.0, 1.0])
        text = report.page("T", ["p"], [table(lost, even)], [("caption", "<svg/>")])
        self.assertEqual(text.count("class='lost'"), 1)
        self.assertIn("<td>&lt;x&gt; [ns]</td>", text)
        self.assertIn("<svg/>", text)


class CommandLines(unittest.TestCase):
    def test_scale_multiplies_counts_and_seconds(self):
        bench = suite.Bench("x", "group", "larson {2.0} 8 {1000} @", 4)
        self.assertEqual(bench.command_line(0.5), ["larson", "1.000", "8", "500", "4"])
        self.assertEqual(bench.command_line(1e-6), ["larson", "0.010", "8", "1", "4"])

    def test_titles_are_unique(self):
        titles = [bench.title for bench in suite.BENCHES]
        self.assertEqual(len(titles), len(set(titles)))


if __name__ == "__main__":
    unittest.main()
