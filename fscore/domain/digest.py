"""Content addresses: of a file, of a byte range, of a version. Pure; reads nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

PREFIX: Final = "sha256:"


class FileDigest(msgspec.Struct, frozen=True):
    """What a file is: its size, its MD5 (the key of the lookup) and its SHA-256 (the proof)."""

    size: int
    md5: str
    sha256: str


def oms_root(files: Iterable[tuple[str, str]]) -> str:
    """The root digest of (path, sha256 hex) pairs, as hex: equal to what OpenSSF model-signing 1.x signs.

    root = SHA-256 over the concatenated raw digests, ordered by path *components* (as pathlib orders them:
    "a/b" comes before "a.txt"), method "files".
    """
    root = hashlib.sha256()
    for _, digest in sorted((path.split("/"), digest) for path, digest in files):
        root.update(bytes.fromhex(digest))
    return root.hexdigest()


def version_digest(files: Iterable[tuple[str, str]]) -> str:
    """The digest of a version: "sha256:" and its OMS root."""
    return PREFIX + oms_root(files)


def content_digest(data: bytes | memoryview) -> str:
    """The digest of a small document (a manifest, a tensor table, an event): "sha256:" and hex."""
    return PREFIX + hashlib.sha256(data).hexdigest()
