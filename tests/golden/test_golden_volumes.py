"""Volumes that the official client made are read back whole: paths, attributes, links, xattrs, bytes, trash, totals."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest

from fscore.domain.attr import Attr, Flag, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import NoAttribute, SettingError
from fscore.domain.ids import ROOT, TRASH
from fscore.meta.engines.registry import open_engine
from fscore.meta.records import DirStat
from fscore.meta.service import MetaService
from fscore.runtime.clock import FakeClock
from fscore.volume import Volume, open_volume
from tests.kit.golden import ENCRYPTED, PARAMS, PASSPHRASE, Golden

ROOT_USER: Final = Caller.root()
KINDS: Final = {
    "file": Kind.FILE,
    "dir": Kind.DIRECTORY,
    "symlink": Kind.SYMLINK,
    "fifo": Kind.FIFO,
    "block": Kind.BLOCK,
    "char": Kind.CHAR,
    "socket": Kind.SOCKET,
}
FLAGS: Final = {"immutable": Flag.IMMUTABLE, "append": Flag.APPEND}
PART: Final = 1 << 20


@pytest.fixture(scope="module")
def service(golden: Golden) -> Iterator[MetaService]:
    """The volume's metadata, read-only."""
    opened = MetaService.open(
        open_engine(golden.url), FakeClock(), read_only=True, background=False, metadata_only=True
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def volume(golden: Golden) -> Iterator[Volume]:
    """The volume, read-only, over its unpacked objects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JFS_RSA_PASSPHRASE", PASSPHRASE)
        opened = open_volume(golden.url, read_only=True, bucket=golden.bucket, background=False)
    with opened:
        yield opened


def entries(golden: Golden) -> Iterator[dict[str, Any]]:
    """Every expected entry, those in the trash too."""
    yield from golden.expected["tree"]
    yield from golden.expected["trash"]


def path_of(entry: dict[str, Any]) -> bytes:
    """The entry's path."""
    return base64.b64decode(entry["path_b64"])


def resolve(service: MetaService, entry: dict[str, Any]) -> tuple[int, Attr]:
    """What is at the entry's path, links not followed."""
    return service.resolve(ROOT_USER, path_of(entry), follow=False)


def seen(ino: int, attr: Attr) -> dict[str, Any]:
    """What a program sees of a node, in the words of expected.json."""
    return {
        "inode": ino,
        "type": attr.kind,
        "mode": f"{attr.mode:04o}",
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.length,
        "nlink": attr.nlink,
        "mtime_ns": attr.mtime_ns,
        "ctime_ns": attr.ctime_ns,
    }


def test_every_path_has_the_attributes(golden: Golden, service: MetaService) -> None:
    for entry in entries(golden):
        ino, attr = resolve(service, entry)
        wanted = {key: entry[key] for key in seen(ino, attr)} | {"type": KINDS[entry["type"]]}
        assert seen(ino, attr) == wanted, entry["path"]


def test_special_nodes_and_flags(golden: Golden, service: MetaService) -> None:
    for entry in entries(golden):
        _, attr = resolve(service, entry)
        major, minor = entry.get("rdev", (0, 0))
        assert attr.rdev == os.makedev(major, minor), entry["path"]
        flags = sum(FLAGS[name] for name in entry.get("fs_flags", ()))
        assert attr.flags & (Flag.IMMUTABLE | Flag.APPEND) == flags, entry["path"]


def test_every_link_has_its_target(golden: Golden, service: MetaService) -> None:
    links = [entry for entry in entries(golden) if entry["type"] == "symlink"]
    assert links
    for entry in links:
        ino, _ = resolve(service, entry)
        assert service.readlink(ino) == base64.b64decode(entry["target_b64"]), entry["path"]


def test_every_xattr(golden: Golden, service: MetaService) -> None:
    for entry in entries(golden):
        ino, _ = resolve(service, entry)
        wanted = {base64.b64decode(name): base64.b64decode(value) for name, value in entry.get("xattrs", {}).items()}
        if ino == ROOT:
            wanted |= {b"lastBackup": service.getxattr(ino, b"lastBackup")} if has_backup(service) else {}
        assert {name: service.getxattr(ino, name) for name in service.listxattr(ino)} == wanted, entry["path"]


def has_backup(service: MetaService) -> bool:
    """Whether a mount left its mark of the last metadata backup at the root, which it hides from programs."""
    try:
        service.getxattr(ROOT, b"lastBackup")
    except NoAttribute:
        return False
    return True


def test_directories_list_exactly_the_tree(golden: Golden, service: MetaService) -> None:
    below: dict[bytes, set[tuple[bytes, int]]] = {}
    for entry in golden.expected["tree"]:
        path = path_of(entry)
        if entry["type"] == "dir":
            below.setdefault(path, set())
        if path != b"/":
            parent, _, name = path.rpartition(b"/")
            below.setdefault(parent or b"/", set()).add((name, entry["inode"]))
    for path, wanted in below.items():
        ino, _ = service.resolve(ROOT_USER, path)
        found = [(entry.name, entry.ino) for entry in service.readdir(ROOT_USER, ino)]
        assert len(found) == len(set(found))
        assert set(found) == wanted, path


@pytest.mark.parametrize("golden", PARAMS, indirect=True)
def test_every_byte(golden: Golden, volume: Volume) -> None:
    for entry in entries(golden):
        if entry["type"] == "file":
            assert sha256_of(volume, entry) == entry["sha256"], entry["path"]


def sha256_of(volume: Volume, entry: dict[str, Any]) -> str:
    """Digest of a file as `read` gives it."""
    ino, attr = resolve(volume.meta, entry)
    digest = hashlib.sha256()
    fh = volume.vfs.open(ROOT_USER, ino, os.O_RDONLY)
    try:
        for offset in range(0, attr.length, PART):
            digest.update(volume.vfs.read(fh, offset, PART))
        assert volume.vfs.read(fh, attr.length, 1) == b""
    finally:
        volume.vfs.release(fh)
    return digest.hexdigest()


@pytest.mark.redis
@pytest.mark.parametrize("golden", sorted(ENCRYPTED), indirect=True)
@pytest.mark.parametrize("passphrase", ["", "wrong"])
def test_encrypted_volumes_are_refused_in_one_line_without_the_passphrase(
    golden: Golden, passphrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JFS_RSA_PASSPHRASE", passphrase)
    with pytest.raises(SettingError, match="JFS_RSA_PASSPHRASE") as caught:
        open_volume(golden.url, read_only=True, bucket=golden.bucket, background=False)
    assert "\n" not in str(caught.value)


def test_totals(golden: Golden, service: MetaService) -> None:
    wanted = golden.expected["statvfs"]
    found = service.statfs()
    block = wanted["f_frsize"]
    assert found.total // block == wanted["f_blocks"]
    assert found.avail // block == wanted["f_bavail"]
    assert found.inodes_used + found.inodes_free == wanted["f_files"]
    assert found.inodes_free == wanted["f_ffree"]


def test_raw_counters_and_statistics(golden: Golden, service: MetaService) -> None:
    raw = golden.expected["raw"]
    counters = service.engine.counters()
    assert [counters["nextInode"], counters["nextChunk"]] == raw["next_ids"]
    for name in ("usedSpace", "totalInodes", "nextSession", "nextTrash"):
        assert counters[name] == raw[name], name
    stats = {str(ino): list(stat) for ino, stat in service.engine.scan_dir_stats()}
    assert stats == raw["dir_stats"]
    some = int(next(iter(raw["dir_stats"])))
    assert service.engine.dir_stat(some) == DirStat(*raw["dir_stats"][str(some)])
    assert service.engine.dir_stat(1 << 40) is None


def test_used_features(golden: Golden, service: MetaService) -> None:
    wanted: set[str] = set()
    if golden.name.endswith("features"):
        wanted |= {"acl", "dir_quota", "user_quota"}
    if golden.name == "redis-features":
        wanted.add("locks")
    assert service.engine.used_features() == wanted


def test_sessions(golden: Golden, service: MetaService) -> None:
    live = golden.expected["status"]["Sessions"] or []
    assert {session.sid for session in service.engine.sessions()} == {session["Sid"] for session in live}
    if golden.name == "redis-features":
        assert service.engine.sustained(1) == [3125]
        assert list(service.engine.scan_sustained()) == [(1, 3125)]


def test_scans_see_everything_once(golden: Golden, service: MetaService) -> None:
    tree, trash = golden.expected["tree"], golden.expected["trash"]
    wanted = {entry["inode"] for entry in tree} | {entry["inode"] for entry in trash} | {int(TRASH)}
    wanted |= {ino for _, ino in service.engine.scan_sustained()}
    assert sorted(ino for ino, _ in service.engine.scan_nodes()) == sorted(wanted)
    edges = [(parent, name) for parent, name, _ in service.engine.scan_edges()]
    assert len(edges) == len(set(edges)) == len(tree) + len(trash) - 1
