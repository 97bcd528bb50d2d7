"""`fscore stat`: the attributes of one path."""

from __future__ import annotations

import stat
from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.commands.ls import described
from fscore.cli.output import Output, fields, human, when
from fscore.cli.paths import inside

EXAMPLES: Final = "fscore stat VOLUME /models/nlp/minilm/1/model.safetensors --json"


def command(
    volume: options.Volume,
    path: options.Path,
    *,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-L/-P", help="Show what a symbolic link points to.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show a path's attributes and extended attributes."""
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        files = opened.files
        found = files.stat(inside(path), follow=follow)
        xattrs = {name: text(files.getxattr(found.path, name)) for name in files.listxattr(found.path)}
        report = described(files, found)
    attr = found.attr
    report |= {"atime_ns": attr.atime_ns, "ctime_ns": attr.ctime_ns, "immutable": attr.immutable, "xattrs": xattrs}
    pairs = [
        ("path", report["path"] + (f" -> {report['target']}" if "target" in report else "")),
        ("kind", report["kind"]),
        ("size", f"{attr.length} ({human(attr.length)})"),
        ("mode", f"{stat.filemode(attr.st_mode)} ({report['mode']})"),
        ("owner", f"{attr.uid}:{attr.gid}"),
        ("inode", found.ino),
        ("links", attr.nlink),
        ("accessed", when(attr.atime_ns)),
        ("modified", when(attr.mtime_ns)),
        ("changed", when(attr.ctime_ns)),
        ("immutable", "yes" if attr.immutable else "no"),
        *((f"xattr {name}", value) for name, value in xattrs.items()),
    ]
    Output(as_json=as_json).result(report, lambda: fields(pairs))


def text(value: bytes) -> str:
    """An extended attribute as text; bytes that are none are escaped."""
    return value.decode(errors="backslashreplace")
