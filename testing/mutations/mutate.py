#!/usr/bin/env python3
"""Plants bugs into a copy of the tree, one at a time, and shows that the named test fails for each.

    testing/mutations/mutate.py              all of them
    testing/mutations/mutate.py NAME...      these
    testing/mutations/mutate.py --check      only that each still applies; takes no time
    testing/mutations/mutate.py --list

A bug is one textual replacement; they are listed in mutations.json. Exit status 0 if every bug was caught, 1 if one
survived, does not build, or does not apply (its text must occur exactly once), or if a test does not pass without a
bug, 2 for a wrong call.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def apply(tree, mutation):
    """Returns the file and its text before, after planting the bug; raises ValueError if it does not apply."""
    path = tree / mutation["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(mutation["old"]) != 1:
        raise ValueError(f"{mutation['old']!r} occurs {text.count(mutation['old'])} times in {mutation['file']}")
    path.write_text(text.replace(mutation["old"], mutation["new"]), encoding="utf-8")
    return path, text


def does_apply(mutation):
    text = (ROOT / mutation["file"]).read_text(encoding="utf-8")
    return text.count(mutation["old"]) == 1 and mutation["old"] != mutation["new"]


def copy_tree(target):
    """Copies what git knows, as it is on disk."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["cp", "--parents", "--target-directory", target, "--", *files.decode().strip("\0").split("\0")],
                   cwd=ROOT, check=True)


def bazel(tree, jobs, *arguments):
    command, *rest = arguments
    return subprocess.run(
        [str(tree / "bazelw"), command, f"--jobs={jobs}", "--test_timeout=60", *rest],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def flags_of(mutation):
    return (f"--config={mutation['config']}",) if "config" in mutation else ()


def pass_without_bugs(tree, mutations, jobs):
    """Whether the tests pass in the tree as it is: one that always fails would catch every bug."""
    for flags in sorted({flags_of(mutation) for mutation in mutations}):
        tests = sorted({mutation["test"] for mutation in mutations if flags_of(mutation) == flags})
        result = bazel(tree, jobs, "test", "--keep_going", *flags, *tests)
        if result.returncode != 0:
            print(result.stdout)
            return False
    return True


def run(tree, mutation, jobs):
    """What became of the bug: "caught", "SURVIVED" or "DOES NOT BUILD"."""
    path, text = apply(tree, mutation)
    try:
        flags = flags_of(mutation)
        if bazel(tree, jobs, "build", *flags, mutation["test"]).returncode != 0:
            return "DOES NOT BUILD"
        # 3 is Bazel's status for tests that failed, or hung.
        return "caught" if bazel(tree, jobs, "test", *flags, mutation["test"]).returncode == 3 else "SURVIVED"
    finally:
        path.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="only that each replacement still applies")
    parser.add_argument("--list", action="store_true", help="name the bugs")
    parser.add_argument("--jobs", type=int, default=2, help="of Bazel (default 2)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of bugs; all by default")
    options = parser.parse_args()
    mutations = json.loads((pathlib.Path(__file__).parent / "mutations.json").read_text(encoding="utf-8"))
    unknown = set(options.names) - {mutation["name"] for mutation in mutations}
    if unknown:
        parser.error(f"no such bug: {', '.join(sorted(unknown))}")
    chosen = [m for m in mutations if not options.names or m["name"] in options.names]
    if options.list:
        for mutation in chosen:
            print(f"{mutation['name']}: {mutation['file']}, {mutation['test']}")
        return 0
    stale = [mutation["name"] for mutation in chosen if not does_apply(mutation)]
    for name in stale:
        print(f"{name}: does not apply")
    if options.check or stale:
        print(f"{len(chosen) - len(stale)} of {len(chosen)} apply")
        return 1 if stale else 0
    n_caught = 0
    with tempfile.TemporaryDirectory(prefix="mutations.") as folder:
        tree = pathlib.Path(folder)
        copy_tree(tree)
        try:
            if not pass_without_bugs(tree, chosen, options.jobs):
                print("a test does not pass without a bug")
                return 1
            for mutation in chosen:
                verdict = run(tree, mutation, options.jobs)
                n_caught += verdict == "caught"
                print(f"{mutation['name']}: {verdict}", flush=True)
        finally:
            subprocess.run([str(tree / "bazelw"), "clean", "--expunge"], check=False, stderr=subprocess.DEVNULL)
    print(f"{n_caught} of {len(chosen)} caught")
    return 0 if n_caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
