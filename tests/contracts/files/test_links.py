"""Link counts as programs see them: names in the trash are not counted (decision 012)."""

from __future__ import annotations

import os

from fscore.domain.ids import ROOT
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound


def links(volume: Volume, path: str) -> int:
    """The link count that a program sees."""
    return volume.files.stat(path).attr.nlink


def test_names_in_the_trash_are_not_counted(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"trash_days": 1})
    files = volume.files
    files.write_bytes("/a", b"content")
    files.mkdir("/d")
    files.link("/a", "/b")
    files.link("/a", "/d/c")
    assert [links(volume, path) for path in ("/a", "/b", "/d/c")] == [3, 3, 3]
    files.unlink("/a")
    assert [links(volume, path) for path in ("/b", "/d/c")] == [2, 2]
    ino = files.stat("/b").ino
    assert volume.meta.getattr(ino, fresh=True).nlink == 3, "the volume counts as the official client does"
    files.rename("/d/c", "/b2")
    assert [links(volume, path) for path in ("/b", "/b2")] == [2, 2]
    files.unlink("/b")
    assert links(volume, "/b2") == 1
    other = make_volume(setting={"trash_days": 1})
    assert links(other, "/b2") == 1, "another client counts alike"
    assert {entry.path: entry.attr.nlink for entry in other.files.scandir("/")}["/b2"] == 1
    files.unlink("/b2")
    assert volume.meta.shown(ino, volume.meta.getattr(ino)).nlink == 0


def test_a_deleted_file_that_is_open_has_no_link(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"trash_days": 1})
    volume.files.write_bytes("/f", b"content")
    with volume.files.open("/f", "rb") as file:
        ino = volume.files.stat("/f").ino
        volume.files.unlink("/f")
        assert volume.vfs.getattr(ino).nlink == 0
        assert file.read() == b"content"
    (hour,) = volume.files.listdir("/.trash")
    (name,) = volume.files.listdir(f"/.trash/{hour}")
    volume.meta.restore(volume.files.who, volume.files.stat(f"/.trash/{hour}").ino, os.fsencode(name))
    assert links(volume, "/f") == 1
    assert_sound(volume)


def test_many_links_in_one_listing(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"trash_days": 1})
    for number in range(5):
        volume.files.write_bytes(f"/{number}", b"x")
        volume.files.link(f"/{number}", f"/{number}-again")
    for number in range(3):
        volume.files.unlink(f"/{number}")
    meta = make_volume(setting={"trash_days": 1}).meta
    entries = [entry for batch, _ in meta.scan(volume.files.who, ROOT) for entry in batch]
    attrs = meta.nodes([entry.ino for entry in entries])
    seen = {entry.name: attr.nlink for entry, attr in zip(entries, attrs, strict=True) if attr}
    assert seen == {
        b"3": 2, b"3-again": 2, b"4": 2, b"4-again": 2, b"0-again": 1, b"1-again": 1, b"2-again": 1
    }  # fmt: skip
    for entry in entries:
        meta.getattr(entry.ino)
        assert meta.cached_node(entry.ino) is not None, "its links are known by now: nobody has to wait"
