"""Every external repository that hakmem uses with a WORKSPACE, in one place.

All of them are local: directories of Debian packages (bazel/debian-packages.txt names them) and stubs of third_party/.
A workspace that depends on hakmem calls hakmem_dependencies() in its own WORKSPACE. MODULE.bazel names the same
repositories for a Bazel that has a module registry.
"""

load("//bazel:system_repository.bzl", "system_repository")

# Public Abseil labels that tests may name: package -> targets. The Debian package links all of them as one.
_ABSL = {
    "absl/container": ["btree", "flat_hash_map"],
    "absl/flags": ["flag", "parse"],
    "absl/functional": ["function_ref"],
    "absl/strings": ["strings", "str_format"],
    "absl/time": ["time"],
    "absl/types": ["optional", "span"],
}

_ALIAS = """alias(name = "{name}", actual = "//:absl", visibility = ["//visibility:public"])\n"""

_ABSL_BUILD_FILES = {
    package + "/BUILD.bazel": "".join([_ALIAS.format(name = target) for target in targets])
    for package, targets in _ABSL.items()
}

# Where a newer Bazel has these names from its module registry, system_repository makes them from what is installed.
_SYSTEM_REPOSITORIES = {
    # Debian's rules_cc 0.0.4 does not load in Debian's Bazel 4.2.3.
    "rules_cc": {
        "files": {Label("//third_party:rules_cc_defs.bzl"): "cc/defs.bzl"},
        "texts": {"cc/BUILD.bazel": ""},
    },
    # cc_test asks for this one even when no coverage is wanted.
    "remote_coverage_tools": {
        "files": {Label("//third_party:remote_coverage_tools.BUILD"): "BUILD.bazel"},
    },
    "com_google_googletest": {
        "files": {Label("//third_party:googletest.BUILD"): "BUILD.bazel"},
        "links": {
            "include/gmock": "/usr/include/gmock",
            "include/gtest": "/usr/include/gtest",
        },
    },
    "com_github_google_benchmark": {
        "files": {Label("//third_party:benchmark.BUILD"): "BUILD.bazel"},
        "links": {"include/benchmark": "/usr/include/benchmark"},
    },
    "com_google_absl": {
        "files": {Label("//third_party:absl.BUILD"): "BUILD.bazel"},
        "links": {"include/absl": "/usr/include/absl"},
        "texts": _ABSL_BUILD_FILES,
    },
}

def hakmem_dependencies():
    """Declares the repositories; one that the calling workspace has declared before is left as it is."""
    existing = native.existing_rules()

    # Bazel's own tools ask for these three.
    for name, path in {
        "platforms": "/usr/share/bazel/tools/platforms",
        "rules_java": "/usr/share/bazel/rules/java",
        "rules_proto": "/usr/share/bazel/rules/proto",
    }.items():
        if name not in existing:
            native.local_repository(name = name, path = path)

    for name, attributes in _SYSTEM_REPOSITORIES.items():
        if name not in existing:
            system_repository(name = name, **attributes)
