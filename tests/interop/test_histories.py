"""Random histories replayed on the official client and on ours: the same answers, tree, bytes and accounting.

`INTEROP_HISTORIES` says how many each case replays. Where the official client is known to be wrong, players leave the
deed out, or the comparison says why it looks away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import fscore
from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.volume import Volume
from tests.interop import official
from tests.interop.players import OnMount, OnVfs
from tests.kit.deeds import Deed, Historian
from tests.kit.picture import Picture, take, through
from tests.kit.redis_server import RedisServer

pytestmark = official.NEEDED

HISTORIES: Final = int(os.environ.get("INTEROP_HISTORIES", "25"))
DEEDS: Final = 100
GROW: Final = {"write", "truncate", "fallocate", "copy"}
SETTLE_S: Final = 0.02
"""The official client looks a moment later for the directories of a file with several names that grew."""


@pytest.fixture(params=["sqlite", "redis", "postgres", "mysql"])
def two_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URLs of two empty metadata databases of a kind."""
    if request.param == "sqlite":
        yield f"sqlite3://{tmp_path}/theirs.db", f"sqlite3://{tmp_path}/ours.db"
    elif request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        yield redis.fresh_url(), redis.fresh_url()
    else:
        server = request.getfixturevalue({"postgres": "postgres_server", "mysql": "mariadb_server"}[request.param])
        names = server.create(), server.create()
        yield server.url(names[0]), server.url(names[1])
        for name in names:
            server.drop(name)


def unlike(one: Picture, other: Picture) -> list[str]:
    """How two pictures differ, in words."""
    found = [f"usage {one.usage} and {other.usage}"] if one.usage != other.usage else []
    for path in sorted(one.nodes.keys() | other.nodes.keys()):
        here, there = one.nodes.get(path), other.nodes.get(path)
        if here is None or there is None:
            found.append(f"{path!r}: {here} and {there}")
        elif here != there:
            fields = [name for name in here._fields if getattr(here, name) != getattr(there, name)]
            found.append(f"{path!r}: " + ", ".join(f"{f} {getattr(here, f)} and {getattr(there, f)}" for f in fields))
    found += [f"in the trash of one only: {key} x{count}" for key, count in (one.trash - other.trash).items()]
    found += [f"in the trash of the other only: {key} x{count}" for key, count in (other.trash - one.trash).items()]
    return found


def strays(picture: Picture, exempt: set[bytes]) -> list[str]:
    """Directories whose stored statistics are not what their entries say."""
    return [
        f"{path!r} has statistics {stat}, its entries say {picture.counted[path]}"
        for path, stat in picture.stats.items()
        if stat != picture.counted[path] and b"/".join(path.split(b"/")[:2]) not in exempt
    ]


def replay(mount: Path, volume: Volume, seeds: range, *, clones: bool) -> tuple[list[str], set[bytes]]:
    """Each history in a directory of its own. Returns differing answers, and where their statistics may stray.

    The official client copies the statistics of a cloned directory before they are written (volume-format.md 2.12), and
    counts the length of a symbolic link that gets another name.
    """
    differ: list[str] = []
    stray: set[bytes] = set()
    for seed in seeds:
        top = b"h%d" % seed
        (mount / top.decode()).mkdir()
        volume.files.mkdir(f"/{top.decode()}")
        theirs, ours = OnMount(mount / top.decode()), OnVfs(volume, top)
        for number, deed in enumerate(Historian(seed, clones=clones).history(DEEDS)):
            answers = theirs.play(deed), ours.play(deed)
            if answers[0] != answers[1]:
                differ.append(f"history {seed}, deed {number} {short(deed)}: {named(answers[0])}, {named(answers[1])}")
            if deed.name in GROW and answers[0] == 0 and not ours.at(deed.args[deed.name == "copy"])[1].parent:
                time.sleep(SETTLE_S)
            if deed.name in {"clone", "link"} and answers[0] == 0 and not ours.at(deed.args[0])[1].is_file:
                stray.add(b"/" + top)
    return differ, stray


def short(deed: Deed) -> str:
    """A deed in a line."""
    return f"{deed.name}{tuple(arg[:12] if isinstance(arg, bytes) else arg for arg in deed.args)}"


def named(code: int) -> str:
    """An errno by its name."""
    return os.strerror(code) if code else "done"


@pytest.mark.parametrize("trash_days", [0, 1], ids=["no trash", "trash"])
def test_both_do_the_same(two_urls: tuple[str, str], tmp_path: Path, trash_days: int) -> None:
    theirs, ours = two_urls
    compression = ("none", "lz4")[trash_days]
    official.juicefs(
        "format", "--storage", "file", "--bucket", f"{tmp_path}/theirs/", "--block-size", "64K",
        "--compress", compression, "--trash-days", str(trash_days), theirs, "histories",
    )  # fmt: skip
    format_volume(
        ours, "histories", storage="file", bucket=f"{tmp_path}/ours/", block_size="64K", trash_days=trash_days,
        compression=compression,
    )  # fmt: skip
    seeds = range(trash_days * 1000, trash_days * 1000 + HISTORIES)
    with (
        official.mounted(theirs, tmp_path / "mnt") as mount,
        fscore.open_volume(ours, session=True, background=False, durable=False) as volume,
    ):
        differ, stray = replay(mount, volume, seeds, clones=True)
    assert not differ, "\n".join(differ)
    painted = take(theirs), take(ours)
    different = unlike(*painted)
    assert not different, "\n".join(different)
    assert strays(painted[1], set()) == []
    assert strays(painted[0], stray) == []
    with official.mounted(ours, tmp_path / "mnt", "--read-only") as mount:
        for path, seen in painted[1].nodes.items():
            assert through(os.fsencode(mount), path, seen) == seen, path
    for url in two_urls:
        official.fsck(url)
        with fscore.open_volume(url, background=False) as volume:
            problems = fsck(volume).problems
        assert [found for found in problems if url == ours or found.kind != "dir_stat"] == []
