"""Client versions and their order (volume-format.md 1.4): build metadata ignored, no pre-release beats any."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

IMPLEMENTS: Final = "1.4.1"
"""The JuiceFS release whose behaviour towards a volume this package has."""

_PATTERN: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([^+]*))?(?:\+.*)?")


class Version(NamedTuple):
    """A parsed version. `pre` orders plainly, with `released` above every pre-release of the same number."""

    major: int
    minor: int
    patch: int
    released: bool
    pre: str


def parse_version(text: str) -> Version | None:
    """The version that `text` names, or None when it is none."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    major, minor, patch, pre = match.groups()
    return Version(int(major), int(minor), int(patch), not pre, pre or "")
