"""Messages to `.control`, byte for byte as the official commands send them, on a real volume."""

from __future__ import annotations

import errno
import json
import struct
from typing import Any

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import NotFound
from fscore.domain.ids import ROOT
from fscore.mount.commands import Commands
from fscore.mount.control import CLONE, COMPACT, INFO, INFO_TEXT, RMR, SUMMARY, SYNC, WARMUP, Control
from fscore.runtime.clock import SystemClock
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

SUPER = Caller.root()
STRANGER = Caller(uid=12345, gid=12345)


class Talk:
    """A client of the control file: sends a message, sorts the answer into progress, document and errno."""

    def __init__(self, volume: Volume) -> None:
        self.forgotten: list[tuple[int, bytes]] = []
        commands = Commands(volume.vfs, lambda parent, name: self.forgotten.append((parent, name)))
        self._control = Control(commands, SystemClock())
        self.close = self._control.close
        self.progress: list[tuple[int, int]] = []
        self.cancelled = False

    def raw(self, command: int, payload: bytes, who: Caller = SUPER) -> bytes:
        """Everything that was answered."""
        said: list[bytes] = []
        message = struct.pack(">II", command, len(payload)) + payload
        self._control(who, message, said.append, lambda: self.cancelled)
        return b"".join(said)

    def __call__(self, command: int, payload: bytes, who: Caller = SUPER) -> tuple[int, Any]:
        """(errno, document) at the end; the progress before it is remembered."""
        rest = self.raw(command, payload, who)
        while rest[:1] == b"\xfe":
            self.progress.append(struct.unpack_from(">QQ", rest, 1))
            rest = rest[17:]
        if rest[:1] == b"\xff":
            (size,) = struct.unpack_from(">I", rest, 1)
            assert len(rest) == 5 + size
            return 0, json.loads(rest[5:])
        assert len(rest) == 1
        return rest[0], None


def named(name: bytes) -> bytes:
    """A name behind its length."""
    return bytes([len(name)]) + name


@pytest.fixture
def volume(open_at: MakeVolume) -> Volume:
    """A small tree: /t with two files, a hard link, a symbolic link, and a directory with a file."""
    volume = open_at(setting={"trash_days": 1})
    files = volume.files
    files.mkdir("/t/s", parents=True)
    files.write_bytes("/t/a", b"a" * 200_000)
    files.write_bytes("/t/b", b"b" * 10)
    files.write_bytes("/t/s/c", b"c" * 5000)
    files.link("/t/a", "/t/hard")
    files.symlink("a", "/t/soft")
    return volume


@pytest.fixture
def talk(volume: Volume) -> Talk:
    return Talk(volume)


def ino(volume: Volume, path: str) -> bytes:
    """The inode of a path, be64."""
    return struct.pack(">Q", volume.files.stat(path, follow=False).ino)


def test_info_of_a_file_tells_where_its_bytes_are(volume: Volume, talk: Talk) -> None:
    code, found = talk(INFO, ino(volume, "/t/a") + bytes([0, 0, 1]))
    assert code == 0
    assert (found["Failed"], found["Reason"]) == (False, "")
    assert found["Summary"] == {"Length": 200_000, "Size": 200_704, "Files": 1, "Dirs": 0}
    assert found["Paths"] == ["/t/a", "/t/hard"]
    assert found["Tier"] == {"ID": 0, "StorageClass": "", "Tag": ""}
    sizes = [(part["ChunkIndex"], part["Size"], part["Off"], part["Len"]) for part in found["Objects"]]
    assert sizes == [(0, 65536, 0, 65536)] * 3 + [(0, 3392, 0, 3392)]
    keys = [part["Key"].removeprefix(f"{volume.name}/") for part in found["Objects"]]
    assert all(volume.objects.head(key).size for key in keys)
    code, raw = talk(INFO, ino(volume, "/t/a") + bytes([0, 1, 1]))
    assert [(part["Size"], part["Off"], part["Len"]) for part in raw["Chunks"]] == [(200_000, 0, 200_000)]
    assert raw["Objects"] is None


def test_info_of_a_sparse_file_shows_the_hole(volume: Volume, talk: Talk) -> None:
    with volume.files.open("/sparse", "wb") as file:
        file.seek(1000)
        file.write(b"x")
    _, found = talk(INFO, ino(volume, "/sparse"))
    assert [(part["Key"] == "", part["Len"]) for part in found["Objects"]] == [(True, 1000), (False, 1)]


def test_info_of_a_directory_counts_all_or_only_what_lies_in_it(volume: Volume, talk: Talk) -> None:
    _, below = talk(INFO, ino(volume, "/t") + bytes([1]))
    assert (below["Summary"]["Files"], below["Summary"]["Dirs"]) == (5, 2)
    assert below["Summary"]["Length"] == 200_000 * 2 + 10 + 5000
    _, direct = talk(INFO, ino(volume, "/t") + bytes([0]))
    assert (direct["Summary"]["Files"], direct["Summary"]["Dirs"]) == (4, 2)
    _, older = talk(INFO, ino(volume, "/t"))
    assert older == below, "a client that sends less means all"


def test_info_of_nothing_says_why(talk: Talk) -> None:
    code, found = talk(INFO, struct.pack(">Q", 999_999))
    assert (code, found["Failed"]) == (0, True)
    assert "no such file" in found["Reason"]


def test_the_text_for_old_clients(volume: Volume, talk: Talk) -> None:
    answer = talk.raw(INFO_TEXT, ino(volume, "/t/b") + bytes([0, 0]))
    (size,) = struct.unpack_from(">I", answer)
    text = answer[4:].decode()
    assert len(answer) == 4 + size
    assert "  files: 1\n" in text
    assert "   path: /t/b\n" in text
    assert text.endswith("_0_10\t10\t0\t10\n")


def test_summary_sorts_by_size_and_joins_the_rest(volume: Volume, talk: Talk) -> None:
    code, found = talk(SUMMARY, ino(volume, "/t") + bytes([2, 2, 1]))
    tree = found["Tree"]
    assert (code, found["Errno"]) == (0, 0)
    assert (tree["Files"], tree["Dirs"], tree["Path"]) == (5, 2, "")
    assert tree["Size"] == 2 * 200_704 + 4096 + 8192 + 4096 + 4096 + 4096
    assert [child["Path"] for child in tree["Children"]] == ["a", "hard", "..."]
    assert (tree["Children"][2]["Files"], tree["Children"][2]["Dirs"]) == (3, 1)
    _, deeper = talk(SUMMARY, ino(volume, "/t") + bytes([2, 9, 1]))
    (inner,) = [child for child in deeper["Tree"]["Children"] if child["Path"] == "s"]
    assert [child["Path"] for child in inner["Children"]] == ["s/c"]
    _, none = talk(SUMMARY, ino(volume, "/t") + bytes([0, 9, 1]))
    assert (none["Tree"]["Files"], none["Tree"]["Size"], "Children" in none["Tree"]) == (5, tree["Size"], False)


def test_rmr_empties_a_tree_into_the_trash(volume: Volume, talk: Talk) -> None:
    message = struct.pack(">Q", ROOT) + named(b"t") + bytes([0, 3])
    assert talk(RMR, message) == (0, None)
    assert not volume.files.exists("/t")
    assert talk.progress[-1] == (7, 0)
    assert talk.forgotten == [(ROOT, b"t")]
    assert len(volume.files.listdir("/.trash")) == 1
    assert_sound(volume)


def test_rmr_past_the_trash_is_roots(volume: Volume, talk: Talk) -> None:
    volume.files.chmod("/t", 0o777)
    message = ino(volume, "/t") + named(b"b") + bytes([1])
    assert talk(RMR, message, STRANGER) == (errno.EPERM, None)
    assert volume.files.exists("/t/b")
    assert talk(RMR, message) == (0, None)
    assert volume.files.listdir("/.trash") == []


def test_rmr_needs_the_permissions_of_who_asks(volume: Volume, talk: Talk) -> None:
    message = struct.pack(">Q", ROOT) + named(b"t")
    assert talk(RMR, message, STRANGER) == (errno.EACCES, None)
    assert volume.files.exists("/t/a")
    assert talk(RMR, struct.pack(">Q", ROOT) + named(b"none")) == (errno.ENOENT, None)


def test_rmr_of_a_tree_deeper_than_the_stack(volume: Volume, talk: Talk) -> None:
    parent = volume.files.stat("/t/s").ino
    for _ in range(1500):
        parent, _attr = volume.meta.mkdir(SUPER, parent, b"d", 0o755)
    _, found = talk(INFO, struct.pack(">Q", parent))
    assert found["Paths"] == ["/t/s" + "/d" * 1500]
    assert talk(RMR, struct.pack(">Q", ROOT) + named(b"t") + bytes([1])) == (0, None)
    assert_sound(volume)


def test_clone_shares_and_minds_the_umask(volume: Volume, talk: Talk) -> None:
    before = volume.metrics.get("objects.put.bytes")
    top = ino(volume, "/t")
    message = top + struct.pack(">QQ", ROOT, ROOT) + named(b"twin") + struct.pack(">HBB", 0o027, 0, 4)
    assert talk(CLONE, message) == (0, None)
    assert volume.files.read_bytes("/twin/a") == b"a" * 200_000
    assert volume.metrics.get("objects.put.bytes") == before
    assert talk(CLONE, message) == (errno.EEXIST, None)
    assert_sound(volume)


def test_clone_takes_what_is_written_and_not_committed(volume: Volume, talk: Talk) -> None:
    with volume.files.open("/t/b", "r+b") as file:
        file.write(b"BB")
        message = ino(volume, "/t/b") + struct.pack(">QQ", ROOT, ROOT) + named(b"twin") + struct.pack(">HB", 0o022, 2)
        assert talk(CLONE, message) == (0, None)
        assert volume.files.read_bytes("/twin") == b"BB" + b"b" * 8


def warmup(paths: bytes, action: int, background: int = 0) -> bytes:
    """The payload of a warm-up, an eviction or a check."""
    return struct.pack(">I", len(paths)) + paths + struct.pack(">HBB", 50, background, action)


def test_warm_and_check(volume: Volume, talk: Talk) -> None:
    total = 200_000 * 2 + 10 + 5000
    _, report = talk(WARMUP, warmup(b"/t", 0))
    assert (report["FileCount"], report["TotalBytes"], report["MissBytes"]) == (4, total, 0)
    assert talk.progress[-1] == (4, total)
    _, checked = talk(WARMUP, warmup(b"/t", 2))
    assert checked["Locations"] == {"fscore": total}
    _, by_inode = talk(WARMUP, warmup(b"inode:%d\n/t/s/" % volume.files.stat("/t/b").ino, 0))
    assert by_inode["FileCount"] == 2
    assert talk(WARMUP, warmup(b"/none", 0)) == (errno.ENOENT, None)
    assert talk(WARMUP, warmup(b"/t", 9)) == (errno.EINVAL, None)


def test_evicted_blocks_are_gone_from_the_cache(volume: Volume, talk: Talk) -> None:
    talk(WARMUP, warmup(b"/t", 0))
    talk(WARMUP, warmup(b"/t", 1))
    _, report = talk(WARMUP, warmup(b"/t", 2))
    assert report["MissBytes"] == report["TotalBytes"] > 0
    assert report["Locations"] == {}


def test_the_background_stops_with_the_mount(volume: Volume, talk: Talk) -> None:
    volume.files.write_bytes("/t/large", bytes(100 * volume.blocks.block_size))
    talk.close()
    assert talk(WARMUP, warmup(b"/t/large", 0, background=1)) == (errno.EINTR, None)
    _, report = talk(WARMUP, warmup(b"/t/large", 2))
    assert report["MissBytes"] > 0, "not even within one file does it go on to the end"
    assert talk(WARMUP, warmup(b"/t", 2))[0] == 0, "whoever waits for an answer is told by their own handle"


def test_background_goes_on_without_a_listener(volume: Volume, talk: Talk) -> None:
    talk(WARMUP, warmup(b"/t", 1))
    talk.cancelled = True
    assert talk(WARMUP, warmup(b"/t", 0)) == (errno.EINTR, None)
    _, report = talk(WARMUP, warmup(b"/t", 0, background=1))
    assert report["FileCount"] == 4


def test_compact_joins_what_lies_in_pieces(volume: Volume, talk: Talk) -> None:
    with volume.files.open("/t/pieces", "wb") as file:
        for number in range(20):
            file.write(bytes([number]) * 1000)
            file.flush()
            volume.sync()
    found = volume.files.stat("/t/pieces").ino
    assert len(volume.meta.records(found, 0)) == 20
    assert talk(COMPACT, ino(volume, "/t") + struct.pack(">H", 10)) == (0, None)
    assert len(volume.meta.records(found, 0)) == 1
    assert volume.files.read_bytes("/t/pieces") == b"".join(bytes([number]) * 1000 for number in range(20))


def test_sync_commits(volume: Volume, talk: Talk) -> None:
    with volume.files.open("/fresh", "wb") as file:
        file.write(b"x" * 10)
        file.flush()
        assert talk(SYNC, b"") == (0, None)
        assert volume.meta.getattr(volume.files.stat("/fresh").ino, fresh=True).length == 10


def test_what_nobody_knows_and_what_is_cut_short(talk: Talk) -> None:
    assert talk(4711, b"") == (errno.EINVAL, None)
    assert talk(RMR, b"abc") == (errno.EINVAL, None)
    assert talk(SUMMARY, b"") == (errno.EINVAL, None)
    _, none = talk(SUMMARY, struct.pack(">Q", 999_999))
    assert none["Errno"] == NotFound.code
