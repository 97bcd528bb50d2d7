"""The options of `fscore mount`, named as JuiceFS names them, and what they mean for a volume and a mount."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from fscore.cli.errors import WrongUse

if TYPE_CHECKING:
    from fscore.mount.options import MountOptions
    from fscore.mount.run import Plan

MIB: Final = 1 << 20
MEGABIT: Final = 125_000
_UNITS: Final = {"": MIB, "B": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40}
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([BKMGT]?)(?:i?B)?", re.IGNORECASE)
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")
MEMORY: Final = "memory"

_WORDS: Final = {
    "transport": ("auto", "kernel", "pyfuse3"),
    "whole_cache": ("auto", "immutable", "all", "off"),
    "atime_mode": ("noatime", "relatime", "strictatime"),
}
_ONLY_JUICEFS: Final = ("backup_meta", "metrics", "consul", "no_usage_report", "no_syslog", "no_bgjob")


def size(text: str) -> int:
    """Bytes of `100G`, `512M`; a bare number is MiB, as JuiceFS has it."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size such as 300M or 100G")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def seconds(text: str) -> float:
    """Seconds of `1`, `1.5s`, `100ms`, `1h`, `1d`."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time such as 1s, 100ms or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def _at(panel: str, text: str, metavar: str | None = None, **more: Any) -> Any:  # noqa: ANN401 - what typer takes
    return typer.Option(help=text, metavar=metavar, rich_help_panel=panel, show_default=False, **more)


def _flag(panel: str, name: str, text: str) -> Any:  # noqa: ANN401 - what typer takes
    return typer.Option(name, help=text, rich_help_panel=panel)


def _hidden() -> Any:  # noqa: ANN401 - what typer takes
    return typer.Option(hidden=True)


_CACHE = "Cache and buffers"
_KERNEL = "What the kernel may believe"
_STORE = "Object storage"
_FILES = "Files"

Directory: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="Where; made if it is missing.", show_default=False)
]
Background: TypeAlias = Annotated[
    bool, typer.Option("--background", "-d", help="Return when it is mounted, and serve in the background.")
]
Log: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Log of a mount in the background (default: /var/log/fscore.log as root, else ~/.fscore/mount.log).",
        show_default=False,
    ),
]
ReadOnly: TypeAlias = Annotated[bool, typer.Option("--read-only", help="Change nothing; register no session.")]
Subdir: TypeAlias = Annotated[str, typer.Option(metavar="PATH", help="Mount this directory as root.")]
AllowOther: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--allow-other/--no-allow-other",
        help="Let other users in; the default for root. Others need user_allow_other in /etc/fuse.conf.",
        show_default=False,
    ),
]
Transport: TypeAlias = Annotated[
    str,
    typer.Option(metavar="NAME", help="kernel: our own, does everything. pyfuse3: over libfuse3. auto: what works."),
]
Words: TypeAlias = Annotated[
    list[str] | None, typer.Option("-o", metavar="WORDS", help="Words for mount(8), with commas.", show_default=False)
]

CacheDir: TypeAlias = Annotated[
    str | None,
    _at(
        _CACHE,
        "Where blocks and whole files are kept; memory: nowhere. (default: /var/cache/fscore as root, else "
        "~/.cache/fscore)",
        "DIR",
        envvar="FSCORE_CACHE_DIR",
    ),
]
CacheSize: TypeAlias = Annotated[
    int | None, _at(_CACHE, "What the cache may hold (default: 100G).", "SIZE", parser=size)
]
FreeSpace: TypeAlias = Annotated[
    float | None, _at(_CACHE, "Share of the cache's disk that stays free (default: 0.1).", "RATIO", min=0, max=0.99)
]
WholeCache: TypeAlias = Annotated[
    str | None,
    _at(
        _CACHE,
        "Which files are kept whole for the kernel to read by itself: immutable ones, all, off; auto is immutable, and "
        "off on an encrypted volume (default: auto).",
        "WHICH",
    ),
]
MemoryCache: TypeAlias = Annotated[
    int | None, _at(_CACHE, "Blocks kept in memory (default: 128M).", "SIZE", parser=size)
]
BufferSize: TypeAlias = Annotated[
    int | None, _at(_CACHE, "Written bytes in memory, on their way up or not (default: 300M).", "SIZE", parser=size)
]
MaxReadahead: TypeAlias = Annotated[
    int | None, _at(_CACHE, "Read ahead of one open file (default: 64M).", "SIZE", parser=size)
]
Prefetch: TypeAlias = Annotated[int | None, _at(_CACHE, "0 turns read-ahead off.", "N", min=0)]

AttrCache: TypeAlias = Annotated[
    float | None, _at(_KERNEL, "Attributes (default: 1s; of immutable files a day).", "TIME", parser=seconds)
]
EntryCache: TypeAlias = Annotated[float | None, _at(_KERNEL, "Names of files (default: 1s).", "TIME", parser=seconds)]
DirEntryCache: TypeAlias = Annotated[
    float | None, _at(_KERNEL, "Names of directories (default: 1s).", "TIME", parser=seconds)
]
NegativeEntryCache: TypeAlias = Annotated[
    float | None, _at(_KERNEL, "That a name does not exist (default: 0).", "TIME", parser=seconds)
]
OpenCache: TypeAlias = Annotated[
    float | None,
    _at(
        _KERNEL,
        "Nodes that this client has seen are believed so long; every open still asks (default: 1s).",
        "TIME",
        parser=seconds,
    ),
]

EnableXattr: TypeAlias = Annotated[
    bool, _flag(_FILES, "--enable-xattr", "Extended attributes. A volume with ACLs has them on.")
]
AtimeMode: TypeAlias = Annotated[
    str | None, _at(_FILES, "noatime, relatime or strictatime (default: noatime).", "MODE")
]
HideInternal: TypeAlias = Annotated[
    bool, _flag(_FILES, "--hide-internal", "List no .stats, .config, .accesslog and .trash.")
]
PrefixInternal: TypeAlias = Annotated[bool, _flag(_FILES, "--prefix-internal", "Call them .jfs.stats and so on.")]

Bucket: TypeAlias = Annotated[str | None, _at(_STORE, "Where the objects are, when not where the volume says.", "URL")]
MaxUploads: TypeAlias = Annotated[int | None, _at(_STORE, "Uploads at a time (default: 8).", "N", min=1)]
MaxDownloads: TypeAlias = Annotated[int | None, _at(_STORE, "Downloads at a time (default: 16).", "N", min=1)]
UploadLimit: TypeAlias = Annotated[float | None, _at(_STORE, "Mbps (default: 0, what the volume says).", "MBPS", min=0)]
DownloadLimit: TypeAlias = Annotated[
    float | None, _at(_STORE, "Mbps (default: 0, what the volume says).", "MBPS", min=0)
]
IoRetries: TypeAlias = Annotated[int | None, _at(_STORE, "Tries at one object (default: 14).", "N", min=1)]
Heartbeat: TypeAlias = Annotated[
    float | None, _at(_STORE, "How often the session is renewed (default: 12s).", "TIME", parser=seconds)
]

Ignored: TypeAlias = Annotated[str | None, _hidden()]
IgnoredFlag: TypeAlias = Annotated[bool, _hidden()]

_VOLUME_OPTIONS: Final = {
    "cache_size": "cache_size",
    "free_space_ratio": "free_space_ratio",
    "whole_cache": "whole",
    "memory_cache": "memory_cache",
    "buffer_size": "buffer_size",
    "max_readahead": "read_ahead",
    "open_cache": "cache_s",
    "bucket": "bucket",
    "max_uploads": "upload_threads",
    "max_downloads": "fetch_threads",
    "io_retries": "attempts",
    "heartbeat": "heartbeat_s",
    "atime_mode": "atime_mode",
}
_MOUNT_OPTIONS: Final = {
    "attr_cache": "attr_cache_s",
    "entry_cache": "entry_cache_s",
    "dir_entry_cache": "dir_entry_cache_s",
    "negative_entry_cache": "negative_entry_cache_s",
    "enable_xattr": "enable_xattr",
    "subdir": "subdir",
}


def plan_of(given: Mapping[str, Any]) -> Plan:
    """The plan behind the command's arguments. WrongUse for words that do not fit together."""
    from fscore.mount.run import Plan

    for option, words in _WORDS.items():
        if given[option] is not None and given[option] not in words:
            raise WrongUse(f"--{option.replace('_', '-')} {given[option]}: one of {', '.join(words)}")
    if given["writeback"]:
        raise WrongUse("--writeback is not offered: a close returns when the object storage has the bytes")
    options, read_only = mount_options(given)
    asked = {name: given[option] for option, name in _VOLUME_OPTIONS.items() if given[option] is not None}
    if given["prefetch"] == 0:
        asked["read_ahead"] = 0
    for limit in ("upload_limit", "download_limit"):
        if given[limit] is not None:
            asked[limit] = int(given[limit] * MEGABIT)
    if given["cache_dir"]:
        asked["cache_dir"] = "" if given["cache_dir"] == MEMORY else cache_place(given["cache_dir"])
    if read_only:
        asked["read_only"] = True
    return Plan(
        volume=given["volume"],
        mountpoint=given["directory"],
        transport=given["transport"],
        options=options,
        asked=asked,
        prefix=".jfs." if given["prefix_internal"] else ".",
        hide_internal=given["hide_internal"],
    )


def mount_options(given: Mapping[str, Any]) -> tuple[MountOptions, bool]:
    """What the kernel is told, from the options and from the words of `-o`; and whether it is read-only."""
    from fscore.mount.options import MountOptions

    words = [word for text in given["fuse"] or () for word in text.split(",") if word]
    read_only = given["read_only"] or "ro" in words
    other = given["allow_other"]
    if other is None:
        other = "allow_other" in words or os.geteuid() == 0
    named = [word.partition("=")[2] for word in words if word.startswith("fsname=")]
    chosen = {name: given[option] for option, name in _MOUNT_OPTIONS.items() if given[option] is not None}
    rest = tuple(w for w in words if w not in {"ro", "rw", "allow_other", "default_permissions"} and "fsname=" not in w)
    fsname = named[-1] if named else ""
    return (
        MountOptions(read_only=read_only, allow_other=bool(other), fsname=fsname, fuse_options=rest, **chosen),
        read_only,
    )


def cache_place(text: str) -> str:
    """The cache directory as an absolute path: the process in the background stands elsewhere."""
    if ":" in text:
        raise WrongUse(f"--cache-dir {text}: one directory; several are not striped over")
    return str(Path(text).expanduser().absolute())


def default_cache() -> str:
    """Where a mount keeps blocks when nobody says."""
    if os.geteuid() == 0:
        return "/var/cache/fscore"
    return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fscore")


def default_log() -> Path:
    """Where a mount in the background writes its log when nobody says."""
    return Path("/var/log/fscore.log") if os.geteuid() == 0 else Path.home() / ".fscore" / "mount.log"


def ignored(given: Mapping[str, Any]) -> Sequence[str]:
    """Options of JuiceFS that mean nothing here and do no harm."""
    return [f"--{name.replace('_', '-')}" for name in _ONLY_JUICEFS if given.get(name)]
