"""status, summary and info tell what is there, and no secret."""

from __future__ import annotations

import json

from fscore.admin.info import info
from fscore.admin.status import status
from fscore.admin.summary import summary
from tests.kit.volumes import MakeVolume


def test_status(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"secret_key": "open sesame", "access_key": "me", "trash_days": 1})
    volume.files.write_bytes("/f", b"x" * 5000)
    volume.files.write_bytes("/gone", b"")
    volume.files.unlink("/gone")
    volume.sync()
    document = status(volume)
    text = json.dumps(document)
    assert "open sesame" not in text
    assert volume.setting.secret_key not in text
    assert document["Setting"]["SecretKey"] == "removed"
    assert document["Setting"]["Name"] == "test-volume"
    session = document["Sessions"][0]
    assert (session["Sid"], session["ProcessID"] > 0) == (volume.meta.sid, True)
    assert session["Version"].startswith("1.4.1+fscore")
    statistic = document["Statistic"]
    assert (statistic["UsedSpace"], statistic["UsedInodes"]) == (8192 + 4096 + 4096, 3)
    assert statistic["TrashFileCount"] == 1


def test_summary(make_volume: MakeVolume) -> None:
    volume = make_volume()
    fs = volume.files
    fs.mkdir("/a/b", parents=True)
    fs.write_bytes("/a/big", b"x" * 10_000)
    fs.write_bytes("/a/b/small", b"x" * 10)
    fs.symlink("big", "/a/link")
    total = summary(volume, "/a", depth=2, top=2)
    assert (total.size, total.space, total.files, total.dirs) == (10_010, 12288 + 4096 * 4, 3, 2)
    assert [child.path for child in total.children] == ["/a/big", "/a/b"]
    assert [child.path for child in total.children[1].children] == ["/a/b/small"]
    assert summary(volume, "/a").children == []
    counted = volume.meta.summary(fs.who, fs.stat("/a").ino)
    assert (counted.length, counted.space, counted.files, counted.dirs) == (10_010, total.space, 3, 2)


def test_info(make_volume: MakeVolume) -> None:
    volume = make_volume()
    volume.files.write_bytes("/f", b"x" * 70_000)
    document = info(volume, "/f")
    json.dumps(document)
    assert document["attr"]["kind"] == "file"
    assert document["chunks"][0]["records"] == [{"pos": 0, "id": 1, "size": 70_000, "off": 0, "length": 70_000}]
    keys = [ref["key"] for ref in document["chunks"][0]["objects"]]
    assert keys == ["test-volume/chunks/0/0/1_0_65536", "test-volume/chunks/0/0/1_1_4464"]
