"""The file commands over a real volume: what they print, what they leave, and how they fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fscore.volume import open_volume
from tests.kit.command import Fscore, run_fscore


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small local tree with a big file, an empty one, an odd name and a link."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "big.bin").write_bytes(os.urandom(5 << 20))
    (top / "sub" / "empty").touch()
    (top / "sub" / "größe €.txt").write_text("umlaut")
    (top / "link").symlink_to("sub/empty")
    (top / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (top / "sub" / "run.sh").chmod(0o755)
    return top


def content(top: Path) -> dict[str, object]:
    """Everything below a directory: bytes and modes of files, targets of links."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777)
    return found


def test_a_tree_goes_in_and_comes_out_the_same(fscore: Fscore, cli_volume: str, tree: Path, tmp_path: Path) -> None:
    report = fscore.json("cp", cli_volume, "-r", tree, ":/in")
    assert report == {"files": 5, "directories": 2, "bytes_copied": (5 << 20) + 6 + 10, "bytes_shared": 0}
    fscore("cp", cli_volume, ":/in", tmp_path / "out", "-r").ok()
    assert content(tmp_path / "out") == content(tree)
    assert fscore("fsck", cli_volume).ok().out.startswith("sound")


def test_a_copy_inside_moves_no_bytes(fscore: Fscore, cli_volume: str, tree: Path, tmp_path: Path) -> None:
    fscore("cp", cli_volume, "-r", tree, ":/in").ok()
    before = sum(path.stat().st_size for path in (tmp_path / "blocks").rglob("*") if path.is_file())
    report = fscore.json("cp", cli_volume, "-r", ":/in", ":/copy")
    assert (report["bytes_copied"], report["bytes_shared"]) == (0, (5 << 20) + 6 + 10)
    one = fscore.json("cp", cli_volume, ":/in/big.bin", ":/copy/big.bin")
    assert one["bytes_shared"] == 5 << 20
    after = sum(path.stat().st_size for path in (tmp_path / "blocks").rglob("*") if path.is_file())
    assert after == before
    fscore("cp", cli_volume, ":/copy", tmp_path / "out", "-r").ok()
    assert content(tmp_path / "out") == content(tree)


def test_cp_lands_in_directories_and_replaces_files_whole(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    fscore("mkdir", cli_volume, "-p", "/x/y").ok()
    fscore("cp", cli_volume, tmp_path / "a", ":/x/y").ok()
    assert fscore("cat", cli_volume, "/x/y/a").out == "one"
    (tmp_path / "a").write_bytes(b"two")
    assert "already exists" in fscore.refused(1, "cp", cli_volume, "-n", tmp_path / "a", ":/x/y/a")
    fscore("cp", cli_volume, tmp_path / "a", ":/x/y/a").ok()
    assert fscore("cat", cli_volume, "/x/y/a").out == "two"
    assert fscore("ls", cli_volume, "/x/y").out == "a\n"


def test_a_refused_copy_leaves_nothing_behind(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    fscore("cp", cli_volume, tmp_path / "a", ":/a").ok()
    fscore("mkdir", cli_volume, "/d").ok()
    for _ in range(2):
        assert "does not replace a file" in fscore.refused(1, "cp", cli_volume, "-r", ":/d", ":/a")
    fscore("cp", cli_volume, ":/a", ":/b").ok()
    fscore("cp", cli_volume, ":/a", ":/b").ok()
    with open_volume(cli_volume, read_only=True) as volume:
        assert sorted(volume.files.listdir("/")) == ["a", "b", "d"]


def test_long_names_and_odd_modes_survive(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    top = tmp_path / "odd"
    top.mkdir()
    for mode, name in ((0o600, "x" * 255), (0o666, "ü" * 127), (0o4755, "setuid"), (0o400, "read-only")):
        (top / name).write_text(name)
        (top / name).chmod(mode)
    fscore("cp", cli_volume, "-r", top, ":/odd").ok()
    fscore("cp", cli_volume, "-r", ":/odd", tmp_path / "out").ok()
    assert [path.lstat().st_mode for path in sorted((tmp_path / "out").iterdir())] == [
        path.lstat().st_mode for path in sorted(top.iterdir())
    ]


def test_cp_refuses_what_makes_no_sense(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    assert "colon" in fscore.refused(2, "cp", cli_volume, tmp_path / "a", tmp_path / "b")
    assert "SOURCE and a TARGET" in fscore.refused(2, "cp", cli_volume, ":/a")
    assert "add -r" in fscore.refused(1, "cp", cli_volume, tmp_path, ":/dir")
    assert "no such file" in fscore.refused(1, "cp", cli_volume, tmp_path / "missing", ":/a")
    assert "no such file" in fscore.refused(1, "cp", cli_volume, ":/missing", tmp_path / "b")
    fscore("mkdir", cli_volume, "/d").ok()
    assert "cannot lie in" in fscore.refused(1, "cp", cli_volume, "-r", ":/d", ":/d/e")
    assert "leaves the volume" in fscore.refused(1, "cp", cli_volume, tmp_path / "a", ":/../../etc/passwd")


def test_ls_shows_and_describes(fscore: Fscore, cli_volume: str, tree: Path) -> None:
    fscore("cp", cli_volume, "-r", tree, ":/in").ok()
    assert fscore("ls", cli_volume).out == "in\n"
    assert fscore("ls", cli_volume, "/in").out.split() == ["big.bin", "link", "sub"]
    long = fscore("ls", cli_volume, "-lh", "/in").out.splitlines()
    assert long[0].startswith("-rw-r--r--")
    assert "5.0 MiB" in long[0]
    assert long[1].endswith("link -> sub/empty")
    entries = fscore.json("ls", cli_volume, "-R", "/in")
    assert [entry["path"] for entry in entries if entry["kind"] == "file"] == [
        "/in/big.bin",
        "/in/sub/empty",
        "/in/sub/größe €.txt",
        "/in/sub/run.sh",
    ]
    assert set(entries[0]) == {"path", "kind", "size", "mode", "uid", "gid", "nlink", "mtime_ns", "ino"}
    assert fscore("ls", cli_volume, "/in/big.bin").out == "big.bin\n"


def test_cat_streams_ranges(fscore: Fscore, cli_volume: str, tree: Path) -> None:
    fscore("cp", cli_volume, tree / "big.bin", ":/big.bin").ok()
    expected = (tree / "big.bin").read_bytes()
    assert run_fscore("cat", cli_volume, "/big.bin").stdout == expected
    piece = run_fscore("cat", cli_volume, "/big.bin", "--offset", 4194300, "--length", 20).stdout
    assert piece == expected[4194300:4194320]
    assert run_fscore("cat", cli_volume, "/big.bin", "--offset", 1 << 30).stdout == b""


def test_stat_and_info_tell_the_same_node(fscore: Fscore, cli_volume: str, tree: Path) -> None:
    fscore("cp", cli_volume, "-p", tree / "big.bin", ":/big.bin").ok()
    stat, info = fscore.json("stat", cli_volume, "/big.bin"), fscore.json("info", cli_volume, "/big.bin")
    assert stat["ino"] == info["ino"]
    assert stat["mtime_ns"] == (tree / "big.bin").stat().st_mtime_ns
    assert (info["slices"], info["objects"]) == (1, 2)
    assert [ref["length"] for chunk in info["chunks"] for ref in chunk["objects"]] == [4 << 20, 1 << 20]
    text = fscore("info", cli_volume, "/big.bin", "--objects").ok().out
    assert all(ref["key"] in text for chunk in info["chunks"] for ref in chunk["objects"])


def test_rm_asks_before_it_takes_a_tree(fscore: Fscore, cli_volume: str, tree: Path) -> None:
    fscore("cp", cli_volume, "-r", tree, ":/in").ok()
    assert "add -r" in fscore.refused(1, "rm", cli_volume, "/in")
    assert "--yes" in fscore.refused(2, "rm", cli_volume, "-r", "/in")
    dry = fscore("rm", cli_volume, "-r", "--dry-run", "/in", "/in/big.bin").ok().out.splitlines()
    assert dry == [
        "would remove /in and all that is in it (7 entries)",
        "would remove /in/big.bin (5.0 MiB)",
    ]
    assert "root of a volume stays" in fscore.refused(1, "rm", cli_volume, "-r", "--yes", "/")
    fscore("rm", cli_volume, "/in/big.bin").ok()
    fscore("rm", cli_volume, "-r", "--yes", "/in").ok()
    assert fscore("ls", cli_volume).out == ""
    assert "no such file" in fscore.refused(1, "rm", cli_volume, "/in")
    fscore("rm", cli_volume, "-f", "/in").ok()


def test_mv_renames_swaps_and_keeps(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        fscore("cp", cli_volume, tmp_path / name, f":/{name}").ok()
    assert "already exists" in fscore.refused(1, "mv", cli_volume, "-n", "/a", "/b")
    fscore("mv", cli_volume, "--exchange", "/a", "/b").ok()
    assert fscore("cat", cli_volume, "/a", "/b").out == "ba"
    fscore("mkdir", cli_volume, "/d").ok()
    fscore("mv", cli_volume, "/a", "/d").ok()
    assert fscore("ls", cli_volume, "-R").out.split() == ["/b", "/d", "/d/a"]
    assert "exclude each other" in fscore.refused(2, "mv", cli_volume, "-n", "--exchange", "/b", "/d/a")


def test_summary_and_status_count(fscore: Fscore, cli_volume: str, tree: Path) -> None:
    fscore("cp", cli_volume, "-r", tree, ":/in").ok()
    summary = fscore.json("summary", cli_volume, "/in")
    assert (summary["files"], summary["dirs"], summary["size"]) == (5, 2, (5 << 20) + 16)
    status = fscore.json("status", cli_volume)
    assert status["Setting"]["Name"] == "cli-volume"
    assert status["Statistic"]["UsedInodes"] == 7
    assert "in/big.bin" in fscore("summary", cli_volume, "--depth", 2).out
    assert "UsedSpace" in fscore("status", cli_volume).out


def test_fsck_reports_a_lost_block(fscore: Fscore, cli_volume: str, tree: Path, tmp_path: Path) -> None:
    fscore("cp", cli_volume, tree / "big.bin", ":/big.bin").ok()
    info = fscore.json("info", cli_volume, "/big.bin")
    key = info["chunks"][0]["objects"][0]["key"]
    (tmp_path / "blocks" / "cli-volume" / key).unlink()
    done = fscore("fsck", cli_volume)
    assert done.code == 1
    assert key in done.out
    report = json.loads(fscore("fsck", cli_volume, "--json").out)
    assert len(report["problems"]) >= 1


def test_format_refuses_what_would_be_lost(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    line = fscore.refused(2, "format", cli_volume, "again", "--bucket", tmp_path / "other")
    assert "already" in line
    line = fscore.refused(2, "format", f"sqlite3://{tmp_path}/new.db", "cli-volume", "--bucket", tmp_path / "blocks")
    assert "not empty" in line
    assert "cannot name a volume" in fscore.refused(2, "format", f"sqlite3://{tmp_path}/n.db", "B_D")
    assert "no metadata engine" in fscore.refused(2, "format", "nosuch://x", "demo")


def test_a_volume_that_is_none_is_wrong_use(fscore: Fscore, tmp_path: Path) -> None:
    assert "volumes.toml" in fscore.refused(2, "ls", "nosuch")
    empty = tmp_path / "empty.db"
    assert "format" in fscore.refused(2, "ls", f"sqlite3://{empty}")
    assert not empty.exists(), "looking at a volume that is not there leaves nothing behind"


def test_names_stand_for_urls(fscore: Fscore, cli_volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tmp_path / "volumes.toml"
    names.write_text(f'[here]\nmeta = "{cli_volume}"\n\n[far]\nmeta = "redis://:secret@far:6379/1"\n')
    monkeypatch.setenv("FSCORE_VOLUMES", str(names))
    fscore("mkdir", "here", "/d").ok()
    assert fscore("ls", "here").out == "d\n"
    assert fscore.json("volumes") == {"far": "redis://:***@far:6379/1", "here": cli_volume}


def test_names_of_airflow_connections_stand_for_urls(
    fscore: Fscore, cli_volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSCORE_VOLUMES", str(tmp_path / "none.toml"))
    extra = {"regions": ["far"], "cache_dir": str(tmp_path / "cache")}
    connection = {"conn_type": "fscore", "host": cli_volume, "extra": json.dumps(extra)}
    monkeypatch.setenv("AIRFLOW_CONN_CLOUD_A", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps({"conn_type": "smtp", "host": "mail"}))
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", "{")
    fscore("mkdir", "cloud_a", "/d").ok()
    assert fscore("ls", cli_volume).out == "d\n"
    assert "not of type fscore" in fscore.refused(2, "ls", "mail")
    assert "no JSON" in fscore.refused(2, "ls", "broken")


def test_a_reader_that_leaves_early_is_no_error(fscore: Fscore, cli_volume: str, tree: Path) -> None:
    import subprocess
    import sys

    fscore("cp", cli_volume, tree / "big.bin", ":/big.bin").ok()
    with subprocess.Popen(
        [sys.executable, "-m", "fscore.cli.main", "cat", cli_volume, "/big.bin"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.stderr.read() == b""
