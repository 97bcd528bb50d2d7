"""Counts every request and, while somebody reads `.accesslog`, writes its line. Transports call it when one is done."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from stat import filemode
from typing import Final

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.mount.api import AttrReply, EntryReply, OpenReply
from fscore.vfs.accesslog import AccessLog
from fscore.vfs.internal import FIRST_HANDLE

Args = Sequence[object]
SECOND: Final = 1_000_000_000


class _Tally:
    __slots__ = ("bytes", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.bytes = 0


class Observer:
    """What one mount is asked. Thread-safe; it stands in the way of every request, so it does little."""

    def __init__(self, log: AccessLog | None) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] = {}
        self._errors: dict[int, int] = {}

    def __call__(self, name: str, who: Caller, args: Args, result: object, number: int, seconds: float) -> None:
        """One request: operation, arguments after the caller, what it gave, its errno (0 for none), seconds."""
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies.setdefault(name, _Tally())
        moved = 0
        if not number and name == "read":
            moved = len(result)  # type: ignore[arg-type]  # what read gives has a length
        elif not number and name == "write":
            moved = result  # type: ignore[assignment]  # what write gives is a number
        with self._lock:
            tally.count += 1
            tally.seconds += seconds
            tally.bytes += moved
            if number:
                self._errors[number] = self._errors.get(number, 0) + 1
        if self._log is not None and self._log.on and not (name == "read" and _of_the_mount(args)):
            self._log.record((who.uid, who.gid, who.pid), describe(name, args, result), number, seconds)

    def snapshot(self) -> dict[str, float]:
        """Everything so far: `fuse.<operation>.count`, `.seconds`, of reads and writes `.bytes`; `fuse.errors.E...`."""
        found: dict[str, float] = {}
        with self._lock:
            for name, tally in self._tallies.items():
                found[f"fuse.{name}.count"] = tally.count
                found[f"fuse.{name}.seconds"] = tally.seconds
                if tally.bytes:
                    found[f"fuse.{name}.bytes"] = tally.bytes
            for number, count in self._errors.items():
                found[f"fuse.errors.{errno.errorcode.get(number, number)}"] = count
        return found


def _of_the_mount(args: Args) -> bool:
    """Whether a read is one of the mount's own files: a log that tells of its own reading would never rest."""
    return isinstance(args[1], int) and args[1] >= FIRST_HANDLE


def describe(name: str, args: Args, result: object) -> str:
    """`operation (arguments): result`, in the order in which JuiceFS has them."""
    arrange = _ARRANGED.get(name)
    shown = args if arrange is None else arrange(args)
    return f"{name} ({','.join(_text(arg) for arg in shown)}){_outcome(name, result)}"


def _mode_last(args: Args) -> Args:
    mode = args[2] if isinstance(args[2], int) else 0
    return (args[0], args[1], f"{filemode(mode)}:{mode:#06o}".replace("0o", "0"), *args[3:4])


def _inode_size_offset_handle(args: Args) -> Args:
    ino, fh, offset, size = args[:4]
    return ino, len(size) if isinstance(size, bytes | memoryview | bytearray) else size, offset, fh


_ARRANGED: Final[dict[str, Callable[[Args], Args]]] = {
    "read": _inode_size_offset_handle,
    "write": _inode_size_offset_handle,
    "mknod": _mode_last,
    "mkdir": _mode_last,
    "create": lambda args: _mode_last(args)[:3],
    "open": lambda args: (args[0], f"{args[1]:#x}"),
    "getattr": lambda args: args[:1],
    "setxattr": lambda args: (args[0], args[1], len(args[2]) if isinstance(args[2], bytes) else 0, *args[3:]),
}


def _text(arg: object) -> str:
    if isinstance(arg, bytes):
        return arg.decode("utf-8", "backslashreplace")
    return str(arg)


def _outcome(name: str, result: object) -> str:
    if isinstance(result, tuple):  # create: the entry, and how it was opened
        return "".join(_outcome(name, part) for part in result)
    if isinstance(result, EntryReply | AttrReply):
        return f": ({result.ino},{_attr(result.attr)})" if result.ino else ""
    if isinstance(result, OpenReply):
        return f" [fh:{result.fh}]"
    if name == "readlink" and isinstance(result, bytes):
        return f": ({_text(result)})"
    if isinstance(result, bytes | memoryview | bytearray | list):
        return f": ({len(result)})"
    return ""


def _attr(attr: Attr) -> str:
    mode = attr.st_mode
    times = ",".join(str(ns // SECOND) for ns in (attr.atime_ns, attr.mtime_ns, attr.ctime_ns))
    return f"[{filemode(mode)}:0{mode:06o},{attr.nlink},{attr.uid},{attr.gid},{times},{attr.length}]"
