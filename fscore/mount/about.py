"""What a mount says about itself: the contents of `.config` and the gauges of `.stats`. Secrets are left out."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from fscore import __version__
from fscore.domain.errors import StoreError
from fscore.domain.secrets import SCRUBBED
from fscore.domain.setting import SECRETS, Setting
from fscore.domain.version import IMPLEMENTS
from fscore.mount.options import MountOptions
from fscore.vfs.stats import render
from fscore.volume import Volume

SECOND: Final = 1_000_000_000
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def config(volume: Volume, mountpoint: Path, options: MountOptions, transport: Callable[[], str]) -> bytes:
    """The JSON of `.config`, keys as JuiceFS has them; what only we know stands under `Fscore`."""
    own = volume.options
    document: dict[str, Any] = {
        "Meta": {
            "Retries": own.attempts,
            "ReadOnly": own.read_only,
            "Heartbeat": int(own.heartbeat_s * SECOND),
            "MountPoint": str(mountpoint),
            "Subdir": options.subdir,
            "Sid": volume.meta.sid or 0,
        },
        "Format": json.loads(public(volume.setting).render()),
        "Chunk": {
            "CacheDir": own.cache_dir or "memory",
            "CacheSize": own.cache_size,
            "FreeSpace": own.free_space_ratio,
            "MaxUpload": own.upload_threads,
            "MaxDownload": own.fetch_threads,
            "UploadLimit": own.upload_limit,
            "DownloadLimit": own.download_limit,
            "BufferSize": own.buffer_size,
            "Readahead": own.read_ahead,
            "Writeback": False,
        },
        "Version": f"{IMPLEMENTS}+fscore.{__version__}",
        "AttrTimeout": int(options.attr_cache_s * SECOND),
        "DirEntryTimeout": int(options.dir_entry_cache_s * SECOND),
        "NegEntryTimeout": int(options.negative_entry_cache_s * SECOND),
        "EntryTimeout": int(options.entry_cache_s * SECOND),
        "Subdir": options.subdir,
        "Pid": os.getpid(),
        "PPid": os.getppid(),
        "Mountpoint": str(mountpoint),
        "Fscore": {
            "Meta": volume.meta.engine.location,
            "Transport": transport(),
            "PidNamespace": pid_namespace(),
            "Options": msgspec.to_builtins(options),
        },
    }
    return json.dumps(document, indent=1).encode()


def public(setting: Setting) -> Setting:
    """The setting as anybody may see it: each secret that there is replaced by a word."""
    hidden = {name: SCRUBBED for name in SECRETS if getattr(setting, name)}
    return msgspec.structs.replace(setting, **hidden)


def pid_namespace() -> str:
    """Where this process' number is its number; empty where the system does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a link's text; there is no such file
    except OSError:
        return ""


def stats(volume: Volume, requests: Mapping[str, float], uptime_s: float) -> bytes:
    """The text of `.stats`: this process's metrics, its counts of requests, and what it and the volume use now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    gauges = {
        "uptime": uptime_s,
        "cpu_usage": used.ru_utime + used.ru_stime,
        "memory": _resident(),
        "used_buffer_size_bytes": volume.vfs.buffered + volume.blocks.budget.used,
        "blockcache_bytes": volume.blocks.cache.used,
        "store_cache_size_bytes": volume.blocks.cache.used,
        "fuse_open_handlers": volume.vfs.open_handles,
    }
    try:
        found = volume.meta.statfs()
        gauges |= {"used_space": found.used, "used_inodes": found.inodes_used}
    except StoreError:  # the rest is still worth telling, then more than ever
        gauges["fscore_meta_unavailable"] = 1
    return render({**volume.metrics.snapshot(), **requests}, gauges)


def _resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
