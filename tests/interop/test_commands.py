"""Every command of the official client on a volume that we wrote: it finds nothing wrong, and loses nothing."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import fscore
from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.admin.summary import summary
from fscore.files.compose import Range
from fscore.volume import Volume
from tests.interop import official
from tests.interop.players import OnVfs
from tests.kit.deeds import Historian, bytes_of
from tests.kit.picture import Picture, Seen, take
from tests.kit.redis_server import RedisServer

pytestmark = official.NEEDED

AN_HOUR_S: Final = 3600
TERABYTE: Final = 1 << 40
HISTORIES: Final = range(500, 508)


class Places:
    """Empty metadata databases of one engine."""

    def __init__(self, kind: str, request: pytest.FixtureRequest, place: Path) -> None:
        self.kind = kind
        self._request = request
        self._place = place
        self._made = 0

    def fresh(self) -> str:
        """META-URL of one that nobody used."""
        self._made += 1
        if self.kind == "sqlite":
            return f"sqlite3://{self._place}/meta{self._made}.db"
        if self.kind != "redis":
            database = self._request.getfixturevalue(
                {"postgres": "postgres_server", "mysql": "mariadb_server"}[self.kind]
            )
            name = database.create()
            self._request.addfinalizer(lambda: database.drop(name))
            return str(database.url(name))
        server: RedisServer = self._request.getfixturevalue("redis_server")
        return server.fresh_url()


@pytest.fixture(params=["sqlite", "redis", "postgres", "mysql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """Databases, on each engine in turn."""
    return Places(request.param, request, tmp_path)


@pytest.fixture(params=["none", "lz4"])
def rich(request: pytest.FixtureRequest, places: Places, tmp_path: Path) -> Iterator[str]:
    """META-URL of a volume with a long past, whose objects are old enough for gc to judge. Sound before and after."""
    url = places.fresh()
    format_volume(
        url, "rich", storage="file", bucket=f"{tmp_path}/blocks/", block_size="64K", trash_days=1,
        compression=request.param,
    )  # fmt: skip
    with fscore.open_volume(url, session=True, background=False, durable=False) as volume:
        write(volume)
    age(tmp_path / "blocks")
    sound(url)
    yield url
    sound(url)


def write(volume: Volume) -> None:
    """Histories with links, holes, special files, attributes and a trash; composed files; what is immutable."""
    files = volume.files
    for seed in HISTORIES:
        files.mkdir(f"/h{seed}")
        player = OnVfs(volume, b"h%d" % seed)
        for deed in Historian(seed).history(60):
            player.play(deed)
    files.mkdir("/plain/inner", parents=True)
    files.write_bytes("/plain/inner/file", bytes_of(4, 200_000))
    files.setxattr("/plain/inner/file", "user.a", b"value")
    files.symlink("file", "/plain/inner/link")
    files.truncate("/plain/inner/file", 150_000)
    files.mkdir("/models/v1/inner", parents=True)
    for path, number in (("/models/base", 1), ("/models/v1/weights", 2), ("/models/v1/inner/other", 3)):
        files.write_bytes(path, bytes_of(number, 300_000))
    files.link("/models/v1/weights", "/models/v1/inner/same")
    files.symlink("../weights", "/models/v1/inner/link")
    files.setxattr("/models/v1", "user.stage", b"released")
    files.compose("/models/v1/composed", [Range("/models/base", 5, 200_000), Range("/models/v1/weights", 1, 150_000)])
    files.set_immutable("/models/v1", True, recursive=True)
    with files.open("/sparse", "wb") as sparse:
        sparse.seek(TERABYTE)
        sparse.write(b"end")
        sparse.seek(5)
        sparse.write(b"start")
    for number in range(40):
        files.write_bytes(f"/gone{number}", bytes_of(number, 5000))
        files.unlink(f"/gone{number}")


def age(blocks: Path) -> None:
    """Let all objects be two hours old: gc judges none that is younger than one."""
    past = time.time() - 2 * AN_HOUR_S
    for path in blocks.rglob("*"):
        os.utime(path, (past, past))


def sound(url: str, *, allowed: frozenset[str] = frozenset()) -> None:
    """Our own fsck has nothing to say, but of leaks of the allowed kinds."""
    with fscore.open_volume(url, background=False) as volume:
        report = fsck(volume)
        found = report.problems + [leak for leak in report.leaks if leak.kind not in allowed]
        assert not found, found


def quick(url: str) -> Picture:
    """The picture, the sparse file's terabyte left out."""
    return take(url, skip=frozenset({b"/sparse"}))


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def complaints(text: str) -> list[str]:
    """Lines that tell of something wrong; warnings about this machine are none."""
    return [line for line in text.splitlines() if re.search(r"<(ERROR|FATAL)>|[Bb]roken|invalid|nlink|negative", line)]


def test_checks_find_nothing(rich: str) -> None:
    before = quick(rich)
    assert complaints(said(official.juicefs("fsck", rich))) == []
    every = official.juicefs("fsck", rich, "--path", "/", "-r", "--sync-dir-stat")
    assert complaints(said(every)) == []
    collected = said(official.juicefs("gc", rich))
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (leaked|skipped|compacted|valid)", collected)}
    assert (counts["leaked"], counts["skipped"], counts["compacted"]) == (0, 0, 0), collected
    assert counts["valid"] > 40
    assert complaints(collected) == []
    assert quick(rich) == before


def forget_valueless(url: str) -> None:
    """Remove extended attributes without a value: loading a binary dump into SQL drops whole batches for one (6.2)."""
    with fscore.open_volume(url, background=False) as volume:
        engine = volume.meta.engine
        for ino, _ in list(engine.scan_nodes()):
            with engine.view() as view:
                names = [name for name, value in view.xattrs(ino).items() if not value]
            for name in names:
                engine.transact(lambda txn, ino=ino, name=name: txn.del_xattr(ino, name))  # type: ignore[misc]


JSON_LOSES: Final = frozenset({"object"})
SQL_LOSES: Final = frozenset({"object", "refs"})
"""What the official client leaves behind when it loads a dump of its own making. JSON carries no chunks past the end of
a file, whose objects then are leaks. On SQL it sets the references of all slices to those of holes, of which it makes a
slice 0: `UPDATE jfs_chunk_ref SET refs` without a WHERE (1.4.1, seen)."""


@pytest.mark.parametrize("form", ["json", "binary"])
def test_dump_and_load_lose_nothing(rich: str, places: Places, tmp_path: Path, form: str) -> None:
    how = ("--binary",) if form == "binary" else ()
    loses = frozenset[str]()
    if form == "json":
        loses = JSON_LOSES if places.kind == "redis" else SQL_LOSES
    elif places.kind != "redis":
        forget_valueless(rich)
    before = quick(rich)
    dump = str(tmp_path / "dump")
    assert complaints(said(official.juicefs("dump", *how, rich, dump))) == []
    url = places.fresh()
    assert complaints(said(official.juicefs("load", *how, url, dump))) == []
    assert quick(url) == before
    sound(url, allowed=loses)
    with fscore.open_volume(url, session=True, background=False) as volume:
        for number in range(3):  # above what is in use: in the store that both databases share, only for a moment
            volume.files.write_bytes(f"/after{number}", bytes_of(number, 70_000))
            assert volume.files.read_bytes(f"/after{number}") == bytes_of(number, 70_000)
            volume.files.unlink(f"/after{number}", skip_trash=True)
        volume.collect()
    sound(url, allowed=loses)


def of(picture: Picture, top: bytes) -> dict[bytes, Seen]:
    """Nodes below a directory, by their paths there."""
    return {path[len(top) :]: seen for path, seen in picture.nodes.items() if path.startswith(top + b"/")}


def test_commands_on_a_mount(rich: str, tmp_path: Path) -> None:
    before = quick(rich)
    with fscore.open_volume(rich, read_only=True) as volume:
        sizes = {path: summary(volume, path) for path in ("/models", "/h500", "/h503")}
    with official.mounted(rich, tmp_path / "mnt") as mount:
        for path, size in sizes.items():
            shown = said(official.juicefs("info", "-r", "--strict", f"{mount}{path}"))
            numbers = {key: int(value) for key, value in re.findall(r"(files|dirs): (\d+)", shown)}
            assert (numbers["files"], numbers["dirs"]) == (size.files, size.dirs), shown
            space = re.search(r" size: .*?(\d+) Bytes", shown)
            assert space is not None
            assert int(space[1]) == size.space, shown
            table = said(official.juicefs("summary", "--csv", "--strict", "--depth", "0", f"{mount}{path}"))
            assert table.splitlines()[-1].split(",")[1:] == [str(size.space), str(size.dirs), str(size.files)], table
        official.juicefs("compact", f"{mount}/models/v1", f"{mount}/h500", f"{mount}/h503")
        official.juicefs("clone", "-p", f"{mount}/plain", f"{mount}/copy")
        with pytest.raises(AssertionError, match="not permitted"):  # it copies the flag first, and then may not go on
            official.juicefs("clone", f"{mount}/models/v1", f"{mount}/models/v2")
        official.juicefs("rmr", "--skip-trash", f"{mount}/h501")
        official.juicefs("rmr", f"{mount}/h502")
        with pytest.raises(PermissionError):
            (mount / "models/v1/weights").unlink()
    official.fsck(rich)
    after = quick(rich)
    for top in (b"/models/v1", b"/h500", b"/h503"):
        assert of(after, top) == of(before, top), "compaction changes no byte"
    assert of(after, b"/copy") == of(before, b"/plain")
    assert not of(after, b"/h501")
    assert not of(after, b"/h502")
    with fscore.open_volume(rich, session=True, background=False) as volume:
        engine = volume.meta.engine
        for ino, _ in list(engine.scan_detached()):  # what that clone began; gc takes it after a day
            volume.meta._discard(ino)
        volume.collect()


def test_a_quota_of_theirs_is_kept_by_us(rich: str) -> None:
    official.juicefs("quota", "set", rich, "--path", "/models", "--inodes", "100")
    with fscore.open_volume(rich, session=True, background=False) as volume:
        for number in range(5):
            volume.files.write_bytes(f"/models/more{number}", bytes_of(number, 5000))
        volume.files.unlink("/models/more0")
        volume.files.rename("/models/more1", "/more1")
    checked = official.juicefs("quota", "check", rich, "--path", "/models")
    assert complaints(said(checked)) == []
    assert "consistent" in said(checked)
    official.juicefs("quota", "delete", rich, "--path", "/models")
