"""Quotas by path, user and group: set, shown, deleted, checked and repaired."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from fscore.admin.metadata import ROOT_USER, metadata, path_of
from fscore.domain.errors import NotFound, SettingError
from fscore.domain.ids import ROOT, Ino
from fscore.domain.quota import Load, Quota, QuotaKey, QuotaKind
from fscore.meta.service import MetaService

LARGEST_ID: Final = (1 << 32) - 1


class Subject(NamedTuple):
    """Whose quota: a path, or a number with its kind."""

    kind: QuotaKind
    path: str = ""
    number: int = 0


class QuotaLine(msgspec.Struct, frozen=True):
    """One quota: whose (`/path`, `uid:5`, `gid:5`), limits in bytes and nodes (0: none), and what is used."""

    subject: str
    capacity: int
    used: int
    inodes: int
    used_inodes: int


class QuotaCheck(msgspec.Struct, frozen=True):
    """A quota beside what a count found; `recorded` is what it says itself, zeros where there is no record."""

    subject: str
    recorded: Load
    counted: Load
    consistent: bool


def subject(path: str | None, uid: int | None, gid: int | None) -> Subject | None:
    """The one that was named; None when nobody was. SettingError for two, and for numbers that nobody has."""
    named = [value for value in (path, uid, gid) if value is not None]
    if len(named) > 1:
        raise SettingError("name one of --path, --uid and --gid")
    if path is not None:
        return Subject(QuotaKind.DIRECTORY, path)
    if uid == 0:
        raise SettingError("uid 0 has no quota")
    for kind, number in ((QuotaKind.USER, uid), (QuotaKind.GROUP, gid)):
        if number is not None:
            if not 0 <= number <= LARGEST_ID:
                raise SettingError(f"{number} is no user or group")
            return Subject(kind, number=number)
    return None


def set_quota(
    target: str, whose: Subject, *, capacity: int | None = None, inodes: int | None = None, create: bool = False
) -> QuotaLine:
    """Set limits in bytes and nodes; None keeps one, 0 takes it away. `create` makes the directory."""
    with metadata(target) as meta:
        if create and whose.kind is QuotaKind.DIRECTORY:
            _make(meta, whose.path)
        key = _key(meta, whose)
        quota = meta.set_quota(*key, max_space=capacity, max_inodes=inodes)
        return _line(meta, key, quota)


def get_quota(target: str, whose: Subject) -> QuotaLine:
    """One quota. NotFound when there is none."""
    with metadata(target, read_only=True) as meta:
        key = _key(meta, whose)
        quota = meta.quota(*key)
        if quota is None or (whose.kind is not QuotaKind.DIRECTORY and not quota.limits):
            raise NotFound("no quota is set", _name(meta, key))
        return _line(meta, key, quota)


def list_quotas(target: str, whose: Subject | None = None) -> list[QuotaLine]:
    """Every quota with a limit, or the one that is named."""
    with metadata(target, read_only=True) as meta:
        wanted = None if whose is None else _key(meta, whose)
        found = meta.quotas()
        return [_line(meta, key, quota) for key, quota in found.items() if wanted in {None, key}]


def delete_quota(target: str, whose: Subject) -> None:
    """Take limits away; a user's or group's usage goes on being counted."""
    with metadata(target) as meta:
        meta.delete_quota(*_key(meta, whose))


def check_quotas(target: str, whose: Subject | None = None, *, repair: bool = False) -> list[QuotaCheck]:
    """Compare with a count, and with `repair` set to it: the one that is named, or every directory's and owner's."""
    with metadata(target, read_only=not repair) as meta:
        if whose is not None:
            key = _key(meta, whose)
            findings = {key: meta.check_quota(*key, repair=repair)}
        else:
            directories = meta.quotas(QuotaKind.DIRECTORY)
            findings = {key: meta.check_quota(*key, repair=repair) for key in directories}
            if meta.setting.user_group_quota:
                findings |= meta.check_owners(repair=repair)
        return [
            QuotaCheck(
                _name(meta, key),
                Load(*(finding.quota or Quota())[2:]),
                finding.counted,
                finding.consistent,
            )
            for key, finding in findings.items()
        ]


def _key(meta: MetaService, whose: Subject) -> QuotaKey:
    if whose.kind is not QuotaKind.DIRECTORY:
        return QuotaKey(whose.kind, whose.number)
    try:
        ino, _ = meta.resolve(ROOT_USER, whose.path.encode("utf-8", "surrogateescape"))
    except NotFound:
        number = whose.path.removeprefix("/").removeprefix("inode:")
        if not number.isdecimal() or "inode:" not in whose.path:
            raise NotFound(path=f"/{whose.path.strip('/')}") from None
        ino = Ino(int(number))  # what `list` shows of a directory that is gone
    return QuotaKey(whose.kind, ino)


def _make(meta: MetaService, path: str) -> None:
    ino: int = ROOT
    for name in path.encode("utf-8", "surrogateescape").strip(b"/").split(b"/"):
        try:
            ino = meta.lookup(ROOT_USER, ino, name)[0]
        except NotFound:
            ino = meta.mkdir(ROOT_USER, ino, name, 0o777)[0]


def _name(meta: MetaService, key: QuotaKey) -> str:
    if key.kind is QuotaKind.DIRECTORY:
        return path_of(meta, key.number) or f"inode:{key.number}"
    return f"{'uid' if key.kind is QuotaKind.USER else 'gid'}:{key.number}"


def _line(meta: MetaService, key: QuotaKey, quota: Quota) -> QuotaLine:
    return QuotaLine(
        _name(meta, key),
        max(quota.max_space, 0),
        max(quota.used_space, 0),
        max(quota.max_inodes, 0),
        max(quota.used_inodes, 0),
    )
