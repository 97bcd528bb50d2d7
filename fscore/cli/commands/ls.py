"""`fscore ls`: what is in a directory."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, columns, human, when
from fscore.cli.paths import inside

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem
    from fscore.files.stat import Stat

EXAMPLES: Final = """fscore ls VOLUME /

fscore ls VOLUME -lh /models/nlp"""


def command(
    volume: options.Volume,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path inside the volume.")] = "/",
    *,
    long: Annotated[bool, typer.Option("--long", "-l", help="Mode, links, owner, size and time too.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="All that is below, as full paths.")] = False,
    human_sizes: Annotated[bool, typer.Option("--human", "-h", help="Sizes as 87.4 MiB.")] = False,
    as_json: options.Json = False,
) -> None:
    """List a directory, or one file."""
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        files = opened.files
        found = list(entries(files, inside(path), recursive=recursive))
        shown = [(entry.path if recursive else entry.path.rpartition("/")[2] or "/", entry) for entry in found]
        out = Output(as_json=as_json)
        if as_json:
            out.result([described(files, entry) for entry in found], list)
        elif long:
            rows = [long_row(files, name, entry, human_sizes=human_sizes) for name, entry in shown]
            out.result(None, lambda: columns(rows, right=(1, 4)))
        else:
            out.result(None, lambda: [name for name, _ in shown])


def entries(files: Filesystem, path: str, *, recursive: bool) -> Iterator[Stat]:
    """The file itself, a directory's entries by name, or the whole tree below."""
    top = files.stat(path)
    if not top.is_dir:
        yield top
    elif not recursive:
        yield from sorted(files.scandir(path), key=lambda entry: entry.path)
    else:
        for _, dirs, regular in files.walk(path):
            yield from sorted([*dirs, *regular], key=lambda entry: entry.path)


def described(files: Filesystem, entry: Stat) -> dict[str, Any]:
    """One entry as JSON."""
    attr = entry.attr
    plain: dict[str, Any] = {
        "path": entry.path,
        "kind": attr.kind.name.lower(),
        "size": attr.length,
        "mode": f"{attr.mode:04o}",
        "uid": attr.uid,
        "gid": attr.gid,
        "nlink": attr.nlink,
        "mtime_ns": attr.mtime_ns,
        "ino": entry.ino,
    }
    if entry.is_symlink:
        plain["target"] = files.readlink(entry.path)
    return plain


def long_row(files: Filesystem, name: str, entry: Stat, *, human_sizes: bool) -> tuple[object, ...]:
    """The columns of `ls -l`."""
    attr = entry.attr
    size = human(attr.length) if human_sizes else attr.length
    label = f"{name} -> {files.readlink(entry.path)}" if entry.is_symlink else name
    return (stat.filemode(attr.st_mode), attr.nlink, attr.uid, attr.gid, size, when(attr.mtime_ns), label)
