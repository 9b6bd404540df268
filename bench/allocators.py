"""What the scripts of this folder share: which allocators they compare, in what environment, and where programs are."""

import argparse
import os
import pathlib
import re
import signal
import sys

_OWN = ("hakmem", "limit")  # names with a part of their own in the tables
PEERS = ("glibc", "jemalloc", "mimalloc", "tcmalloc")
EXIT_NOT_MEASURED = 3

# How the names begin of the variables that choose an allocator, and of those that one allocator reads and the others do
# not: hakmem, glibc and jemalloc, mimalloc, gperftools' tcmalloc and Google's.
_CHOICE = ("LD_PRELOAD", "HAK_BENCH_")
_ONE_ALLOCATORS = ("HAKMEM_", "GLIBC_TUNABLES", "MALLOC", "JE_MALLOC_CONF", "MIMALLOC_", "TCMALLOC_", "HEAPPROFILE",
                   "HEAPCHECK", "PERFTOOLS_", "BORG_")


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


def output_path(text):
    """A file that can be written: asked before hours of measuring, and nothing in it is lost."""
    path = pathlib.Path(user_path(text))
    try:
        with open(path, "a", encoding="utf-8"):
            return path
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {error.strerror}") from error


def status_text(status):
    """How a process has ended, from its exit code; negative: by a signal."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _variable(text):
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"is '{text}', must be NAME=VALUE")
    if name.startswith(_CHOICE):
        raise argparse.ArgumentTypeError(f"is '{text}', but {name} is set for each allocator")
    return name, value


def add_options(parser, defaults):
    parser.add_argument("--allocators", metavar="A,B",
                        help="default: those of " + ", ".join(defaults) + " that are installed")
    parser.add_argument("--lib", metavar="NAME=PATH", action="append", default=[], help="another library to measure")
    parser.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], type=_variable,
                        help="set a variable for every measured process of every allocator")
    parser.set_defaults(default_allocators=defaults)


def chosen(parser, arguments):
    """What add_options' options say: {name: what a bench's --allocator takes}, and the names that must be there."""
    names = arguments.default_allocators if arguments.allocators is None else arguments.allocators.split(",")
    if "" in names:
        parser.error(f"--allocators is '{arguments.allocators}', which has an empty name")
    allocators = {name: name for name in names}
    required = {"hakmem"} if arguments.allocators is None else set(names)
    for library in arguments.lib:
        name, _, path = library.partition("=")
        path = user_path(path) if path else ""
        if not name or not os.path.isfile(path):
            parser.error(f"--lib is '{library}', must be NAME=PATH of a library")
        if name in allocators or name in _OWN:
            parser.error(f"--lib {library}: {name} is the name of another one already, choose one of its own")
        allocators[name] = path
        required.add(name)
    return allocators, required


def clean_environment(arguments):
    """The environment of measured processes: the caller's, without what is meant for one allocator, and --env's."""
    # In any case of letters, as mimalloc reads its own.
    inherited = {name: value for name, value in os.environ.items()
                 if not name.upper().startswith(_CHOICE + _ONE_ALLOCATORS)}
    return {**inherited, **dict(arguments.env)}


def environment_notes(arguments):
    """What --env has set: one line for people, or none."""
    return [f"Environment: {' '.join(f'{name}={value}' for name, value in arguments.env)}"] if arguments.env else []
