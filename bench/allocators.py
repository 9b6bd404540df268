"""The allocators that the scripts of this folder compare, and the programs that they run: options and places."""

import os
import pathlib
import sys

PEERS = ("glibc", "jemalloc", "mimalloc", "tcmalloc")
EXIT_NOT_MEASURED = 3


class NotMeasured(Exception):
    """An allocator is missing or is not the one that was asked for, or a run of it did not come to its end."""


def find_program(name):
    """A file built with the running script: beside it in Bazel's output tree and in a runfiles tree."""
    script = pathlib.Path(os.path.abspath(sys.argv[0]))
    candidates = (script.with_name(name), pathlib.Path(f"{script}.runfiles/hakmem/bench/{name}"))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = " or ".join(str(candidate) for candidate in candidates)
    sys.exit(f"{script.stem}: {places} not found; use `bazel run -c opt //bench:{script.stem}`")


def user_path(path):
    """A path as the user gave it: `bazel run` starts programs in a folder of its own and leaves the user's here."""
    return os.path.abspath(os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", ""), path))


def add_options(parser, defaults):
    parser.add_argument("--allocators", metavar="A,B",
                        help="default: those of " + ", ".join(defaults) + " that are installed")
    parser.add_argument("--lib", metavar="NAME=PATH", action="append", default=[], help="another library to measure")
    parser.set_defaults(default_allocators=defaults)


def chosen(parser, arguments):
    """What add_options' options say: {name: what a bench's --allocator takes}, and the names that must be there."""
    names = arguments.allocators.split(",") if arguments.allocators else arguments.default_allocators
    allocators = {name: name for name in names}
    required = set(names) if arguments.allocators else {"hakmem"}
    for library in arguments.lib:
        name, _, path = library.partition("=")
        path = user_path(path) if path else ""
        if not name or not os.path.isfile(path):
            parser.error(f"--lib is '{library}', must be NAME=PATH of a library")
        allocators[name] = path
        required.add(name)
    return allocators, required
