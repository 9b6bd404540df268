"""The project's C and C++ rules: rules_cc plus the flags that every file of hakmem is compiled with.

The flags live here and not in .bazelrc, because a workspace that depends on a tier does not read our .bazelrc.
Flags that choose a kind of build (optimised, sanitized, checked) are in .bazelrc.
"""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")

# Tags of what preloads a library or links with one that replaces malloc. That does not go together with sanitizers: each
# brings a malloc of its own (asan, tsan) or a runtime library that the preload library would then depend on (ubsan).
# What the library is made of is tested under them in its own folders.
NO_SANITIZER = [
    "no_asan",
    "no_tsan",
    "no_ubsan",
]

# The compiler must not turn malloc followed by memset into calloc, nor drop a malloc/free pair that a test wrote.
_MALLOC_COPTS = [
    "-fno-builtin-" + function
    for function in [
        "malloc",
        "calloc",
        "realloc",
        "free",
        "aligned_alloc",
        "memalign",
        "posix_memalign",
    ]
]

_WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wundef",
    "-Wshadow",
]

_C_COPTS = _MALLOC_COPTS + _WARNINGS + [
    "-std=c17",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
]

_CXX_COPTS = _MALLOC_COPTS + _WARNINGS + [
    "-std=c++17",
    "-Wno-missing-field-initializers",  # a C header's initialiser names what is not zero
]

# What only the allocator itself is built with. Names are hidden unless a declaration says otherwise, so that the
# preload library exports its API alone.
_PRODUCT_COPTS = ["-fvisibility=hidden"]

# Thread-local state is initial-exec: one load, and never an allocation. A library that is opened by a running program
# cannot count on room for that.
_DLOPEN_COPTS = ["-DHAK_CONFIG_DLOPEN=1"]
_LOADED_AT_START_COPTS = ["-ftls-model=initial-exec"]

# Bazel's toolchain keeps frame pointers and stack protectors even in optimised builds. They would cost a hot path of a
# dozen instructions several more; sanitizers and debuggers, which want them, build without -c opt.
_OPTIMISED_PRODUCT_COPTS = [
    "-O2",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
]

# Tests compile faster by a third so; what they test keeps its flags.
_OPTIMISED_TEST_COPTS = select({
    "//bazel:optimised": ["-O1"],
    "//conditions:default": [],
})

_C_EXTENSIONS = ["c"]
_CXX_EXTENSIONS = ["cc", "cpp", "cxx"]

def _is_cxx(name, srcs):
    """Whether srcs, a plain list, are C++; headers tell nothing. Both at once is an error: the flags differ."""
    extensions = [src.split(".")[-1] for src in srcs if "." in src]
    has_c = [e for e in extensions if e in _C_EXTENSIONS]
    has_cxx = [e for e in extensions if e in _CXX_EXTENSIONS]
    if has_c and has_cxx:
        fail("%s: C and C++ sources need two libraries, since their flags differ" % name)
    return bool(has_cxx)

def _copts(name, srcs, product = False):
    copts = _CXX_COPTS if _is_cxx(name, srcs) else _C_COPTS
    copts = copts + select({
        # Tests too: it is in headers.
        "//bazel:hardened": ["-DHAK_CONFIG_HARDENED=1"],
        "//bazel:valgrind": ["-DHAK_CONFIG_VALGRIND=1"],
        "//conditions:default": [],
    })
    if product:
        copts = copts + _PRODUCT_COPTS + select({
            "//bazel:dlopen": _DLOPEN_COPTS,
            "//conditions:default": _LOADED_AT_START_COPTS,
        }) + select({
            "//bazel:optimised": _OPTIMISED_PRODUCT_COPTS,
            "//conditions:default": [],
        })

    # A warning of somebody else's compiler must not break their build.
    if native.repository_name() in ["@", "@@"]:
        copts = copts + ["-Werror"]
    return copts

def hak_cc_library(name, srcs = [], hdrs = [], copts = [], **kwargs):
    """A library of the allocator: cc_library with the product flags, always linked statically.

    Static, because the names are hidden: a shared library per target would not resolve them.

    Args:
      name: as in cc_library.
      srcs: as in cc_library; C or C++, not both; a plain list.
      hdrs: as in cc_library.
      copts: added after the project's.
      **kwargs: as in cc_library. testonly libraries get the flags of tests.
    """
    cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = _copts(name, srcs, product = not kwargs.get("testonly", False)) + copts,
        linkstatic = True,
        **kwargs
    )

def hak_cc_binary(name, srcs = [], copts = [], product = False, **kwargs):
    """A program, or with linkshared = True a shared library.

    Args:
      name: as in cc_binary.
      srcs: as in cc_binary; C or C++, not both; a plain list.
      copts: added after the project's.
      product: whether srcs are a part of the allocator itself and get the flags of hak_cc_library.
      **kwargs: as in cc_binary.
    """
    cc_binary(
        name = name,
        srcs = srcs,
        copts = _copts(name, srcs, product = product) + copts,
        **kwargs
    )

def hak_cc_test(name, srcs, copts = [], deps = [], **kwargs):
    """A test. C++ sources are linked with GoogleTest and its main; C sources bring a main of their own.

    Args:
      name: as in cc_test.
      srcs: as in cc_test; C or C++, not both; a plain list.
      copts: added after the project's.
      deps: as in cc_test.
      **kwargs: as in cc_test.
    """
    gtest = ["@com_google_googletest//:gtest_main"] if _is_cxx(name, srcs) else []
    cc_test(
        name = name,
        srcs = srcs,
        copts = _copts(name, srcs) + _OPTIMISED_TEST_COPTS + copts,
        linkstatic = True,
        deps = deps + [d for d in gtest if d not in deps],
        **kwargs
    )

def hak_cc_test_cases(name, srcs, deps = [], **kwargs):
    """Test cases that several tests run, each on another library or with other variables: they are compiled once.

    The tests are hak_cc_test with srcs = [] and this in deps.

    Args:
      name: as in cc_library.
      srcs: as in cc_library; C++.
      deps: as in cc_library; GoogleTest and its main are added.
      **kwargs: as in cc_library.
    """
    hak_cc_library(
        name = name,
        testonly = True,
        srcs = srcs,
        alwayslink = True,
        deps = deps + ["@com_google_googletest//:gtest_main"],
        **kwargs
    )

def hak_cc_benchmark(name, srcs, copts = [], deps = [], **kwargs):
    """A Google Benchmark program; run it with `bazel run --config=release`.

    Args:
      name: as in cc_binary.
      srcs: as in cc_binary; C++.
      copts: added after the project's.
      deps: as in cc_binary.
      **kwargs: as in cc_binary.
    """
    benchmark = "@com_github_google_benchmark//:benchmark_main"
    cc_binary(
        name = name,
        srcs = srcs,
        copts = _copts(name, srcs) + copts,
        testonly = True,
        deps = deps + ([] if benchmark in deps else [benchmark]),
        **kwargs
    )
