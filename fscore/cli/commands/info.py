"""`fscore info`: what lies behind a path."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import typer

from fscore.cli import options
from fscore.cli.commands.ls import described
from fscore.cli.output import Output, columns, fields, human
from fscore.cli.paths import inside

EXAMPLES: Final = "fscore info VOLUME /models/nlp/minilm/1/model.safetensors"


def command(
    volume: options.Volume,
    path: options.Path,
    *,
    objects: Annotated[bool, typer.Option("--objects", help="The object of every range too.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show a path's inode, chunks, slices and objects."""
    from fscore.files.stat import Stat
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        found = opened.files.info(inside(path))
        report = described(opened.files, Stat(found.path, found.ino, found.attr))
    report |= {
        "slices": found.slices,
        "objects": found.objects,
        "chunks": msgspec.to_builtins(found.chunks, str_keys=True),
    }
    Output(as_json=as_json).result(report, lambda: lines(report, objects=objects))


def lines(report: dict[str, Any], *, objects: bool) -> list[str]:
    """The report for people: one line a chunk, and one an object if asked."""
    text = fields(
        [
            ("path", report["path"]),
            ("kind", report["kind"]),
            ("inode", report["ino"]),
            ("size", f"{report['size']} ({human(report['size'])})"),
            ("chunks", len(report["chunks"])),
            ("slices", report["slices"]),
            ("objects", report["objects"]),
        ]
    )
    rows = [
        (chunk["index"], len(chunk["records"]), len(chunk["view"]), len(chunk["objects"])) for chunk in report["chunks"]
    ]
    if rows:
        text += ["", *columns(rows, ("CHUNK", "RECORDS", "EXTENTS", "OBJECTS"), right=(0, 1, 2, 3))]
    parts = [
        (chunk["index"], ref["key"], ref["size"], ref["offset"], ref["length"])
        for chunk in report["chunks"]
        for ref in chunk["objects"]
    ]
    if objects and parts:
        text += ["", *columns(parts, ("CHUNK", "OBJECT", "SIZE", "OFFSET", "LENGTH"), right=(0, 2, 3, 4))]
    return text
