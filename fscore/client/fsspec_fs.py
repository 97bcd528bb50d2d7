"""fsspec: `fscore://<volume>/path`, where <volume> is a name of `volumes.toml` or a quoted META-URL.

`fsspec.open("fscore://models/llama/config.json")`, `pandas.read_parquet("fscore://models/data.parquet")`, or with an
address: `fsspec.filesystem("fscore", volume="sqlite3:///srv/meta.db")`.
"""

from __future__ import annotations

import datetime as dt
import io
import threading
import urllib.parse
import weakref
from typing import Any, Final

from fsspec.spec import AbstractFileSystem

from fscore.domain.attr import Kind
from fscore.domain.errors import SettingError
from fscore.files import paths
from fscore.files.stat import Stat
from fscore.volume import OptionChanges, Volume, open_volume

_TYPES: Final = {Kind.FILE: "file", Kind.DIRECTORY: "directory", Kind.SYMLINK: "link"}
_BUFFER: Final = 1 << 20

_volumes: weakref.WeakValueDictionary[tuple[str, str], Volume] = weakref.WeakValueDictionary()
_lock: Final = threading.Lock()


class FscoreFileSystem(AbstractFileSystem):
    """A volume as fsspec sees it. Copies share bytes; `open` gives buffered files."""

    protocol = "fscore"
    root_marker = "/"
    cachable = True

    def __init__(
        self, volume: str | Volume = "", *, volume_options: OptionChanges | None = None, **own: object
    ) -> None:
        """`volume` is a name, a META-URL (quoted or not) or an open Volume; `volume_options` go to `open_volume`."""
        super().__init__(**own)
        if not volume:
            raise SettingError("which volume? Write fscore://NAME/path, or pass volume=NAME or META-URL")
        self.volume: Volume = volume if isinstance(volume, Volume) else _shared(volume, volume_options or {})
        self.files = self.volume.files

    @property
    def fsid(self) -> str:
        """Identity of the volume."""
        return f"fscore_{self.volume.setting.uuid}"

    @classmethod
    def _strip_protocol(cls, path: str | list[str]) -> str | list[str]:
        if isinstance(path, list):
            return [str(cls._strip_protocol(part)) for part in path]
        if path.startswith("fscore://"):
            path = "/" + path.removeprefix("fscore://").partition("/")[2]
        return paths.normal(path)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        if not path.startswith("fscore://"):
            return {}
        volume = path.removeprefix("fscore://").partition("/")[0]
        return {"volume": urllib.parse.unquote(volume)} if volume else {}

    def unstrip_protocol(self, name: str) -> str:
        """The full URL of a path."""
        quoted = urllib.parse.quote(self.volume.url, safe="")
        return f"fscore://{quoted}{self._strip_protocol(name)}"

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Attributes of a path, links followed."""
        return _entry(self.files.stat(str(self._strip_protocol(path))))

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:
        """What a directory holds; a file lists itself."""
        stat = self.files.stat(str(self._strip_protocol(path)))
        found = sorted(self.files.scandir(stat.path), key=lambda one: one.path) if stat.is_dir else [stat]
        return [_entry(one) for one in found] if detail else [one.path for one in found]

    def exists(self, path: str, **_: object) -> bool:
        """Whether there is anything."""
        return self.files.exists(str(self._strip_protocol(path)))

    def mkdir(self, path: str, create_parents: bool = True, **_: object) -> None:
        """A new directory."""
        self.files.mkdir(str(self._strip_protocol(path)), parents=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """A new directory and those above it."""
        self.files.mkdir(str(self._strip_protocol(path)), parents=True, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self.files.rmdir(str(self._strip_protocol(path)))

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self.files.unlink(str(self._strip_protocol(path)))

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove paths, trees with `recursive`."""
        if maxdepth is not None:
            super().rm(path, recursive=recursive, maxdepth=maxdepth)
            return
        for one in self.expand_path(path):
            if recursive:
                self.files.rmtree(one)
            elif self.files.stat(one, follow=False).is_dir:
                self.files.rmdir(one)
            else:
                self.files.unlink(one)

    def mv(self, path1: str, path2: str, **_: object) -> None:
        """Give a path another name."""
        source, target = str(self._strip_protocol(path1)), str(self._strip_protocol(path2))
        if self.files.is_dir(target):
            target = paths.join(target, paths.name_of(source))
        self.files.rename(source, target)

    def cp_file(self, path1: str, path2: str, **_: object) -> None:
        """A copy that shares its bytes with the original."""
        source, target = str(self._strip_protocol(path1)), str(self._strip_protocol(path2))
        if self.files.is_dir(source):
            self.files.mkdir(target, parents=True, exist_ok=True)
            return
        self.files.mkdir(paths.parent_of(target), parents=True, exist_ok=True)
        if self.files.exists(target, follow=False):
            self.files.unlink(target)
        self.files.clone(source, target)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        """Bytes of a file, of a range of it when asked; negative numbers count from its end."""
        with self.files.open(str(self._strip_protocol(path)), "rb") as file:
            size = file.size
            first, last, _step = slice(start, end).indices(size)
            return file.pread(first, max(0, last - first))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        """Put a whole file in place at once."""
        target = str(self._strip_protocol(path))
        self.files.mkdir(paths.parent_of(target), parents=True, exist_ok=True)
        self.files.write_atomic(target, value, replace=mode != "create")

    def created(self, path: str) -> dt.datetime:
        """The format keeps no birth time; the time of the last change of attributes stands in."""
        return _time(self.files.stat(str(self._strip_protocol(path))).attr.ctime_ns)

    def modified(self, path: str) -> dt.datetime:
        """Time of the last change of the content."""
        return _time(self.files.stat(str(self._strip_protocol(path))).mtime_ns)

    def ukey(self, path: str) -> str:
        """Changes whenever the content does."""
        stat = self.files.stat(str(self._strip_protocol(path)))
        return f"{stat.ino}-{stat.size}-{stat.mtime_ns}"

    def invalidate_cache(self, path: str | None = None) -> None:
        """Nothing is kept here."""

    def _open(self, path: str, mode: str = "rb", **_: object) -> io.BufferedIOBase:
        raw = self.files.open(str(self._strip_protocol(path)), mode if "b" in mode else mode + "b")
        if raw.readable() and raw.writable():
            return io.BufferedRandom(raw, _BUFFER)
        return io.BufferedReader(raw, _BUFFER) if raw.readable() else io.BufferedWriter(raw, _BUFFER)


def _shared(volume: str, options: OptionChanges) -> Volume:
    """One open volume for all filesystems of a process that name it alike; closed when the last of them goes."""
    target = urllib.parse.unquote(volume)
    key = (target, repr(sorted(options.items())))
    with _lock:
        found = _volumes.get(key)
        if found is None:
            found = _volumes[key] = open_volume(target, **options)
            weakref.finalize(found, found.closer())
        return found


def _entry(stat: Stat) -> dict[str, Any]:
    return {
        "name": stat.path,
        "size": stat.size if not stat.is_dir else 0,
        "type": _TYPES.get(stat.kind, "other"),
        "ino": stat.ino,
        "mode": stat.attr.st_mode,
        "uid": stat.attr.uid,
        "gid": stat.attr.gid,
        "mtime": stat.mtime_ns / 1e9,
        "mtime_ns": stat.mtime_ns,
        "islink": stat.is_symlink,
    }


def _time(nanoseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, tz=dt.UTC)
