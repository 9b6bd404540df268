"""@rules_cc//cc:defs.bzl for a Bazel whose C++ rules are built in."""

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test

cc_libc_top_alias = native.cc_libc_top_alias
cc_toolchain = native.cc_toolchain
cc_toolchain_alias = native.cc_toolchain_alias
cc_toolchain_suite = native.cc_toolchain_suite

fdo_prefetch_hints = native.fdo_prefetch_hints
fdo_profile = native.fdo_profile

objc_import = native.objc_import
objc_library = native.objc_library
