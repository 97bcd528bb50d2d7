"""What files hold: reads, writes, lengths, holes, modes of open."""

from __future__ import annotations

import io
import os
import random

import pytest

from fscore.domain.errors import BadHandle, Exists, Invalid, IsADir, NotADir, NotFound
from fscore.domain.geometry import CHUNK
from fscore.files.filesystem import Filesystem
from fscore.volume import Volume

BLOCK = 64 << 10


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_what_was_written_is_read(fs: Filesystem, size: int) -> None:
    content = blob(size)
    fs.write_bytes("/f", content)
    assert fs.read_bytes("/f") == content
    assert fs.stat("/f").size == size


def test_a_write_of_nothing_changes_nothing(fs: Filesystem) -> None:
    with fs.open("/f", "wb") as file:
        assert file.pwrite(1, b"") == 0
        assert file.size == 0
        file.write(b"ab")
        assert file.pwrite(9, b"") == 0
    assert fs.read_bytes("/f") == b"ab"


def test_many_small_writes_make_one_slice(any_volume: Volume) -> None:
    fs = any_volume.files
    content = blob(3 * BLOCK + 100)
    with fs.open("/f", "wb") as file:
        for start in range(0, len(content), 1000):
            assert file.write(content[start : start + 1000]) == len(content[start : start + 1000])
    assert fs.read_bytes("/f") == content
    info = fs.info("/f")
    assert (info.slices, info.objects) == (1, 4)
    assert sorted(any_volume.objects.head(ref.key).size for ref in info.chunks[0].objects) == [100, BLOCK, BLOCK, BLOCK]


def test_random_small_writes_share_a_slice(fs: Filesystem) -> None:
    expected = bytearray(blob(10 * BLOCK))
    fs.write_bytes("/f", bytes(expected))
    with fs.open("/f", "r+b") as file:
        for number in range(50):
            at = (number * 7919) % (10 * BLOCK - 100)
            file.pwrite(at, bytes([number]) * 100)
            expected[at : at + 100] = bytes([number]) * 100
    assert fs.read_bytes("/f") == expected
    assert len({record.id for record in fs.info("/f").chunks[0].records}) == 2


def test_ranges_and_ends(fs: Filesystem) -> None:
    content = blob(3 * BLOCK)
    fs.write_bytes("/f", content)
    with fs.open("/f") as file:
        assert file.pread(BLOCK - 5, 10) == content[BLOCK - 5 : BLOCK + 5]
        assert file.pread(len(content) - 3, 10) == content[-3:]
        assert file.pread(len(content), 10) == b""
        assert file.pread(len(content) + 5, 10) == b""
        buffer = bytearray(2 * BLOCK)
        assert file.pread_into(100, buffer) == 2 * BLOCK
        assert buffer == content[100 : 100 + 2 * BLOCK]
        with pytest.raises(Invalid):
            file.pread(-1, 5)


def test_position_follows_reads_and_writes(fs: Filesystem) -> None:
    with fs.open("/f", "w+b") as file:
        file.write(b"0123456789")
        assert file.tell() == 10
        assert file.seek(2) == 2
        assert file.read(3) == b"234"
        assert file.seek(-2, io.SEEK_END) == 8
        assert file.read() == b"89"
        assert file.seek(-4, io.SEEK_CUR) == 6
        file.write(b"xy")
        assert file.pread(0, 20) == b"012345xy89"
        with pytest.raises(Invalid):
            file.seek(-1)


def test_overwrites_land_where_they_belong(fs: Filesystem) -> None:
    expected = bytearray(blob(4 * BLOCK))
    fs.write_bytes("/f", bytes(expected))
    for at, part in [
        (0, b"head"),
        (BLOCK - 2, b"across"),
        (4 * BLOCK - 3, b"tail beyond"),
        (BLOCK, blob(2 * BLOCK, 2)),
    ]:
        with fs.open("/f", "r+b") as file:
            file.pwrite(at, part)
        expected[at : at + len(part)] = part
        assert fs.read_bytes("/f") == expected


def test_a_chunk_border_splits_slices(fs: Filesystem) -> None:
    with fs.open("/f", "wb") as file:
        file.seek(CHUNK - 10)
        file.write(b"0123456789ABCDEFGHIJ")
    assert fs.stat("/f").size == CHUNK + 10
    info = fs.info("/f")
    assert [(chunk.index, [record.length for record in chunk.records]) for chunk in info.chunks] == [
        (0, [10]),
        (1, [10]),
    ]
    with fs.open("/f") as file:
        assert file.pread(CHUNK - 15, 30) == bytes(5) + b"0123456789ABCDEFGHIJ"


def test_holes_read_as_zeros(fs: Filesystem) -> None:
    with fs.open("/f", "wb") as file:
        file.pwrite(3 * BLOCK, b"end")
    assert fs.read_bytes("/f") == bytes(3 * BLOCK) + b"end"


def test_truncate_shrinks_grows_and_forgets(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"x" * 5000)
    fs.truncate("/f", 100)
    assert fs.read_bytes("/f") == b"x" * 100
    with fs.open("/f", "r+b") as file:
        file.pwrite(4000, b"y")
    assert fs.read_bytes("/f") == b"x" * 100 + bytes(3900) + b"y"
    fs.truncate("/f", CHUNK + 5)
    with fs.open("/f") as file:
        assert file.pread(3999, 10) == bytes(1) + b"y" + bytes(8)
        assert file.pread(CHUNK, 100) == bytes(5)


def test_truncate_by_handle_sees_what_is_not_committed(fs: Filesystem) -> None:
    with fs.open("/f", "w+b") as file:
        file.write(b"0123456789")
        assert file.truncate(4) == 4
        assert file.read() == b""
        file.seek(0)
        assert file.read() == b"0123"
        file.pwrite(6, b"z")
        assert file.pread(0, 10) == b"0123\0\0z"


def test_wb_empties_and_xb_refuses(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"old content")
    with pytest.raises(Exists):
        fs.open("/f", "xb")
    with fs.open("/f", "wb") as file:
        assert file.size == 0
    assert fs.read_bytes("/f") == b""
    with pytest.raises(NotFound):
        fs.open("/absent", "r+b")


def test_append_goes_to_the_end(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"one,")
    with fs.open("/f", "ab") as first, fs.open("/f", "ab") as second:
        assert first.tell() == 4
        first.write(b"two,")
        second.write(b"three,")
        first.write(b"four")
    assert fs.read_bytes("/f") == b"one,two,three,four"


def test_modes_are_kept(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"x")
    with fs.open("/f", "rb") as file, pytest.raises(BadHandle):
        file.write(b"y")
    with fs.open("/f", "ab") as file, pytest.raises(BadHandle):
        file.read(1)
    for mode in ("", "q", "rw", "rr", "rbt", "b"):
        with pytest.raises(Invalid):
            fs.open("/f", mode)


def test_a_closed_file_says_so(fs: Filesystem) -> None:
    file = fs.open("/f", "wb")
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")


def test_handles_see_each_others_writes(fs: Filesystem) -> None:
    with fs.open("/f", "w+b") as one, fs.open("/f", "r+b") as two:
        one.write(b"hello world")
        assert two.read(5) == b"hello"
        two.pwrite(0, b"HELLO")
        assert one.pread(0, 11) == b"HELLO world"
        assert fs.stat("/f").size == 11
        one.pwrite(20, b"!")
        assert fs.stat("/f").size == 21
        assert next(iter(fs.scandir("/"))).size == 21


def test_flush_makes_it_durable_for_other_clients(any_volume: Volume) -> None:
    with any_volume.files.open("/f", "wb") as file:
        file.write(b"x" * 100)
        assert any_volume.files.info("/f").slices == 1
        file.write(b"y" * 100)
        file.flush()
        records = any_volume.meta.records(any_volume.files.stat("/f").ino, 0)
        assert sum(record.length for record in records) == 200


def test_text_lines(fs: Filesystem) -> None:
    with fs.open("/f", "w") as file:
        file.write("erste Zeile\nzweite ä\nno end")
    with fs.open("/f", "r") as file:
        assert file.read() == "erste Zeile\nzweite ä\nno end"
    with fs.open("/f", "rb") as raw:
        assert list(raw) == [b"erste Zeile\n", "zweite ä\n".encode(), b"no end"]
        raw.seek(0)
        assert raw.readline(3) == b"ers"
        assert raw.readline() == b"te Zeile\n"
    with fs.open("/f", "a") as file:
        file.write("\nmore")
    assert fs.read_bytes("/f").endswith(b"no end\nmore")


def test_long_lines_cross_the_line_buffer(fs: Filesystem) -> None:
    lines = [b"a" * 20_000 + b"\n", b"\n", b"b" * 16_384 + b"\n", b"c"]
    fs.write_bytes("/f", b"".join(lines))
    with fs.open("/f") as file:
        assert file.readlines() == lines


def test_python_buffers_work_on_top(fs: Filesystem) -> None:
    content = blob(3 * BLOCK)
    with io.BufferedWriter(fs.open("/f", "wb"), 4096) as file:
        for start in range(0, len(content), 777):
            file.write(content[start : start + 777])
    with io.BufferedReader(fs.open("/f", "rb"), 4096) as file:
        assert file.read() == content


def test_directories_hold_no_bytes(fs: Filesystem) -> None:
    fs.mkdir("/d")
    for mode in ("rb", "wb", "ab"):
        with pytest.raises(IsADir):
            fs.open("/d", mode)
    fs.write_bytes("/f", b"")
    for path in ("/f/x", "/f/x/y"):
        with pytest.raises(NotADir):
            fs.open(path, "wb")


def test_an_open_file_survives_its_name(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.write_bytes("/f", b"still here")
    with fs.open("/f", "r+b") as file:
        fs.unlink("/f")
        assert not fs.exists("/f")
        any_volume.collect()
        assert file.read() == b"still here"
        file.pwrite(10, b" and more")
        assert file.pread(0, 100) == b"still here and more"
    any_volume.collect()
    assert fs.listdir("/") == []


def test_deleted_bytes_leave_the_store(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.write_bytes("/f", blob(5 * BLOCK))
    fs.clone("/f", "/g")
    fs.unlink("/f")
    any_volume.collect()
    assert fs.read_bytes("/g") == blob(5 * BLOCK)
    fs.unlink("/g")
    any_volume.collect()
    assert [info.key for info in any_volume.objects.scan("chunks/")] == []


def test_buffers_of_any_kind(fs: Filesystem) -> None:
    memory = memoryview(bytearray(b"0123456789"))
    with fs.open("/f", "wb") as file:
        file.write(memory[2:5])
        file.write(bytearray(b"ab"))
        file.write(memoryview(b"wxyz").cast("I"))
    memory[:] = b"overwritte"
    assert fs.read_bytes("/f") == b"234abwxyz"


def test_what_a_caller_changes_after_the_write_is_not_stored(fs: Filesystem) -> None:
    buffer = bytearray(blob(2 * BLOCK))
    kept = bytes(buffer)
    with fs.open("/f", "wb") as file:
        file.write(buffer)
        buffer[:] = bytes(len(buffer))
    assert fs.read_bytes("/f") == kept


def test_mtime_moves_with_the_content(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"1")
    first = fs.stat("/f")
    fs.utime("/f", mtime_ns=1_600_000_000_123_456_789)
    assert fs.stat("/f").mtime_ns == 1_600_000_000_123_456_789
    fs.write_bytes("/f", b"2")
    assert fs.stat("/f").mtime_ns >= first.mtime_ns
    assert os.fsencode(fs.stat("/f").name) == b"f"
