"""Builds a target a second time with another configuration of the allocator, beside the usual one.

    hak_variant(name = "libhakmem-dlopen.so", target = ":libhakmem.so", variant = "dlopen")

The flag //bazel:variant says which one is built. What a variant changes hangs on the config_setting of its name.
"""

_FLAG = "//bazel:variant"

def _variant_flag_impl(_ctx):
    return []

variant_flag = rule(
    implementation = _variant_flag_impl,
    build_setting = config.string(flag = True),
)

def _variant_transition_impl(_settings, attr):
    return {_FLAG: attr.variant}

_variant_transition = transition(
    implementation = _variant_transition_impl,
    inputs = [],
    outputs = [_FLAG],
)

def _hak_variant_impl(ctx):
    file = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = file, target_file = ctx.file.target)
    return [DefaultInfo(files = depset([file]), runfiles = ctx.runfiles([file]))]

hak_variant = rule(
    implementation = _hak_variant_impl,
    doc = "The one file of `target`, built as `variant`, under the name of this rule.",
    attrs = {
        "target": attr.label(
            allow_single_file = True,
            cfg = _variant_transition,
            mandatory = True,
        ),
        "variant": attr.string(mandatory = True),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)
