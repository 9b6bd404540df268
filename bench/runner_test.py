#!/usr/bin/env python3
"""Tests of how a run ends that gives no figures, and of what runner.py believes a witness."""

import os
import pathlib
import subprocess
import tempfile
import time
import unittest
from unittest import mock

import allocators
import instructions
import report
import runner
import suite


class Runs(unittest.TestCase):
    ENDLESS = ("sleep", "1000")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with  # the cleanup does
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_the_program_ends_with_its_driver(self):
        def drive(error):
            raise error

        for error in (RuntimeError("no answer"), OSError("no answer")):
            with self.assertRaisesRegex(runner.Failed, "no answer"):
                runner.run(self.ENDLESS, os.environ, self.folder, lambda error=error: drive(error))
        for error in (KeyError(), KeyboardInterrupt()):
            with self.assertRaises(type(error)):
                runner.run(self.ENDLESS, os.environ, self.folder, lambda error=error: drive(error))

    def test_a_late_program_is_said_to_be_late(self):
        with mock.patch.object(runner, "TIMEOUT_SECONDS", 0.01):
            with self.assertRaisesRegex(runner.Failed, "^no end within 0.01 s$"):
                runner.run(self.ENDLESS, os.environ, self.folder)
        late = mock.patch.object(subprocess, "run", side_effect=subprocess.TimeoutExpired("valgrind", 1))
        with late, self.assertRaisesRegex(allocators.NotMeasured, "^no end within 600 s$"):
            instructions.count("patterns", "hakmem", 1, 1000, {})

    def test_children_end_with_a_late_program(self):
        pids = self.folder / "pids"
        with mock.patch.object(runner, "TIMEOUT_SECONDS", 1), self.assertRaises(runner.Failed):
            runner.run(("sh", "-c", f"sleep 1000 & echo $! > {pids}; wait"), os.environ, self.folder)
        state = pathlib.Path(f"/proc/{pids.read_text(encoding='utf-8').strip()}/stat")
        for _ in range(100):  # until init has taken note of it
            if not state.exists() or state.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.01)
        else:
            self.fail("it runs on")

    def test_a_signal_is_named(self):
        with self.assertRaisesRegex(runner.Failed, "^killed by SIGSEGV$"):
            runner.run(("sh", "-c", "kill -SEGV $$"), os.environ, self.folder)

    def measure_one_that_prints(self, *lines):
        program = self.folder / "bench"
        program.write_text("\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines)]), encoding="utf-8")
        program.chmod(0o700)
        with mock.patch.object(allocators, "find_program", return_value=program):
            bench = runner.Bench(suite.Bench("x", "group", "x"), 1, os.environ, False)
        return bench.measure(runner.Allocator("x", "x", "x.so", ""), self.folder)

    def test_figures_are_what_a_bench_prints(self):
        proof, operations = "Allocator: x = x.so (proved: y)", "Operations: 7 in 14.000001 s, 3.25 s user, 0.5 s system"
        sample = self.measure_one_that_prints(proof, operations, "Peak RSS: 9 KiB")
        self.assertEqual((sample["operations"], sample["wall_seconds"], sample["cpu_seconds"], sample["peak_rss_kib"]),
                         (7, 14.000001, 3.75, 9))
        for lines in ((proof,), (proof, operations), (proof, "Peak RSS: 9 KiB")):
            with self.assertRaisesRegex(runner.Failed, "no line"):
                self.measure_one_that_prints(*lines)


class Witness(unittest.TestCase):
    HAKMEM = runner.Allocator("hakmem", "hakmem", runner.__file__, "")
    GLIBC = runner.Allocator("glibc", "glibc", runner.__file__, "")
    START = f"start 7 {runner.__file__}\n"

    def test_the_largest_process_counts(self):
        statement = f"{self.START}{self.START}end 8 0 3000\nend 7 0 2000\n"
        self.assertEqual(runner.checked_peak(statement, self.HAKMEM), 3000)

    def test_another_malloc_is_refused(self):
        for other in (report.__file__, "unknown"):
            statement = f"{self.START}start 8 {other}\nend 8 0 2000\n"
            with self.assertRaisesRegex(runner.Failed, f"malloc comes from {other}"):
                runner.checked_peak(statement, self.HAKMEM)

    def test_memory_of_glibc_is_refused_unless_it_is_measured(self):
        statement = f"{self.START}end 7 4096 2000\n"
        self.assertEqual(runner.checked_peak(statement, self.GLIBC), 2000)
        with self.assertRaisesRegex(runner.Failed, "4096 B came from glibc"):
            runner.checked_peak(statement, self.HAKMEM)

    def test_silence_is_refused(self):
        for statement in ("", self.START):
            with self.assertRaisesRegex(runner.Failed, "no process told"):
                runner.checked_peak(statement, self.HAKMEM)


if __name__ == "__main__":
    unittest.main()
