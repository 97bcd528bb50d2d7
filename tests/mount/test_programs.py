"""Real programs on a real mount: what they write is there, and right, when they say that it is."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

from tests.kit.mounts import Mounted
from tests.kit.programs import many_files, needs, same_tree, stdlib_sample

pytestmark = pytest.mark.mount

SMALL_TREE = 400
LARGE_TREE = 50_000


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 300) -> str:
    """Run a program; its output, or a failure that shows it."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@needs("git")
def test_git_clones_collects_and_checks(mounted: Mounted, tmp_path: Path) -> None:
    origin = stdlib_sample(tmp_path / "origin", 200)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    run("git", "init", "-q", "-b", "main", cwd=origin)
    for number in range(4):
        (origin / "changing.txt").write_text(f"{number}\n" * 1000)
        run("git", "add", "-A", cwd=origin)
        run("git", *identity, "commit", "-q", "-m", str(number), cwd=origin)
    clone = mounted.path / "clone"
    run("git", "clone", "-q", "--no-local", origin, clone)
    run("git", *identity, "commit", "-q", "--allow-empty", "-m", "here", cwd=clone)
    run("git", "gc", "-q", "--prune=now", cwd=clone)
    run("git", "fsck", "--strict", cwd=clone)
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    assert run("git", "rev-list", "--count", "HEAD", cwd=clone).strip() == "5"
    same_tree(origin, clone, leave_out={".git"})


@needs("tar")
@pytest.mark.parametrize("count", [SMALL_TREE, pytest.param(LARGE_TREE, marks=pytest.mark.nightly)])
def test_tar_unpacks_and_packs_a_tree(mounted: Mounted, tmp_path: Path, count: int) -> None:
    tree = many_files(tmp_path / "tree", count)
    run("tar", "-C", tree, "-cf", tmp_path / "tree.tar", ".")
    there = mounted.path / "tree"
    there.mkdir()
    run("tar", "-C", there, "-xpf", tmp_path / "tree.tar", timeout=1800)
    same_tree(tree, there)
    run("tar", "-C", there, "-df", tmp_path / "tree.tar", timeout=1800)  # compares times, modes, owners and bytes
    run("rm", "-r", there, timeout=1800)
    assert not there.exists()


@needs("rsync")
def test_rsync_copies_nothing_the_second_time(mounted: Mounted, tmp_path: Path) -> None:
    tree = many_files(tmp_path / "tree", SMALL_TREE)
    command = ("rsync", "-aHX", "--out-format=%i %n", f"{tree}/", f"{mounted.path}/copy/")
    first = run(*command)
    assert first.count(">f") >= SMALL_TREE
    assert run(*command) == ""
    same_tree(tree, mounted.path / "copy")


@needs("cp")
def test_cp_keeps_a_tree_and_its_sparse_files(mounted: Mounted, tmp_path: Path) -> None:
    tree = many_files(tmp_path / "tree", 100)
    with (tree / "sparse").open("wb") as file:
        file.seek(300 << 20)
        file.write(b"end")
    run("cp", "-a", f"{tree}/.", mounted.path / "first")
    run("cp", "-a", mounted.path / "first", mounted.path / "second")
    same_tree(tree, mounted.path / "second")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_holds_its_promises(mounted: Mounted, journal: str) -> None:
    path = mounted.path / f"{journal}.db"
    with closing(sqlite3.connect(path)) as first, first:
        assert first.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
        first.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value BLOB)")
    program = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=60)\n"
        "for number in range(50):\n"
        "    with db:\n"
        "        db.execute('INSERT INTO t (value) VALUES (?)', (bytes([number]) * 3000,))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(2)]
    assert [writer.wait(timeout=180) for writer in writers] == [0, 0]
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*), sum(length(value)) FROM t").fetchone() == (100, 300_000)
        db.execute("DELETE FROM t WHERE id % 2")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("VACUUM")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_a_virtual_environment_with_numpy_runs(mounted: Mounted) -> None:
    place = mounted.path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place)
    (target,) = (place / "lib").glob("python3*/site-packages")
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in ("numpy", "numpy.libs"):
        shutil.copytree(packages / name, target / name)
    program = "import numpy as n; a = n.arange(9.).reshape(3, 3); print(n.__file__, int((a @ a).sum()))"
    said = run(place / "bin" / "python", "-c", program)
    assert said.split() == [str(target / "numpy" / "__init__.py"), "486"]


@needs("fio")
def test_fio_reads_back_what_it_wrote_at_random(mounted: Mounted, tmp_path: Path) -> None:
    run(
        *("fio", "--name=verify", f"--directory={mounted.path}", "--rw=randwrite", "--bs=4k-64k", "--size=32m"),
        *("--ioengine=psync", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--numjobs=2"),
        cwd=tmp_path,  # it leaves its state there
    )
