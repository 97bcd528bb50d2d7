"""Making a volume: probe the store, claim it, write the setting and the root (volume-format.md 1.2)."""

from __future__ import annotations

import os
import re
import secrets
import uuid
from pathlib import Path
from typing import Final

from fscore.domain.errors import FsError, SettingError, StoreError
from fscore.domain.setting import COMPRESSIONS, NAME_PATTERN, Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from fscore.objects.api import ObjectStore
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.metrics import Metrics
from fscore.volume import Options, locate, stack_store

MIN_BLOCK: Final = 64 << 10
MAX_BLOCK: Final = 16 << 20
PROBE: Final = "testing/"
LOWEST_VERSION: Final = "1.1.0-A"
ACL_VERSION: Final = "1.2.0-A"
"""Clients that are older do not know ACLs (volume-format.md 1.4)."""
UUID_KEY: Final = "juicefs_uuid"
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)I?B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def format_volume(
    meta_url: str,
    name: str,
    *,
    storage: str = "file",
    bucket: str = "",
    block_size: str | int = "4M",
    compression: str = "none",
    trash_days: int = 1,
    capacity: str | int = 0,
    inodes: int = 0,
    hash_prefix: bool = False,
    enable_acl: bool = False,
    access_key: str = "",
    secret_key: str = "",
    session_token: str = "",
    object_store: ObjectStore | None = None,
    clock: Clock | None = None,
) -> Setting:
    """Make the volume and return its setting, as stored.

    Raises SettingError when there is a volume already, when the store holds foreign objects under the volume's name,
    and for every value that the format does not allow.
    """
    clock = clock or SystemClock()
    setting = Setting(
        name=_checked_name(name),
        uuid=str(uuid.uuid4()),
        storage=storage.lower(),
        bucket=checked_bucket(storage.lower(), bucket),
        block_size_kib=_block_size(block_size) // 1024,
        compression=_compression(compression),
        trash_days=_not_negative("trash-days", trash_days),
        capacity=parse_size(capacity),
        inodes=_not_negative("inodes", inodes),
        hash_prefix=hash_prefix,
        enable_acl=enable_acl,
        min_client_version=ACL_VERSION if enable_acl else LOWEST_VERSION,
        access_key=access_key,
        secret_key=secret_key,
        session_token=session_token,
    )
    engine = open_engine(locate(meta_url)[0])
    try:
        if engine.load_setting() is not None:
            raise SettingError(f"{engine.location} holds a volume already; it is not formatted again")
        objects = stack_store(setting, object_store, clock, Options(attempts=3), Metrics())
        try:
            _probe(objects, setting)
            stored = setting.with_wrapped_secrets(lambda: secrets.token_bytes(12))
            MetaService.format(engine, stored, clock)
        finally:
            objects.close()
    finally:
        engine.close()
    return stored


def parse_size(text: str | int) -> int:
    """Bytes of a plain number or of one with a unit: "64K", "4M", "100G", "1T". Raises SettingError."""
    if isinstance(text, int):
        return _not_negative("size", text)
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"{text!r} is no size: write bytes, or a number with K, M, G or T")
    return int(match.group(1)) * _UNITS[match.group(2).upper()]


def _checked_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise SettingError(f"{name!r} cannot name a volume: 3 to 63 of a-z, 0-9 and -, no - at either end")
    return name


def checked_bucket(storage: str, bucket: str) -> str:
    """A bucket as the setting holds it: for `file` absolute, with a slash at its end (volume-format.md 1.1)."""
    if storage != "file":
        if not bucket:
            raise SettingError(f"storage {storage} needs a bucket")
        return bucket
    if not bucket:
        bucket = "/var/jfs" if os.getuid() == 0 else str(Path.home() / ".juicefs" / "local")
    path = str(Path(bucket.removeprefix("file://")).expanduser().absolute())
    return path.rstrip("/") + "/"


def _block_size(text: str | int) -> int:
    """Rounded down to a power of two and clamped, as JuiceFS does."""
    size = parse_size(text)
    if isinstance(text, str) and text.strip().isdecimal():
        size *= 1024  # a plain number is KiB on the command line of JuiceFS
    if size <= 0:
        raise SettingError("a block size must be positive")
    return min(max(1 << (size.bit_length() - 1), MIN_BLOCK), MAX_BLOCK)


def _compression(name: str) -> str:
    if name.lower() not in COMPRESSIONS:
        raise SettingError(f"compression {name!r} is not one of lz4, none, zstd")
    return name.lower() or "none"


def _not_negative(what: str, value: int) -> int:
    if value < 0:
        raise SettingError(f"{what} must not be negative")
    return value


def _probe(objects: ObjectStore, setting: Setting) -> None:
    """The store takes, gives and forgets an object, and nobody else's objects are where ours will be."""
    key = f"{PROBE}{secrets.token_hex(5)}"
    content = secrets.token_bytes(100)
    try:
        objects.put(key, content)
        if objects.get(key) != content:
            raise SettingError(f"{objects.location} gives back other bytes than it was given")
        objects.delete(key)
        for found in objects.scan():
            if not found.key.startswith(PROBE) and found.size:
                raise SettingError(f"{objects.location} is not empty ({found.key}): choose another name or bucket")
        objects.put(UUID_KEY, setting.uuid.encode())
    except (FsError, StoreError) as error:
        raise SettingError(f"{objects.location} cannot keep a volume's objects: {error}") from error
