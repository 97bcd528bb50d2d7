"""Which paths are meant: include and exclude patterns as shells and rsync users write them.

Rule 1  `*` and `?` stay inside one path part, `**` crosses parts, `[...]` is a class.
Rule 2  a pattern without `/` matches the last part of a path; one with `/` matches from the start.
Rule 3  a pattern that names a directory matches everything below it.
Rule 4  excluded beats included; without include patterns everything is included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_TOKEN: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)


class Matcher:
    """Decides about relative paths (`a/b.bin`, no leading slash)."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._include = [compile_glob(pattern) for pattern in include]
        self._exclude = [compile_glob(pattern) for pattern in exclude]

    def __call__(self, path: str) -> bool:
        """Whether `path` is meant."""
        path = path.strip("/")
        if any(pattern.fullmatch(path) for pattern in self._exclude):
            return False
        return not self._include or any(pattern.fullmatch(path) for pattern in self._include)


def compile_glob(pattern: str) -> re.Pattern[str]:
    """The regular expression of one pattern, for `fullmatch` on a relative path."""
    anchored = "/" in pattern.rstrip("/")
    body = "".join(_translate(token) for token in _TOKEN.findall(pattern.strip("/")))
    prefix = "" if anchored else "(?:.*/)?"
    return re.compile(f"{prefix}{body}(?:/.*)?", re.DOTALL)


def _translate(part: str) -> str:
    if part == "**/":
        return "(?:.*/)?"
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if len(part) > 2 and part.startswith("["):
        inner = part[1:-1].replace("\\", "\\\\")
        return f"(?!/)[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
    return re.escape(part)
