"""What the file store adds to the contract: JuiceFS's layout, whole writes, durability, the system's errors as ours."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fscore.domain.errors import Denied, Invalid, NoSpace, NotFound, ReadOnly, TransientError, UnavailableError
from fscore.domain.keys import block_key
from fscore.objects.file import FileStore
from fscore.objects.registry import open_store
from fscore.runtime.threads import Pool


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(f"{tmp_path}/bucket")


def test_the_path_is_bucket_name_key(tmp_path: Path) -> None:
    store = open_store("file", f"{tmp_path}/bucket/", prefix="myjfs/")
    store.put(block_key(123456789, 3, 4), b"tiny")
    assert (tmp_path / "bucket/myjfs/chunks/123/123456/123456789_3_4").read_bytes() == b"tiny"
    assert store.location == f"file://{tmp_path}/bucket/myjfs/"


def test_a_put_is_whole_or_absent(store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("d/k", b"old")
    real = os.write
    seen: list[str] = []

    def breaks(fd: int, data: memoryview) -> int:
        seen.extend(_names(tmp_path / "bucket/d"))
        if seen.count("k") > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[:1])

    monkeypatch.setattr(os, "write", breaks)
    with pytest.raises(NoSpace):
        store.put("d/k", b"new value")
    monkeypatch.undo()
    assert any(name.startswith(".jfs.k.tmp.") for name in seen)
    assert store.get("d/k") == b"old"
    assert _names(tmp_path / "bucket/d") == ["k"]


def test_short_writes_are_continued(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    store.put("k", b"0123456789")
    assert store.get("k") == b"0123456789"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EACCES, Denied),
        (errno.EROFS, ReadOnly),
        (errno.ESTALE, TransientError),
        (errno.EMFILE, TransientError),
        (errno.EIO, UnavailableError),
    ],
)
def test_errors_of_the_system(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    store.put("k", b"x")

    def fails(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(kind, match="'k' in file://"):
        store.get("k")
    with pytest.raises(kind):
        store.put("k", b"y")


def test_a_full_disk(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "bucket").mkdir()
    store = FileStore(f"{tmp_path}/bucket")
    real = os.open

    def to_full(path: str, flags: int, *rest: Any, **more: Any) -> int:
        return real("/dev/full" if ".tmp." in path else path, flags & ~(os.O_EXCL | os.O_CREAT), *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", to_full)
        with pytest.raises(NoSpace, match="No space left"):
            store.put("k", b"x")
    assert list(store.scan()) == []


def test_keys_that_files_cannot_hold_together(store: FileStore) -> None:
    store.put("a/b", b"x")
    with pytest.raises(Invalid):
        store.put("a/b/c", b"y")
    with pytest.raises(Invalid):
        store.put("a", b"y")
    with pytest.raises(NotFound):
        store.get("a")
    assert [info.key for info in store.scan()] == ["a/b"]


def test_temporary_files_are_not_listed(store: FileStore, tmp_path: Path) -> None:
    store.put("d/k", b"x")
    (tmp_path / "bucket/d/.jfs.other.tmp.123").write_bytes(b"half")
    assert [info.key for info in store.scan()] == ["d/k"]


def test_a_leftover_of_a_crashed_process_with_our_number_is_no_obstacle(store: FileStore, tmp_path: Path) -> None:
    folder = tmp_path / "bucket/d"
    folder.mkdir(parents=True)
    for number in range(1, 4):
        (folder / f".jfs.k.tmp.{os.getpid()}{number:06d}").write_bytes(b"half")
    store.put("d/k", b"whole")
    assert store.get("d/k") == b"whole"


def test_a_long_name_still_has_a_temporary_one(store: FileStore) -> None:
    store.put("k" * 255, b"x")
    assert store.head("k" * 255).size == 1


def test_the_root_is_made_at_the_first_put(tmp_path: Path) -> None:
    store = FileStore(f"{tmp_path}/not/yet/there")
    assert list(store.scan()) == []
    with pytest.raises(NotFound):
        store.get("k")
    store.put("k", b"x")
    assert store.get("k") == b"x"


class Syncs:
    """Counts what is synced, by path, and can hold a directory's sync."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.files = 0
        self.folders: list[str] = []
        self.gate: threading.Event | None = None
        real_data, real_sync = os.fdatasync, os.fsync

        def fdatasync(fd: int) -> None:
            self.files += 1
            real_data(fd)

        def fsync(fd: int) -> None:
            self.folders.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
            if self.gate is not None:
                self.gate.wait(5)
            real_sync(fd)

        patch.setattr(os, "fdatasync", fdatasync)
        patch.setattr(os, "fsync", fsync)


def test_a_put_is_durable_with_every_new_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    store = FileStore(f"{tmp_path}/bucket/")
    store.put("a/b/k", b"x")
    assert syncs.files == 1
    root = str(tmp_path)
    assert set(syncs.folders) == {root, f"{root}/bucket", f"{root}/bucket/a", f"{root}/bucket/a/b"}
    syncs.folders.clear()
    store.put("a/b/k2", b"x")
    assert syncs.folders == [f"{root}/bucket/a/b"]


def test_puts_into_one_directory_share_its_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(f"{tmp_path}/bucket/")
    store.put("d/first", b"x")
    syncs = Syncs(monkeypatch)
    syncs.gate = threading.Event()
    with Pool("test", 9) as pool:
        leader = pool.submit(store.put, "d/leader", b"x")
        while not syncs.folders:
            pass
        others = [pool.submit(store.put, f"d/{number}", b"x") for number in range(8)]
        while syncs.files < 9 or len(_names(tmp_path / "bucket/d")) < 10 or _temps(tmp_path / "bucket/d"):
            pass
        syncs.gate.set()
        for future in [leader, *others]:
            future.result(5)
    assert 2 <= len(syncs.folders) <= 3  # the leader's, one for all who waited, perhaps one for a latecomer


def test_without_durability_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    FileStore(f"{tmp_path}/bucket/", durable=False).put("a/k", b"x")
    assert (syncs.files, syncs.folders) == (0, [])


def test_what_waits_for_a_sync_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    store = FileStore(f"{tmp_path}/bucket/", durable="fsync")
    store.put("a/k", b"x")
    store.put("a/gone", b"x")
    store.delete("a/gone")
    assert (syncs.files, syncs.folders) == (0, [])
    store.sync()
    assert syncs.files == 1
    assert set(syncs.folders) == {str(tmp_path), f"{tmp_path}/bucket", f"{tmp_path}/bucket/a"}
    syncs.folders.clear()
    store.sync()
    assert (syncs.files, syncs.folders) == (1, [])


def test_a_sync_that_fails_is_told_to_everybody_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(f"{tmp_path}/bucket/", durable="fsync")
    store.put("a/k", b"x")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", _broken)
        with pytest.raises(UnavailableError, match="Input/output error"):
            store.sync()
    for _ in range(2):  # the kernel would say that all is well
        with pytest.raises(UnavailableError, match="bytes are lost"):
            store.sync()


def test_a_file_that_cannot_be_opened_for_its_sync_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(f"{tmp_path}/bucket/", durable="fsync")
    store.put("a/k", b"x")
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", _no_descriptor)
        with pytest.raises(TransientError, match="Too many open files"):
            store.sync()
    syncs = Syncs(monkeypatch)
    store.sync()
    assert syncs.files == 1


def test_many_files_are_synced_with_their_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(f"{tmp_path}/bucket/", durable="fsync")
    for number in range(100):
        store.put(f"a/{number}", b"x")
    syncs = Syncs(monkeypatch)
    store.sync()
    assert (syncs.files, syncs.folders) == (0, [])


def _broken(fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _no_descriptor(*_: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _temps(folder: Path) -> list[str]:
    return [name for name in _names(folder) if ".tmp." in name]
