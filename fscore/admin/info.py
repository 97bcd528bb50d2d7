"""What `info` shows of a path: inode, chunks, slices and objects."""

from __future__ import annotations

from typing import Any

import msgspec

from fscore.volume import Volume


def info(volume: Volume, path: str) -> dict[str, Any]:
    """A plain document of `Filesystem.info`, with the full object keys."""
    found = volume.files.info(path)
    document: dict[str, Any] = msgspec.to_builtins(found)
    document["attr"]["kind"] = found.attr.kind.name.lower()
    for chunk, plain in zip(found.chunks, document["chunks"], strict=True):
        plain["records"] = [record._asdict() for record in chunk.records]
        plain["view"] = [piece._asdict() for piece in chunk.view]
        for ref in plain["objects"]:
            ref["key"] = f"{volume.name}/{ref['key']}"
    return document
