"""Quotas, the setting and the trash from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import NoSpace, OverQuota
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.meta.ops.change import AttrChange
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from fscore.volume import open_volume
from tests.kit.command import Fscore

GIB = 1 << 30


@pytest.fixture
def trashy(fscore: Fscore, tmp_path: Path) -> str:
    """A volume with a trash."""
    url = f"sqlite3://{tmp_path / 'trashy.db'}"
    fscore("format", url, "trashy", "--bucket", tmp_path / "blocks").ok()
    return url


def test_a_directory_s_quota_from_set_to_delete(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 5000)
    fscore("mkdir", cli_volume, "/team").ok()
    fscore("cp", cli_volume, tmp_path / "f", ":/team/f").ok()
    line = fscore.json("quota", "set", cli_volume, "--path", "/team", "--capacity", "1", "--inodes", "2")
    assert line == {"subject": "/team", "capacity": GIB, "used": 8192, "inodes": 2, "used_inodes": 1}
    fscore("cp", cli_volume, tmp_path / "f", ":/team/g").ok()
    assert "quota exceeded" in fscore.refused(1, "cp", cli_volume, tmp_path / "f", ":/team/h")
    assert fscore.json("quota", "list", cli_volume) == [line | {"used": 16384, "used_inodes": 2}]
    shown = fscore("quota", "get", cli_volume, "--path", ":/team").ok().out.splitlines()
    assert shown[0].split() == ["Path/ID", "Size", "Used", "Use%", "Inodes", "IUsed", "IUse%"]
    assert shown[1].split() == ["/team", "1.0", "GiB", "16.0", "KiB", "0.0", "%", "2", "2", "100.0", "%"]
    assert fscore("quota", "check", cli_volume).ok().out == "1 quotas are consistent\n"
    fscore("quota", "delete", cli_volume, "--path", "/team").ok()
    assert fscore("quota", "list", cli_volume).ok().out == "no quota is set\n"
    assert "no quota is set" in fscore.refused(1, "quota", "get", cli_volume, "--path", "/team")


def test_users_and_groups(fscore: Fscore, cli_volume: str) -> None:
    fscore("quota", "set", cli_volume, "--uid", "1000", "--inodes", "1").ok()
    fscore("quota", "set", cli_volume, "--gid", "7", "--capacity", "8K").ok()
    with open_volume(cli_volume) as volume:
        volume.files.mkdir("/d")
        volume.files.chmod("/d", 0o777)
        files = volume.as_caller(Caller(uid=1000, gid=7))
        files.write_bytes("/d/a", b"")
        with pytest.raises(OverQuota):
            files.write_bytes("/d/b", b"")
        with pytest.raises(OverQuota):
            files.write_bytes("/d/a", b"x" * 9000)
    found = {line["subject"]: line["used_inodes"] for line in fscore.json("quota", "list", cli_volume)}
    assert found == {"uid:1000": 1, "gid:7": 1}
    assert len(fscore.json("quota", "list", cli_volume, "--uid", "1000")) == 1
    fscore("quota", "delete", cli_volume, "--uid", "1000").ok()
    assert [line["subject"] for line in fscore.json("quota", "list", cli_volume)] == ["gid:7"]


def test_a_check_that_finds_something_fails_until_it_is_repaired(fscore: Fscore, cli_volume: str) -> None:
    fscore("quota", "set", cli_volume, "--path", "/new/one", "--inodes", "5", "--create").ok()
    with open_volume(cli_volume, background=False) as volume:
        (key,) = volume.meta.quotas()

        def spoil(txn: MetaTxn) -> None:
            assert txn.quotas([key])
            txn.add_quota(key, 4096, 1)

        volume.meta.engine.transact(spoil)
    done = fscore("quota", "check", cli_volume, "--path", "/new/one")
    assert done.code == 1
    assert done.out == "/new/one: recorded 4096 bytes and 1 inodes, counted 0 and 0\n"
    fscore("quota", "check", cli_volume, "--path", "/new/one", "--repair").ok()
    fscore("quota", "check", cli_volume, "--path", "/new/one").ok()


def test_a_record_that_outlived_its_directory_can_be_deleted(fscore: Fscore, cli_volume: str) -> None:
    """The official client makes some (volume-format.md 2.10)."""
    with open_volume(cli_volume, background=False) as volume:
        key = QuotaKey(QuotaKind.DIRECTORY, 4711)
        volume.meta.engine.transact(lambda txn: txn.put_quota(key, Quota(max_inodes=5)))
    (line,) = fscore.json("quota", "list", cli_volume)
    assert line["subject"] == "inode:4711"
    fscore("quota", "delete", cli_volume, "--path", "inode:4711").ok()
    assert fscore.json("quota", "list", cli_volume) == []
    assert "no such file" in fscore.refused(1, "quota", "delete", cli_volume, "--path", "/4711")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "--path", "/"), "--capacity, --inodes or both"),
        (("set", "--inodes", "1"), "--path, --uid or --gid"),
        (("get", "--uid", "1", "--gid", "1"), "one of --path, --uid and --gid"),
        (("set", "--uid", "0", "--inodes", "1"), "uid 0 has no quota"),
        (("set", "--gid", str(1 << 32), "--inodes", "1"), "no user or group"),
        (("set", "--path", "/", "--capacity", "lots"), "is no size"),
    ],
)
def test_quotas_that_make_no_sense(fscore: Fscore, cli_volume: str, arguments: tuple[str, ...], said: str) -> None:
    assert said in fscore.refused(2, "quota", arguments[0], cli_volume, *arguments[1:])


def test_the_setting_is_shown_and_changed(fscore: Fscore, cli_volume: str) -> None:
    before = fscore.json("config", cli_volume)
    assert (before["TrashDays"], before["DirStats"]) == (0, True)
    changed = fscore.json("config", cli_volume, "--trash-days", "7", "--capacity", "2T", "--upload-limit", "100")
    assert changed["changed"] == {"Capacity": [None, 2 << 40], "TrashDays": [0, 7], "UploadLimit": [None, 100]}
    assert fscore.json("config", cli_volume) == before | {"TrashDays": 7, "Capacity": 2 << 40, "UploadLimit": 100}
    assert fscore("config", cli_volume, "--trash-days", "7").ok().out == "nothing changed\n"
    with open_volume(cli_volume) as volume:
        volume.files.write_bytes("/f", b"x")
        volume.files.unlink("/f")
        assert len(volume.files.listdir("/.trash")) == 1


def test_another_bucket_must_hold_the_objects(
    fscore: Fscore, cli_volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_volume(cli_volume) as volume:
        volume.files.write_bytes("/f", b"x")
    monkeypatch.chdir(tmp_path)
    before = fscore.json("config", cli_volume)["Bucket"]
    assert "holds no objects" in fscore.refused(2, "config", cli_volume, "--bucket", "./other")
    assert fscore.json("config", cli_volume)["Bucket"] == before
    Path(before).rename(tmp_path / "other")
    said = fscore.refused(2, "config", cli_volume, "--bucket", "./other")
    assert "must be there" in said
    assert "holds no objects" not in said
    fscore("config", cli_volume, "--bucket", "./other", "--yes").ok()
    assert fscore.json("config", cli_volume)["Bucket"] == f"{tmp_path}/other/"
    assert fscore("cat", cli_volume, "/f").out == "x"
    uuid = next((tmp_path / "other").glob("*/juicefs_uuid"))
    uuid.write_text("somebody else's")
    assert "another volume" in fscore.refused(2, "config", cli_volume, "--access-key", "key")


def test_keys_of_a_newer_release_stay(fscore: Fscore, cli_volume: str) -> None:
    with open_volume(cli_volume, background=False) as volume:
        engine = volume.meta.engine
        engine.store_setting((engine.load_setting() or b"").replace(b"{", b'{\n"Partitions2": {"a": 1},', 1))
    assert "newer release" in fscore.refused(2, "mkdir", cli_volume, "/d"), "this client must not touch the tree"
    fscore("config", cli_volume, "--inodes", "5").ok()
    setting = fscore.json("config", cli_volume)
    assert (setting["Inodes"], setting["Partitions2"]) == (5, {"a": 1})
    assert "Partitions2" in fscore.refused(2, "config", cli_volume, "--trash-days", "3")


def test_tiers_of_storage(fscore: Fscore, cli_volume: str) -> None:
    assert "older than 1.4" in fscore.refused(2, "config", cli_volume, "--tier", "2", "--storage-class", "COLD")
    fscore("config", cli_volume, "--tier", "2", "--storage-class", "COLD", "--tag", "team=ml", "--yes").ok()
    fscore("config", cli_volume, "--storage-class", "WARM").ok()
    setting = fscore.json("config", cli_volume)
    assert setting["MinClientVersion"] == "1.4.0-A"
    assert setting["Tiers"] == {
        "0": {"ID": 0, "StorageClass": "WARM", "Tag": ""},
        "2": {"ID": 2, "StorageClass": "COLD", "Tag": "team=ml"},
    }
    assert "key=value" in fscore.refused(2, "config", cli_volume, "--tag", "nonsense")
    with open_volume(cli_volume) as volume:
        volume.files.mkdir("/cold")
        ino = volume.files.stat("/cold").ino
        volume.meta.setattr(Caller.root(), ino, AttrChange(tier=2))
        volume.files.write_bytes("/cold/f", b"x" * 5000)
        volume.files.clone("/cold", "/copy")
        volume.files.rename("/cold/f", "/f")
        assert [volume.files.stat(path).attr.tier for path in ("/f", "/copy", "/copy/f")] == [2, 2, 2]
        assert volume.files.read_bytes("/f") == b"x" * 5000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--enable-acl",), "cannot be turned off again"),
        (("--min-client-version", "9.0.0"), "could not open the volume any more"),
        (("--max-client-version", "1.0.0"), "could not open the volume any more"),
        (("--capacity", "1K"), "4096 bytes are used"),
    ],
)
def test_what_would_surprise_somebody_needs_a_yes(
    fscore: Fscore, cli_volume: str, arguments: tuple[str, ...], said: str
) -> None:
    fscore("mkdir", cli_volume, "/d").ok()
    before = fscore.json("config", cli_volume)
    told = fscore.refused(2, "config", cli_volume, *arguments)
    assert said in told
    assert "--yes" in told
    assert fscore.json("config", cli_volume) == before
    fscore("config", cli_volume, *arguments, "--yes").ok()
    assert (fscore("config", cli_volume, "--json").out == json.dumps(before, indent=2) + "\n") is False


def test_a_live_client_follows_a_changed_rate(fscore: Fscore, cli_volume: str) -> None:
    clock = FakeClock()
    with open_volume(cli_volume, background=False, clock=clock) as volume:
        data = bytes(range(256)) * 40_000

        def took_s() -> float:
            start = clock.monotonic()
            volume.files.write_bytes("/f", data)
            return clock.monotonic() - start

        assert took_s() < 0.1
        fscore("config", cli_volume, "--upload-limit", "8").ok()
        volume.meta.beat()
        assert 9 < took_s() < 11, "10 MB at 1 MB/s"
        fscore("config", cli_volume, "--upload-limit", "0").ok()
        volume.meta.beat()
        assert took_s() < 0.1


def test_a_live_client_follows_a_changed_limit(fscore: Fscore, cli_volume: str) -> None:
    with open_volume(cli_volume, background=False) as volume:
        volume.files.write_bytes("/a", b"x")
        fscore("config", cli_volume, "--inodes", "1").ok()
        volume.files.write_bytes("/b", b"x")
        volume.meta.beat()
        with pytest.raises(NoSpace):
            volume.files.write_bytes("/c", b"x")
        fscore("config", cli_volume, "--inodes", "0").ok()
        volume.meta.beat()
        volume.files.write_bytes("/c", b"x")
        fscore("quota", "set", cli_volume, "--path", "/", "--inodes", "3").ok()
        volume.meta.beat()
        with pytest.raises(OverQuota):
            volume.files.write_bytes("/d", b"x")


def test_what_was_removed_comes_back_with_its_tree(fscore: Fscore, trashy: str) -> None:
    with open_volume(trashy) as volume:
        files = volume.files
        files.mkdir("/a/b/c", parents=True)
        files.write_bytes("/a/b/c/deep", b"deep")
        files.write_bytes("/a/top", b"top")
        files.write_bytes("/taken", b"old")
        files.rmtree("/a")
        files.unlink("/taken")
        files.write_bytes("/taken", b"new")
    (hour,) = fscore.json("trash", "list", trashy)
    assert hour["entries"] == 6
    would = fscore("restore", trashy, hour["hour"], "--json")
    assert would.code == 1
    planned = json.loads(would.out)
    assert sorted(planned["restored"]) == ["/a", "/a/b", "/a/b/c", "/a/b/c/deep", "/a/top"]
    assert planned["conflicts"] == ["/taken"]
    with open_volume(trashy) as volume:
        assert volume.files.listdir("/") == ["taken"], "nothing was done"
    done = json.loads(fscore("restore", trashy, hour["hour"], "--put-back", "--json").out)
    assert done == planned
    with open_volume(trashy) as volume:
        assert volume.files.read_bytes("/a/b/c/deep") == b"deep"
        assert volume.files.read_bytes("/a/top") == b"top"
        assert volume.files.read_bytes("/taken") == b"new"
    assert fscore.json("trash", "list", trashy)[0]["entries"] == 1
    assert fscore("fsck", trashy).ok().out.startswith("sound")


def test_of_one_name_removed_twice_the_youngest_comes_back(fscore: Fscore, trashy: str) -> None:
    with open_volume(trashy) as volume:
        files = volume.files
        files.write_bytes("/a", b"oldest")
        files.rename("/a", "/moved")
        for content in (b"middle", b"young"):
            files.write_bytes("/a", content)
            files.unlink("/a")
        files.rename("/moved", "/a")
        files.unlink("/a")  # the oldest inode, removed last
        files.mkdir("/d")
        files.write_bytes("/d/f", b"in the first")
        files.rmtree("/d")
        files.write_bytes("/d", b"no directory")
        files.unlink("/d")
    (hour,) = fscore.json("trash", "list", trashy)
    planned = json.loads(fscore("restore", trashy, hour["hour"], "--json").out)
    assert sorted(planned["restored"]) == ["/a", "/d"]
    assert sorted(planned["conflicts"]) == ["/a", "/a", "/d"]
    assert len(planned["lost"]) == 1
    assert json.loads(fscore("restore", trashy, hour["hour"], "--put-back", "--json").out) == planned
    with open_volume(trashy) as volume:
        assert volume.files.read_bytes("/a") == b"oldest"
        assert volume.files.read_bytes("/d") == b"no directory"
    assert "sound: " in fscore("fsck", trashy).ok().out


def test_the_trash_is_emptied_when_one_is_sure(fscore: Fscore, trashy: str, tmp_path: Path) -> None:
    with open_volume(trashy) as volume:
        volume.files.write_bytes("/f", b"x" * 100_000)
        volume.files.unlink("/f")
        (hour,) = fscore.json("trash", "list", trashy)
        assert "--yes" in fscore.refused(2, "trash", "empty", trashy)
        assert "has no hour 1999-01-01-00" in fscore.refused(2, "trash", "empty", trashy, "1999-01-01-00", "--yes")
        assert fscore.json("trash", "empty", trashy, hour["hour"], "--yes") == {"deleted": 1}
        volume.files.write_bytes("/g", b"x")
        volume.files.unlink("/g")  # into the hour that this client knows
    assert [hour["entries"] for hour in fscore.json("trash", "list", trashy)] == [1]
    fscore("trash", "empty", trashy, "--yes").ok()
    assert fscore("fsck", trashy).ok().out.startswith("sound")
    assert not [path for path in (tmp_path / "blocks").rglob("chunks/**/*") if path.is_file()]
