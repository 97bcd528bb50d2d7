"""Paths inside a volume: always absolute, `str`, `/` between names. Pure text; knows no tree.

Rule 1  "a/b", "/a/b" and "//a/./b/" are the same path, "/a/b".
Rule 2  ".." is taken lexically and may not climb above the root.
Rule 3  bytes that are no UTF-8 travel as lone surrogates (PEP 383), so every name survives a round trip.
"""

from __future__ import annotations

import secrets

from fscore.domain.errors import Invalid, TooLong
from fscore.domain.ids import MAX_NAME


def encode(path: str) -> bytes:
    """The stored bytes of a path or name."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Invalid(f"a path with characters that no file name can hold: {path!r}") from error


def decode(name: bytes) -> str:
    """The text of stored bytes."""
    return name.decode("utf-8", "surrogateescape")


def normal(path: str) -> str:
    """The one spelling of a path. Raises Invalid for NUL bytes and for paths that leave the volume."""
    if "\0" in path:
        raise Invalid("a path with a NUL byte", path)
    if path.startswith("/") and "//" not in path and "/." not in path and not path.endswith("/"):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise Invalid("the path leaves the volume", path)
    return "/" + "/".join(parts)


def split(path: str) -> tuple[str, str]:
    """(directory, name) of a path; the root has the name ""."""
    parent, _, name = normal(path).rpartition("/")
    return parent or "/", name


def name_of(path: str) -> str:
    """The last name of a path; "" for the root."""
    return normal(path).rpartition("/")[2]


def parent_of(path: str) -> str:
    """The directory that holds a path; "/" for the root."""
    return split(path)[0]


def join(path: str, *names: str) -> str:
    """Names appended to a path."""
    return normal("/".join((path, *names)))


def beside(name: str) -> str:
    """A hidden name for the time of writing, nobody else's, and short enough whatever the final one is.

    What a killed process leaves under it is swept away (meta.service.sweeps UNFINISHED).
    """
    stem = encode(name)[:200].decode("utf-8", "ignore")
    return f".{stem}.{secrets.token_hex(6)}.tmp"


def check_name(name: str) -> bytes:
    """The stored bytes of one name. Raises Invalid or TooLong when no entry can have it."""
    raw = encode(name)
    if not raw or name in (".", "..") or "/" in name or "\0" in name:
        raise Invalid("no valid file name", name)
    if len(raw) > MAX_NAME:
        raise TooLong(f"{len(raw)} bytes, at most {MAX_NAME}", name)
    return raw


def is_below(path: str, top: str) -> bool:
    """Whether a path is `top` or lies under it."""
    path, top = normal(path), normal(top)
    return top in {path, "/"} or path.startswith(top + "/")
