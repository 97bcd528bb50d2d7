"""Names: directories, renames, links, walks, attributes, permissions, the trash."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import (
    Denied,
    Exists,
    FsError,
    Invalid,
    IsADir,
    NoAttribute,
    NotADir,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooLong,
    TooManyLinks,
)
from fscore.files.filesystem import Filesystem
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound


def test_directories_come_and_go(fs: Filesystem) -> None:
    fs.mkdir("/a")
    with pytest.raises(Exists):
        fs.mkdir("/a")
    fs.mkdir("/a", exist_ok=True)
    with pytest.raises(NotFound):
        fs.mkdir("/x/y/z")
    fs.mkdir("/x/y/z", parents=True)
    fs.mkdir("/x/y/z", parents=True, exist_ok=True)
    fs.write_bytes("/x/f", b"")
    with pytest.raises(Exists):
        fs.mkdir("/x/f", exist_ok=True)
    with pytest.raises(NotADir):
        fs.mkdir("/x/f/g", parents=True)
    with pytest.raises(NotEmpty):
        fs.rmdir("/x")
    fs.rmdir("/x/y/z")
    assert fs.listdir("/x") == ["f", "y"]
    with pytest.raises(NotFound):
        fs.rmdir("/nothing")
    with pytest.raises(NotADir):
        fs.rmdir("/x/f")
    with pytest.raises((NotPermitted, IsADir)):
        fs.unlink("/x/y")


def test_the_root_is_no_name(fs: Filesystem) -> None:
    fs.mkdir("/", exist_ok=True)
    refused: list[Callable[[], object]] = [
        lambda: fs.rmdir("/"),
        lambda: fs.unlink("/"),
        lambda: fs.rename("/", "/a"),
    ]
    for attempt in refused:
        with pytest.raises(Invalid):
            attempt()
    with pytest.raises(Exists):
        fs.mkdir("/")
    assert fs.stat("/").is_dir


def test_errors_name_the_path(fs: Filesystem) -> None:
    with pytest.raises(NotFound) as caught:
        fs.stat("/a/b/c")
    assert caught.value.filename == "/a/b/c"
    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(NotFound) as caught:
        fs.unlink("missing")
    assert caught.value.filename == "/missing"
    fs.write_bytes("/f", b"")
    with pytest.raises(Exists) as exists:
        fs.open("/f", "xb")
    assert exists.value.filename == "/f"
    assert isinstance(exists.value, FileExistsError)


def test_rename_moves_and_replaces(fs: Filesystem) -> None:
    fs.mkdir("/a")
    fs.mkdir("/b")
    fs.write_bytes("/a/f", b"one")
    fs.write_bytes("/b/g", b"two")
    fs.rename("/a/f", "/b/f")
    assert fs.listdir("/a") == []
    fs.rename("/b/f", "/b/g")
    assert fs.read_bytes("/b/g") == b"one"
    assert fs.listdir("/b") == ["g"]
    with pytest.raises(NotFound):
        fs.rename("/a/f", "/a/x")
    fs.rename("/a", "/b/c")
    assert fs.listdir("/b") == ["c", "g"]
    with pytest.raises(FsError):
        fs.rename("/b", "/b/c/d")


def test_rename_that_must_not_replace(fs: Filesystem) -> None:
    fs.write_bytes("/a", b"a")
    fs.write_bytes("/b", b"b")
    with pytest.raises(Exists) as caught:
        fs.rename("/a", "/b", replace=False)
    assert caught.value.filename == "/b"
    assert fs.read_bytes("/b") == b"b"
    fs.rename("/a", "/c", replace=False)
    assert fs.listdir("/") == ["b", "c"]


def test_exchange(fs: Filesystem) -> None:
    fs.mkdir("/d")
    fs.write_bytes("/d/x", b"x")
    fs.write_bytes("/f", b"f")
    fs.rename("/d", "/f", exchange=True)
    assert fs.read_bytes("/f/x") == b"x"
    assert fs.read_bytes("/d") == b"f"
    with pytest.raises(NotFound):
        fs.rename("/d", "/absent", exchange=True)


def test_directories_replace_only_empty_ones(fs: Filesystem) -> None:
    fs.mkdir("/a")
    fs.mkdir("/b/c", parents=True)
    with pytest.raises(NotEmpty):
        fs.rename("/a", "/b")
    fs.rename("/b", "/a")
    assert fs.listdir("/") == ["a"]
    fs.write_bytes("/f", b"")
    with pytest.raises(IsADir):
        fs.rename("/f", "/a")
    with pytest.raises(NotADir):
        fs.rename("/a", "/f")


def test_hard_links_share_one_node(fs: Filesystem) -> None:
    fs.mkdir("/d")
    fs.write_bytes("/f", b"shared")
    fs.link("/f", "/d/g")
    assert fs.stat("/f").ino == fs.stat("/d/g").ino
    assert fs.stat("/f").attr.nlink == 2
    with fs.open("/d/g", "r+b") as file:
        file.write(b"SHARED")
    assert fs.read_bytes("/f") == b"SHARED"
    fs.unlink("/f")
    assert fs.stat("/d/g").attr.nlink == 1
    with pytest.raises(NotPermitted):
        fs.link("/d", "/e")
    with pytest.raises(Exists):
        fs.link("/d/g", "/d")


def test_symlinks_are_followed(fs: Filesystem) -> None:
    fs.mkdir("/a/b", parents=True)
    fs.write_bytes("/a/b/f", b"found")
    fs.symlink("/a/b", "/abs")
    fs.symlink("b/f", "/a/rel")
    assert fs.read_bytes("/abs/f") == b"found"
    assert fs.read_bytes("/a/rel") == b"found"
    assert fs.stat("/a/rel").is_file
    assert fs.stat("/a/rel", follow=False).is_symlink
    assert fs.readlink("/a/rel") == "b/f"
    with pytest.raises(Invalid):
        fs.readlink("/a/b/f")
    fs.unlink("/abs")
    assert fs.exists("/a/b/f")
    fs.symlink("loop2", "/loop1")
    fs.symlink("loop1", "/loop2")
    with pytest.raises(TooManyLinks):
        fs.stat("/loop1")
    with pytest.raises(Exists):
        fs.symlink("x", "/loop1")


def test_a_dangling_link_creates_its_target(fs: Filesystem) -> None:
    fs.mkdir("/d")
    fs.symlink("d/made", "/link")
    assert not fs.exists("/link")
    assert fs.exists("/link", follow=False)
    with pytest.raises(NotFound):
        fs.read_bytes("/link")
    with pytest.raises(Exists):
        fs.open("/link", "xb")
    fs.write_bytes("/link", b"through")
    assert fs.read_bytes("/d/made") == b"through"
    assert fs.stat("/link", follow=False).is_symlink


def test_an_alias_is_swapped_by_one_rename(fs: Filesystem) -> None:
    for version in ("1", "2"):
        fs.mkdir(f"/m/{version}", parents=True)
        fs.write_bytes(f"/m/{version}/v", version.encode())
    fs.symlink("1", "/m/prod")
    assert fs.read_bytes("/m/prod/v") == b"1"
    fs.symlink("2", "/m/.prod.new")
    fs.rename("/m/.prod.new", "/m/prod")
    assert fs.read_bytes("/m/prod/v") == b"2"
    assert fs.listdir("/m") == ["1", "2", "prod"]


def test_walk_is_sorted_and_does_not_follow(fs: Filesystem) -> None:
    for path in ("/t/b/2", "/t/a", "/t/b/1"):
        fs.mkdir(path, parents=True)
    for path in ("/t/z", "/t/b/1/f", "/t/a/g"):
        fs.write_bytes(path, b"x")
    fs.symlink("/t/b", "/t/link")
    seen = [(top, [one.name for one in dirs], [one.name for one in others]) for top, dirs, others in fs.walk("/t")]
    assert seen == [
        ("/t", ["a", "b"], ["link", "z"]),
        ("/t/a", [], ["g"]),
        ("/t/b", ["1", "2"], []),
        ("/t/b/1", [], ["f"]),
        ("/t/b/2", [], []),
    ]


def test_a_large_directory_lists_every_name_once(fs: Filesystem) -> None:
    fs.mkdir("/d")
    names = sorted(f"file-{number}" for number in range(1000))
    for name in names:
        fs.create(f"/d/{name}")
    assert fs.listdir("/d") == names
    assert sorted(stat.name for stat in fs.scandir("/d")) == names
    assert fs.rmtree("/d") == 1001
    assert not fs.exists("/d")


def test_names_that_are_no_utf8(fs: Filesystem) -> None:
    name = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    fs.write_bytes(f"/{name}", b"x")
    assert fs.listdir("/") == [name]
    assert fs.read_bytes(f"/{name}") == b"x"


@pytest.mark.parametrize("name", ["ä" * 127, "x" * 255, "with space", "new\nline", "...", "%2F", "'; drop"])
def test_names_of_all_kinds(fs: Filesystem, name: str) -> None:
    fs.write_bytes(f"/{name}", b"x")
    fs.rename(f"/{name}", "/other")
    fs.rename("/other", f"/{name}")
    assert fs.listdir("/") == [name]


def test_a_name_too_long(fs: Filesystem) -> None:
    with pytest.raises(TooLong):
        fs.create("/" + "x" * 256)


def test_attributes(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"x")
    fs.chmod("/f", 0o4750)
    fs.chown("/f", 1000, 1001)
    fs.utime("/f", atime_ns=1_500_000_000_000_000_001)
    attr = fs.stat("/f").attr
    assert (attr.uid, attr.gid, attr.atime_ns) == (1000, 1001, 1_500_000_000_000_000_001)
    assert attr.mode & 0o777 == 0o750
    assert attr.kind == Kind.FILE


def test_extended_attributes(fs: Filesystem) -> None:
    fs.write_bytes("/f", b"x")
    fs.setxattr("/f", "user.a", b"1")
    fs.setxattr("/f", "user.empty", b"")
    fs.setxattr("/f", "user.a", b"2", how="replace")
    assert fs.listxattr("/f") == ["user.a", "user.empty"]
    assert fs.getxattr("/f", "user.a") == b"2"
    assert fs.getxattr("/f", "user.empty") == b""
    with pytest.raises(Exists):
        fs.setxattr("/f", "user.a", b"3", how="create")
    with pytest.raises(NoAttribute):
        fs.setxattr("/f", "user.b", b"3", how="replace")
    fs.removexattr("/f", "user.a")
    with pytest.raises(NoAttribute):
        fs.getxattr("/f", "user.a")
    with pytest.raises(NoAttribute):
        fs.removexattr("/f", "user.a")


def test_other_users_are_held_by_the_mode(any_volume: Volume) -> None:
    root = any_volume.files
    root.mkdir("/private", 0o700)
    root.write_bytes("/private/f", b"secret")
    root.mkdir("/shared", 0o755)
    root.chmod("/shared", 0o1777)
    root.write_bytes("/shared/readable", b"r")
    root.chmod("/shared/readable", 0o644)
    alice = any_volume.as_caller(Caller(uid=1000, gid=1000))
    bob = any_volume.as_caller(Caller(uid=1001, gid=1001))
    with pytest.raises(Denied):
        alice.read_bytes("/private/f")
    with pytest.raises(Denied):
        alice.open("/shared/readable", "r+b")
    assert alice.read_bytes("/shared/readable") == b"r"
    alice.write_bytes("/shared/mine", b"a")
    stat = alice.stat("/shared/mine")
    assert (stat.attr.uid, stat.attr.gid, stat.mode) == (1000, 1000, 0o644)
    with pytest.raises((Denied, NotPermitted)):
        bob.unlink("/shared/mine")
    with pytest.raises((Denied, NotPermitted)):
        bob.chmod("/shared/mine", 0o777)
    with alice.open("/shared/ro", "xb", perm=0o444) as file:
        file.write(b"a file may be written by the handle that made it")
    with pytest.raises(Denied):
        alice.open("/shared/ro", "r+b")


def test_statfs_counts(fs: Filesystem) -> None:
    before = fs.statfs()
    fs.write_bytes("/f", b"x" * 10_000)
    fs.mkdir("/d")
    after = fs.statfs()
    assert after.used - before.used == 12288 + 4096
    assert after.inodes_used - before.inodes_used == 2


def test_the_trash_keeps_what_is_removed(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"trash_days": 1})
    fs = volume.files
    fs.write_bytes("/f", b"precious")
    fs.write_bytes("/gone", b"not so precious")
    ino = fs.stat("/f").ino
    fs.unlink("/f")
    fs.unlink("/gone", skip_trash=True)
    volume.collect()
    hours = fs.listdir("/.trash")
    assert len(hours) == 1
    assert fs.listdir(f"/.trash/{hours[0]}") == [f"1-{ino}-f"]
    assert fs.read_bytes(f"/.trash/{hours[0]}/1-{ino}-f") == b"precious"
    fs.rename(f"/.trash/{hours[0]}/1-{ino}-f", "/back")
    assert fs.read_bytes("/back") == b"precious"
    assert ".trash" not in fs.listdir("/")
    assert_sound(volume)
