"""`mount -t fscore VOLUME DIR -o ...`: what mount(8) calls, as arguments of `fscore mount`.

mount(8) runs /sbin/mount.fscore, a link to the command `fscore`, with SPEC DIR [-sfnv] [-N namespace] [-o words].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NAME: Final = "mount.fscore"
_IGNORED: Final = frozenset(
    {"rw", "defaults", "auto", "noauto", "nofail", "user", "users", "owner", "group", "_netdev"}
)
_IGNORED_PREFIXES: Final = ("x-", "X-", "comment=", "user=")
_KNOWN_BY_WORD: Final = {"ro": "--read-only", "allow_other": "--allow-other", "noallow_other": "--no-allow-other"}
_TAKE_VALUE: Final = frozenset({"-N", "-t"})


def translate(arguments: Sequence[str], options: dict[str, bool]) -> list[str] | None:
    """Arguments of `fscore` for those of the helper; None when nothing is to be done (-f).

    `options` are the names of the options of `fscore mount` without dashes, and whether they take a value. A word of
    `-o` that is one of them becomes that option; the others stay words.
    """
    words: list[str] = []
    places: list[str] = []
    fake = False
    rest = iter(arguments)
    for argument in rest:
        if argument == "-o":
            words += next(rest, "").split(",")
        elif argument in _TAKE_VALUE:
            next(rest, None)
        elif argument.startswith("-") and len(argument) > 1:
            fake = fake or "f" in argument
        else:
            places.append(argument)
    if fake:
        return None
    chosen, left = _sorted_out(words, options)
    return ["mount", "--background", *chosen, *(["-o", ",".join(left)] if left else []), "--", *places]


def _sorted_out(words: Sequence[str], options: dict[str, bool]) -> tuple[list[str], list[str]]:
    chosen: list[str] = []
    left: list[str] = []
    for word in filter(None, (word.strip() for word in words)):
        name, has_value, value = word.partition("=")
        option = name.replace("_", "-") if name.replace("_", "-") in options else name
        if word in _KNOWN_BY_WORD:
            chosen.append(_KNOWN_BY_WORD[word])
        elif word in _IGNORED or word.startswith(_IGNORED_PREFIXES):
            continue
        elif option in options and bool(has_value) == options[option]:
            chosen.append(f"--{option}={value}" if has_value else f"--{option}")
        else:
            left.append(word)
    return chosen, left
