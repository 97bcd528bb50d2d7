"""`fscore mount`: a volume as a directory of this machine."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fscore.cli import mounting as m
from fscore.cli import options
from fscore.cli.errors import WRONG_USE, describe, exit_code
from fscore.cli.output import note

if TYPE_CHECKING:
    from fscore.mount.daemon import Tell
    from fscore.mount.run import Plan

EXAMPLES: Final = """fscore mount VOLUME /mnt/models -d --read-only

fscore mount VOLUME ~/models --subdir /models/llm --cache-dir /ssd/cache --cache-size 500G"""


def command(
    volume: options.Volume,
    directory: m.Directory,
    *,
    background: m.Background = False,
    read_only: m.ReadOnly = False,
    subdir: m.Subdir = "",
    allow_other: m.AllowOther = None,
    transport: m.Transport = "auto",
    log: m.Log = None,
    fuse: m.Words = None,
    cache_dir: m.CacheDir = None,
    cache_size: m.CacheSize = None,
    free_space_ratio: m.FreeSpace = None,
    whole_cache: m.WholeCache = None,
    memory_cache: m.MemoryCache = None,
    buffer_size: m.BufferSize = None,
    max_readahead: m.MaxReadahead = None,
    prefetch: m.Prefetch = None,
    attr_cache: m.AttrCache = None,
    entry_cache: m.EntryCache = None,
    dir_entry_cache: m.DirEntryCache = None,
    negative_entry_cache: m.NegativeEntryCache = None,
    open_cache: m.OpenCache = None,
    enable_xattr: m.EnableXattr = False,
    atime_mode: m.AtimeMode = None,
    hide_internal: m.HideInternal = False,
    prefix_internal: m.PrefixInternal = False,
    bucket: m.Bucket = None,
    max_uploads: m.MaxUploads = None,
    max_downloads: m.MaxDownloads = None,
    upload_limit: m.UploadLimit = None,
    download_limit: m.DownloadLimit = None,
    io_retries: m.IoRetries = None,
    heartbeat: m.Heartbeat = None,
    backup_meta: m.Ignored = None,
    metrics: m.Ignored = None,
    consul: m.Ignored = None,
    no_usage_report: m.IgnoredFlag = False,
    no_syslog: m.IgnoredFlag = False,
    no_bgjob: m.IgnoredFlag = False,
    writeback: m.IgnoredFlag = False,
) -> None:
    """Show a volume as a directory of this machine.

    Serves until it is unmounted (fscore umount DIR) or gets SIGTERM or SIGINT, and then commits everything first.
    Without root, the package fuse3 does the mounting.
    """
    given = dict(locals())
    plan = m.plan_of(given)
    left = m.ignored(given)
    if left:
        note(f"fscore: not needed and ignored: {', '.join(left)}")
    if background:
        in_background(plan, (log or m.default_log()).expanduser().absolute())
    else:
        serve(plan, lambda text: note(f"fscore: {text}"))


def serve(plan: Plan, say: Tell, ready: Tell | None = None) -> None:
    """Mount and serve to the end, in this process."""
    from fscore.mount.run import start, until_unmounted

    running = start(plan, say, default_cache=m.default_cache())
    text = f"{running.volume.name} is mounted at {running.mountpoint} ({running.transport})"
    (ready or say)(text)
    until_unmounted(running)


def in_background(plan: Plan, log: Path) -> None:
    """Mount in a process of its own; returns when it is mounted, raises SystemExit with what it said when it is not."""
    from fscore.mount import daemon

    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
    except OSError as error:
        note(f"fscore: the log cannot be written, --log says where: {describe(error)}")
        raise SystemExit(WRONG_USE) from None

    def child(tell: Tell, ready: Tell) -> int:
        log_to(log)
        try:
            serve(plan, tell, ready)
        except Exception as error:
            trace = error if os.environ.get("FSCORE_DEBUG") else None
            logging.getLogger("fscore").critical("%s", describe(error), exc_info=trace)
            tell(describe(error))
            return exit_code(error)
        return 0

    outcome = daemon.launch(child, log)
    for text in outcome.said:
        note(f"fscore: {text}")
    if outcome.code is not None:
        raise SystemExit(outcome.code)


def log_to(file: Path) -> None:
    """What fscore logs, to a file that may be rotated; from $FSCORE_LOG up, and info when it does not say."""
    handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    own = logging.getLogger("fscore")
    own.handlers[:] = [handler]
    own.setLevel(os.environ.get("FSCORE_LOG", "info").upper())
    sys.excepthook = lambda kind, error, trace: own.critical("the mount ends", exc_info=(kind, error, trace))
