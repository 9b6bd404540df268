"""A repository rule that puts together a repository from this machine's directories and from files of hakmem."""

def _system_repository_impl(ctx):
    for source, path in ctx.attr.files.items():
        ctx.symlink(source, path)
    for path, content in ctx.attr.texts.items():
        ctx.file(path, content, executable = False)
    for path, target in ctx.attr.links.items():
        if not ctx.path(target).exists:
            fail("@%s needs %s, which is not installed; ./bazelw installs the Debian packages of this project" %
                 (ctx.name, target))
        ctx.symlink(target, path)

system_repository = repository_rule(
    implementation = _system_repository_impl,
    attrs = {
        "files": attr.label_keyed_string_dict(doc = "file of a repository -> its path in this one"),
        "links": attr.string_dict(doc = "path in this repository -> directory of the machine it shows"),
        "texts": attr.string_dict(doc = "path in this repository -> content"),
    },
    # A package that was installed since is found again at the next start of Bazel's server.
    local = True,
)
