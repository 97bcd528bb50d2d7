"""A volume's setting shown and changed, with what would surprise somebody said first (volume-format.md 1)."""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from fscore.admin.format import UUID_KEY, checked_bucket
from fscore.admin.metadata import metadata
from fscore.admin.status import shown_setting
from fscore.domain.errors import FsError, NotFound, SettingError, StoreError
from fscore.domain.quota import QuotaKind
from fscore.domain.secrets import NONCE
from fscore.domain.setting import SECRETS, Setting
from fscore.domain.version import IMPLEMENTS, parse_version
from fscore.meta.service import MetaService
from fscore.runtime.clock import SystemClock
from fscore.runtime.metrics import Metrics
from fscore.volume import Options, stack_store

ACL_FLOOR: Final = "1.2.0-A"
"""Clients from here on keep ACLs up (volume-format.md 1.4)."""
TIER_FLOOR: Final = "1.4.0-A"
LAST_TIER: Final = 3
LOG_AGE_S: Final = 7200
_WHERE: Final = ("bucket", "access_key", "secret_key", "session_token")
"""Keys of which one that is wrong keeps every client from the objects."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What shall change; None keeps. Sizes are bytes, rates Mbit/s, as the setting has them."""

    capacity: int | None = None
    inodes: int | None = None
    trash_days: int | None = None
    dir_stats: bool | None = None
    user_group_quota: bool | None = None
    enable_acl: bool | None = None
    upload_limit: int | None = None
    download_limit: int | None = None
    min_client_version: str | None = None
    max_client_version: str | None = None
    bucket: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    tier: int = 0
    """The tier that the next two belong to."""
    storage_class: str | None = None
    tag: str | None = None
    change_log: bool | None = None
    change_log_max_age: int | None = None
    change_log_max_lines: int | None = None

    def asked(self) -> dict[str, Any]:
        """Those that are not None."""
        found = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        if self.storage_class is None and self.tag is None:
            del found["tier"]
        return found


class Changed(msgspec.Struct, frozen=True):
    """What a change did, or with `refused` would have done: key to (old, new), secrets hidden."""

    changed: dict[str, tuple[Any, Any]]
    warnings: list[str]
    setting: dict[str, Any]


def show_setting(target: str) -> dict[str, Any]:
    """The setting's document, secrets hidden."""
    with metadata(target, read_only=True) as meta:
        return shown_setting(meta.setting)


def change_setting(target: str, changes: Changes, *, sure: bool) -> Changed:
    """Change keys of the stored setting; keys that are not known here stay.

    What could lock clients out or lose something is refused with its reasons unless `sure`.
    """
    asked = changes.asked()
    with metadata(target, setting_only=True) as meta:
        old = meta.setting
        counts = {"dir_stats", "user_group_quota", "change_log", "trash_days", "enable_acl"} & asked.keys()
        if old.unknown and counts:
            unknown = ", ".join(sorted(old.unknown))
            raise SettingError(f"{', '.join(sorted(counts))} is for a client that knows {unknown}, this one does not")
        new = _applied(old, asked)
        warnings = _warnings(meta, old, new)
        if warnings and not sure:
            raise SettingError(f"{'; '.join(warnings)}: --yes does it all the same")
        stored = meta.amend(lambda setting: _applied(setting, asked))
    return Changed(_differences(old, stored), warnings, shown_setting(stored))


def _applied(setting: Setting, asked: dict[str, Any]) -> Setting:
    plain = dict(asked)
    tier, kind, tag = plain.pop("tier", 0), plain.pop("storage_class", None), plain.pop("tag", None)
    if "bucket" in plain:
        plain["bucket"] = checked_bucket(setting.storage, plain["bucket"])
    hidden = {name: plain.pop(name) for name in SECRETS if name in plain}
    new = replace(setting, **plain)
    if kind is not None or tag is not None:
        new = _with_tier(new, tier, kind, tag)
    if hidden:
        open_ = replace(new.with_plain_secrets(), **hidden)
        new = open_.with_wrapped_secrets(lambda: secrets.token_bytes(NONCE))
    if setting.enable_acl and not new.enable_acl:
        raise SettingError("ACLs cannot be turned off again: files have them")
    for used, floor in ((new.enable_acl, ACL_FLOOR), (len(new.tiers or ()) > 1, TIER_FLOOR)):
        if used and _below(new.min_client_version, floor):
            new = replace(new, min_client_version=floor)
    if new.change_log and not setting.change_log and "change_log_max_age" not in plain:
        new = replace(new, change_log_max_age=LOG_AGE_S)
    _check_versions(setting, new)
    return new


def _check_versions(old: Setting, new: Setting) -> None:
    for name in ("min_client_version", "max_client_version"):
        if getattr(new, name) and parse_version(getattr(new, name)) is None:
            raise SettingError(f"{getattr(new, name)!r} is no version: write 1.2.0")
    if _below(new.min_client_version, old.min_client_version):
        raise SettingError(f"the volume needs clients from {old.min_client_version}: that cannot be lowered")


def _with_tier(setting: Setting, number: int, kind: str | None, tag: str | None) -> Setting:
    """With another storage class or tag for the objects of a tier."""
    if not 0 <= number <= LAST_TIER:
        raise SettingError(f"there are tiers 0 to {LAST_TIER}, not {number}")
    if tag and not tag.partition("=")[2]:
        raise SettingError(f"a tag is key=value, not {tag!r}")
    old = setting.tier(number) if number in setting.tier_numbers else ("", "")
    tiers = dict(setting.tiers or {"0": {"ID": 0, "StorageClass": setting.storage_class, "Tag": ""}})
    tiers[str(number)] = {
        "ID": number,
        "StorageClass": old[0] if kind is None else kind,
        "Tag": old[1] if tag is None else tag,
    }
    return replace(setting, tiers=dict(sorted(tiers.items())))


def _below(version: str, floor: str) -> bool:
    own, least = parse_version(version), parse_version(floor)
    return least is not None and (own is None or own < least)


def _warnings(meta: MetaService, old: Setting, new: Setting) -> list[str]:
    usage = meta.statfs()
    found = []
    if new.capacity and new.capacity < usage.used and new.capacity != old.capacity:
        found.append(f"{usage.used} bytes are used, more than the new capacity of {new.capacity}")
    if new.inodes and new.inodes < usage.inodes_used and new.inodes != old.inodes:
        found.append(f"{usage.inodes_used} inodes are used, more than the new limit of {new.inodes}")
    if new.trash_days < old.trash_days:
        found.append(f"what lies in the trash for more than {new.trash_days} days is deleted for good")
    if new.enable_acl and not old.enable_acl:
        found.append("ACLs cannot be turned off again, and clients older than 1.2 are locked out")
    if len(new.tiers or ()) > 1 and _below(old.min_client_version, TIER_FLOOR):
        found.append("clients older than 1.4 know no tiers and are locked out")
    if old.dir_stats and not new.dir_stats and meta.quotas(QuotaKind.DIRECTORY):
        found.append("without statistics of directories their quotas hold nobody")
    if old.user_group_quota and not new.user_group_quota:
        found.append("usage by users and groups is not counted any more, and their quotas hold nobody")
    if new.bucket != old.bucket:
        found.append(f"every client reads and writes {new.bucket} from its next start on; the objects must be there")
    if any(getattr(new, name) != getattr(old, name) for name in _WHERE):
        found += _not_there(new)
    found += _locked_out(meta, old, new)
    return found


def _not_there(setting: Setting) -> list[str]:
    """Why the volume's objects would not be found with this setting: looked for once, now."""
    try:
        store = stack_store(setting.with_plain_secrets(), None, SystemClock(), Options(attempts=2), Metrics())
        try:
            owner = store.get(UUID_KEY)
        except NotFound:
            return [f"{store.location} holds no objects of this volume"]
        finally:
            store.close()
    except (FsError, StoreError, SettingError) as error:
        return [f"{setting.bucket} cannot be read: {error}"]
    return [] if owner == setting.uuid.encode() else [f"{store.location} holds objects of another volume"]


def _locked_out(meta: MetaService, old: Setting, new: Setting) -> list[str]:
    """Connected clients that the new versions would keep out, and this one."""
    if (old.min_client_version, old.max_client_version) == (new.min_client_version, new.max_client_version):
        return []
    out = [f"this client, {IMPLEMENTS}, could not open the volume any more"] if _outside(IMPLEMENTS, new) else []
    for session in meta.engine.sessions():
        info = json.loads(session.info) if session.info else {}
        version = str(info.get("Version", ""))
        if _outside(version, new):
            out.append(f"session {session.sid} on {info.get('HostName', 'an unknown host')} has version {version}")
    return out


def _outside(version: str, setting: Setting) -> bool:
    own = parse_version(version)
    highest = parse_version(setting.max_client_version)
    return _below(version, setting.min_client_version) or (own is not None and highest is not None and own > highest)


def _differences(old: Setting, new: Setting) -> dict[str, tuple[Any, Any]]:
    before, after = shown_setting(old), shown_setting(new)
    found = {
        key: (before.get(key), after.get(key)) for key in sorted({*before, *after}) if before.get(key) != after.get(key)
    }
    for name in SECRETS:
        if getattr(old, name) != getattr(new, name):
            found[name.replace("_", " ").title().replace(" ", "")] = ("removed", "removed")
    return found
