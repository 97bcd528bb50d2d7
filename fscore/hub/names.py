"""The hub's names and where they lie in a volume. Pure text; touches no volume.

Rule 1  team and model are letters, digits, ".", "_" and "-", beginning with a letter or digit, at most 96 long.
Rule 2  an alias looks the same, but is no number (neither "3" nor "v3"), so `model@3` and `model:prod` never meet.
Rule 3  "+" is only ours: `<N>+tp2-pp2` is a layout beside version N.
Rule 4  a path inside a version is relative, has no "..", no empty part, no NUL, and stays out of ".fscore".
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from fscore.domain.errors import HubError

MODELS: Final = "/models"
HOME: Final = "/.fscore"
AUDIT: Final = ".fscore"
"""The directory inside a version that holds manifest.json, tensors.json and validation.json."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_NUMBER: Final = re.compile(r"v?[0-9]{1,9}")
_LAYOUT: Final = re.compile(r"tp([1-9][0-9]{0,4})-pp([1-9][0-9]{0,4})(?:-ep([1-9][0-9]{0,4}))?")
_RANK: Final = re.compile(r"tp[0-9]{1,5}-pp[0-9]{1,5}(?:-ep[0-9]{1,5})?")


class Ref(msgspec.Struct, frozen=True):
    """A model, or one version of it by number or by alias."""

    team: str
    model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return f"{self.name}:{self.alias}" if self.alias else self.name

    @property
    def name(self) -> str:
        """team/model."""
        return f"{self.team}/{self.model}"

    def at(self, version: int) -> Ref:
        """The same model at a version."""
        return Ref(self.team, self.model, version)


def parse_ref(text: str | Ref) -> Ref:
    """`team/model`, `team/model@3`, `team/model@v3` or `team/model:alias`. Raises HubError."""
    if isinstance(text, Ref):
        check_name("team", text.team)
        check_name("model", text.model)
        return text
    name, at, number = text.partition("@")
    alias: str | None = None
    version: int | None = None
    if at:
        if not _NUMBER.fullmatch(number) or int(number.lstrip("v")) < 1:
            raise _bad(text, f"{number!r} is no version number")
        version = int(number.lstrip("v"))
    elif ":" in name:
        name, _, alias = name.partition(":")
        check_alias(alias)
    team, slash, model = name.partition("/")
    if not slash or "/" in model:
        raise _bad(text, "a model is named team/model")
    check_name("team", team)
    check_name("model", model)
    return Ref(team, model, version, alias)


def check_name(what: str, name: str) -> str:
    """`name` if a team or model may be called so (rule 1)."""
    if not _NAME.fullmatch(name):
        raise HubError(f"{name!r} is no valid {what} name", hint="letters, digits, '.', '_', '-'; at most 96")
    return name


def check_alias(name: str) -> str:
    """`name` if an alias may be called so (rule 2)."""
    check_name("alias", name)
    if _NUMBER.fullmatch(name):
        raise HubError(f"an alias cannot be a number: {name!r}", hint="write team/model@3 for a version")
    return name


def safe_relative(path: str) -> str:
    """`path` if it stays inside a version (rule 4). Raises HubError(kind="unsafe")."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or "\0" in path or any(p in ("", ".", "..") for p in parts):
        raise HubError(f"unsafe path {path!r}: it must stay inside the model's directory", kind="unsafe")
    if parts[0] == AUDIT:
        raise HubError(f"unsafe path {path!r}: {AUDIT}/ belongs to the repository", kind="unsafe")
    return path


def layout_name(tp: int, pp: int, ep: int = 1) -> str:
    """The name of a layout: "tp2-pp2", or "tp2-pp2-ep4" with expert parallelism."""
    if min(tp, pp, ep) < 1:
        raise HubError(f"a layout needs tp, pp and ep of at least 1, not tp={tp} pp={pp} ep={ep}")
    return f"tp{tp}-pp{pp}-ep{ep}" if ep > 1 else f"tp{tp}-pp{pp}"


def parse_layout(name: str) -> tuple[int, int, int]:
    """(tp, pp, ep) of a layout's name. Raises HubError."""
    found = _LAYOUT.fullmatch(name)
    if not found:
        raise HubError(f"{name!r} is no layout", hint="layouts are named tp2-pp2 or tp2-pp2-ep4")
    return int(found[1]), int(found[2]), int(found[3] or 1)


def check_rank(name: str) -> str:
    """`name` if a rank folder may be called so: "tp0-pp1" or "tp0-pp1-ep3"."""
    if not _RANK.fullmatch(name):
        raise HubError(f"{name!r} is no rank", hint="ranks are named tp0-pp1")
    return name


def split_entry(name: str) -> tuple[int, str] | None:
    """(version, layout) of a directory entry `<N>` or `<N>+<layout>`; None for anything else."""
    number, plus, layout = name.partition("+")
    if not number.isascii() or not number.isdigit() or number.startswith("0"):
        return None
    if plus and not _LAYOUT.fullmatch(layout):
        return None
    return int(number), layout


def entry(version: int, layout: str = "") -> str:
    """The directory entry of a version or of one of its layouts."""
    return f"{version}+{layout}" if layout else str(version)


def model_dir(team: str, model: str) -> str:
    """Where published versions and aliases of a model lie."""
    return f"{MODELS}/{team}/{model}"


def version_dir(team: str, model: str, version: int) -> str:
    """Where a published version lies."""
    return f"{MODELS}/{team}/{model}/{version}"


def layout_dir(team: str, model: str, version: int, layout: str) -> str:
    """Where a layout of a published version lies."""
    return f"{MODELS}/{team}/{model}/{entry(version, layout)}"


def draft_dir(team: str, model: str, version: int, layout: str = "") -> str:
    """Where a complete but unpublished version, or a layout of it, lies."""
    return f"{HOME}/drafts/{team}/{model}/{entry(version, layout)}"


def drafts_dir(team: str, model: str) -> str:
    """Where a model's unpublished versions lie."""
    return f"{HOME}/drafts/{team}/{model}"


def staging_dir(team: str, model: str, push_id: str) -> str:
    """Where an upload is being written."""
    return f"{HOME}/staging/{team}/{model}/{push_id}"


def staging_root() -> str:
    """Where every team's uploads are being written."""
    return f"{HOME}/staging"


def revoked_dir(team: str, model: str) -> str:
    """Where revoked versions are kept, out of every reader's way."""
    return f"{HOME}/revoked/{team}/{model}"


def log_dir(team: str, model: str) -> str:
    """Where a model's events lie."""
    return f"{HOME}/log/{team}/{model}"


def kept_dir(team: str, model: str, version: int) -> str:
    """Where manifest and report of a rejected version are kept."""
    return f"{log_dir(team, model)}/kept/{version}"


def index_dir(team: str) -> str:
    """Where the index of a team's known contents lies."""
    return f"{HOME}/index/{team}"


def _bad(text: str, why: str) -> HubError:
    return HubError(f"bad reference {text!r}: {why}", hint="write team/model, team/model@3 or team/model:alias")
