"""The model commands over a real volume: push, look, decide, publish, pull; and every refusal in one line."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.command import Fscore, run_fscore

Mini = Callable[[str], Path]


@pytest.fixture
def model(mini: Mini) -> Path:
    """A small Llama-style checkpoint in several shards."""
    return mini("llama")


@pytest.fixture
def changed(model: Path, tmp_path: Path) -> Path:
    """The same model with one file changed."""
    copy = tmp_path / "changed"
    shutil.copytree(model, copy)
    with (copy / "README.md").open("a") as readme:
        readme.write("tuned\n")
    return copy


@pytest.fixture
def roomy(cli_volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name for the volume whose cache does not mind how full this machine's disk is."""
    book = tmp_path / "volumes.toml"
    book.write_text(f'[roomy]\nmeta = "{cli_volume}"\nfree_space_ratio = 0.0\n')
    monkeypatch.setenv("FSCORE_VOLUMES", str(book))
    return "roomy"


def weigh(top: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def same(left: Path, right: Path) -> bool:
    """Whether two model directories hold the same files, our records aside."""

    def content(top: Path) -> dict[str, bytes]:
        files = (path for path in top.rglob("*") if path.is_file() and ".fscore" not in path.parts)
        return {str(path.relative_to(top)): path.read_bytes() for path in files}

    return content(left) == content(right)


def test_a_model_comes_in_is_published_and_comes_out(
    fscore: Fscore, cli_volume: str, model: Path, tmp_path: Path
) -> None:
    report = fscore.json("push", cli_volume, model, "llm/tiny", "--purpose", "a test", "--alias", "prod")
    keys = {"bytes_total", "bytes_new", "bytes_shared", "files", "tensors", "digest", "seconds", "version", "path"}
    assert keys <= set(report)
    assert (report["bytes_total"], report["bytes_new"] + report["bytes_shared"]) == (weigh(model), weigh(model))

    published = fscore.json("publish", cli_volume, "llm/tiny@1")
    assert (published["state"], published["path"]) == ("published", "/models/llm/tiny/1")
    shown = fscore.json("show", cli_volume, "llm/tiny:prod")
    assert (shown["digest"], shown["uploader"], shown["purpose"]) == (report["digest"], "ann", "a test")
    assert shown["aliases"] == ["prod"]

    pulled = fscore.json("pull", cli_volume, "llm/tiny:prod", tmp_path / "out")
    assert pulled["bytes_total"] == weigh(model)
    assert same(tmp_path / "out", model)
    again = fscore.json("pull", cli_volume, "llm/tiny:prod", tmp_path / "out")
    assert (again["bytes_fetched"], again["bytes_kept"]) == (0, weigh(model))
    assert fscore("fsck", cli_volume).ok().out.startswith("sound")


def test_the_same_content_is_known_and_a_change_costs_what_changed(
    fscore: Fscore, cli_volume: str, model: Path, changed: Path
) -> None:
    fscore("push", cli_volume, model, "llm/tiny").ok()
    again = fscore.json("push", cli_volume, model, "llm/tiny")
    assert (again["version"], again["bytes_new"], again["deduplicated"]) == (1, 0, True)
    foreseen = fscore.json("push", cli_volume, changed, "llm/tiny", "--dry-run")
    second = fscore.json("push", cli_volume, changed, "llm/tiny@2")
    assert foreseen["bytes_new"] == second["bytes_new"] < 1000
    assert second["version"] == 2
    rows = fscore("versions", cli_volume, "llm/tiny").ok().out.splitlines()
    assert [row.split()[0] for row in rows] == ["VERSION", "1", "2"]
    assert fscore.json("models", cli_volume) == [
        {"team": "llm", "model": "tiny", "versions": 2, "latest": 0, "aliases": {}}
    ]


def test_a_dry_run_writes_nothing(fscore: Fscore, cli_volume: str, model: Path, tmp_path: Path) -> None:
    before = weigh(tmp_path / "blocks")
    planned = fscore.json("push", cli_volume, model, "llm/tiny", "--dry-run")
    assert planned["bytes_new"] == weigh(model)
    assert weigh(tmp_path / "blocks") == before
    assert fscore("ls", cli_volume).out == ""


def test_published_files_stay_as_they_are(fscore: Fscore, cli_volume: str, model: Path) -> None:
    fscore("push", cli_volume, model, "llm/tiny").ok()
    fscore("publish", cli_volume, "llm/tiny@1", "--alias", "prod").ok()
    assert "not permitted" in fscore.refused(1, "rm", cli_volume, "-r", "--yes", "/models/llm/tiny/1")
    assert "not permitted" in fscore.refused(1, "cp", cli_volume, model / "README.md", ":/models/llm/tiny/1/")
    assert "not permitted" in fscore.refused(1, "mv", cli_volume, "/models/llm/tiny/1/config.json", "/x")
    fscore("cp", cli_volume, "-r", ":/models/llm/tiny/1", ":/copy").ok()
    assert "already published" in fscore.by("bob").refused(1, "publish", cli_volume, "llm/tiny@1")


def test_a_decision_is_taken_once_and_not_by_the_uploader(
    fscore: Fscore, cli_volume: str, model: Path, changed: Path
) -> None:
    ask(fscore, cli_volume, model, 1)
    assert "uploaded" in fscore.refused(1, "approve", cli_volume, "llm/tiny@1")
    bob = fscore.by("bob")
    assert "is sha256:" in bob.refused(1, "approve", cli_volume, "llm/tiny@1", "--digest", "sha256:0")
    assert bob.json("approve", cli_volume, "llm/tiny@1", "--reason", "good")["by"] == "bob"
    assert "already approved by bob" in bob.refused(1, "reject", cli_volume, "llm/tiny@1", "--reason", "no")
    fscore("publish", cli_volume, "llm/tiny@1").ok()

    ask(fscore, cli_volume, changed, 2)
    assert bob("reject", cli_volume, "llm/tiny@2").code == 2, "a rejection needs its reason"
    bob("reject", cli_volume, "llm/tiny@2", "--reason", "no better").ok()
    shown = fscore.json("show", cli_volume, "llm/tiny@2")
    assert (shown["state"], shown["present"], shown["approval"]["reason"]) == ("rejected", False, "no better")
    assert "no better" in fscore("show", cli_volume, "llm/tiny@2").out
    assert "rejected" in fscore.refused(1, "publish", cli_volume, "llm/tiny@2")


def ask(fscore: Fscore, url: str, model: Path, version: int) -> None:
    """Push and ask for a decision, as the release DAG does."""
    from fscore.hub.approval import request
    from fscore.volume import open_volume

    fscore("push", url, model, "llm/tiny").ok()
    with open_volume(url) as volume:
        request(volume, f"llm/tiny@{version}", actor=fscore.user)


def test_the_log_tells_and_proves(fscore: Fscore, cli_volume: str, model: Path) -> None:
    fscore("push", cli_volume, model, "llm/tiny").ok()
    fscore("publish", cli_volume, "llm/tiny@1", "--alias", "prod").ok()
    events = fscore.json("log", cli_volume, "llm/tiny")
    assert [event["action"] for event in events] == ["upload", "stage", "publish", "alias"]
    assert {event["actor"] for event in events} == {"ann"}
    assert fscore.json("log", cli_volume, "llm/tiny", "--verify") == {"events": 4, "problems": []}

    forged = json.loads(fscore("cat", cli_volume, "/.fscore/log/llm/tiny/00000003.json").out) | {"actor": "eve"}
    local = model.parent / "forged.json"
    local.write_text(json.dumps(forged))
    fscore("cp", cli_volume, local, ":/.fscore/log/llm/tiny/00000003.json").ok()
    done = fscore("log", cli_volume, "llm/tiny", "--verify")
    assert done.code == 1
    assert "altered" in done.out


def test_aliases_move(fscore: Fscore, cli_volume: str, model: Path, changed: Path) -> None:
    for number, source in enumerate((model, changed), 1):
        fscore("push", cli_volume, source, "llm/tiny").ok()
        fscore("publish", cli_volume, f"llm/tiny@{number}").ok()
    fscore("alias", cli_volume, "llm/tiny@1", "prod").ok()
    fscore("alias", cli_volume, "llm/tiny@2", "prod").ok()
    assert fscore.json("show", cli_volume, "llm/tiny:prod")["version"] == 2
    assert fscore.json("stat", cli_volume, "/models/llm/tiny/prod")["target"] == "2"
    assert "number" in fscore.refused(1, "alias", cli_volume, "llm/tiny@2", "7")
    assert "names no version" in fscore.refused(2, "alias", cli_volume, "llm/tiny", "prod")


def test_the_release_checks_run_and_stay_with_the_version(fscore: Fscore, cli_volume: str, model: Path) -> None:
    fscore("push", cli_volume, model, "llm/tiny", "--validate").ok()
    assert fscore.json("show", cli_volume, "llm/tiny@1")["validation"]["success"] is True
    result = fscore.json("validate", cli_volume, "llm/tiny@1")
    assert result["success"]
    assert result["counts"]["tensors"] > 10


def test_bad_models_are_refused_in_one_line(fscore: Fscore, cli_volume: str, changed: Path, tmp_path: Path) -> None:
    assert "is no directory" in fscore.refused(2, "push", cli_volume, tmp_path / "missing", "llm/tiny")
    assert "bad reference" in fscore.refused(2, "push", cli_volume, changed, "no-team")
    shard = next(changed.glob("*00002*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    fscore.refused(1, "push", cli_volume, changed, "llm/tiny")
    shard.unlink()
    assert shard.name in fscore.refused(1, "push", cli_volume, changed, "llm/tiny")
    shard.write_bytes(whole)
    (changed / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pickle" in fscore.refused(1, "push", cli_volume, changed, "llm/tiny")
    (changed / "pytorch_model.bin").unlink()
    assert "no such model" in fscore.refused(1, "versions", cli_volume, "llm/tiny")
    assert "no such model" in fscore.refused(1, "log", cli_volume, "llm/tiny")
    assert "no such model" in fscore.refused(1, "log", cli_volume, "llm/tiny", "--verify")
    assert fscore.json("models", cli_volume) == []


def test_a_team_may_be_named_once(fscore: Fscore, cli_volume: str, model: Path) -> None:
    fscore("push", cli_volume, model, "tiny", "--team", "llm").ok()
    assert fscore.json("show", cli_volume, "tiny@1", "--team", "llm")["team"] == "llm"


@pytest.mark.slow
def test_the_installed_command_does_the_same(cli_volume: str, model: Path, tmp_path: Path) -> None:
    """Once in processes of their own, as a shell script would."""
    for arguments in (
        ("push", cli_volume, model, "llm/tiny", "--user", "ann"),
        ("publish", cli_volume, "llm/tiny@1", "--user", "ann", "--alias", "prod"),
        ("pull", cli_volume, "llm/tiny:prod", tmp_path / "out"),
        ("fsck", cli_volume),
    ):
        done = run_fscore(*arguments)
        assert (done.returncode, done.stderr) == (0, b""), arguments
    assert same(tmp_path / "out", model)


def test_a_split_shares_what_lies_in_one_piece(fscore: Fscore, cli_volume: str, model: Path, tmp_path: Path) -> None:
    fscore("push", cli_volume, model, "llm/tiny").ok()
    report = fscore.json("split", cli_volume, "llm/tiny@1", "--tp", 2, "--pp", 2)
    assert sorted(report["ranks"]) == ["tp0-pp0", "tp0-pp1", "tp1-pp0", "tp1-pp1"]
    assert report["bytes_new"] + report["bytes_shared"] == report["bytes_total"]
    fscore("publish", cli_volume, "llm/tiny@1").ok()
    assert "split" in fscore.refused(1, "pull", cli_volume, "llm/tiny@1", tmp_path / "none", "--rank", "tp3-pp0")
    rank = fscore.json("pull", cli_volume, "llm/tiny@1", tmp_path / "rank", "--rank", "tp1-pp1")
    assert rank["rank"] == "tp1-pp1"
    assert list((tmp_path / "rank").glob("*.safetensors"))
    assert "tp2-pp2" in fscore("show", cli_volume, "llm/tiny@1").out
    assert "divide" in fscore.refused(1, "split", cli_volume, "llm/tiny@1", "--tp", 3)


def test_a_warm_cache_covers_the_version(fscore: Fscore, roomy: str, model: Path, tmp_path: Path) -> None:
    fscore("push", roomy, model, "llm/tiny").ok()
    fscore("publish", roomy, "llm/tiny@1").ok()
    assert "no cache to fill" in fscore.refused(2, "warmup", roomy, "llm/tiny@1")
    cold = fscore.json("warmup", roomy, "llm/tiny@1", "--cache-dir", tmp_path / "cache")
    assert (cold["coverage"], cold["bytes_failed"]) == (1.0, 0)
    assert cold["bytes_fetched"] == cold["bytes_total"] >= weigh(model)
    warm = fscore.json("warmup", roomy, "llm/tiny@1", "--cache-dir", tmp_path / "cache")
    assert (warm["coverage"], warm["bytes_fetched"]) == (1.0, 0)


def test_a_warm_up_of_whole_files_leaves_them_for_the_kernel(
    fscore: Fscore, roomy: str, model: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    shutil.copytree(model, large)
    table = random.Random(1).randbytes(3 << 20)
    (large / "vocabulary.json").write_text(json.dumps({"table": table.hex()}))
    fscore("push", roomy, large, "llm/large").ok()
    fscore("publish", roomy, "llm/large@1").ok()
    cache = tmp_path / "cache"
    cold = fscore.json("warmup", roomy, "llm/large@1", "--cache-dir", cache, "--whole")
    assert (cold["coverage"], cold["bytes_failed"]) == (1.0, 0)
    (whole,) = cache.glob("*/whole/*/*.bytes")
    assert whole.read_bytes() == (large / "vocabulary.json").read_bytes()
    again = fscore.json("warmup", roomy, "llm/large@1", "--cache-dir", cache, "--whole")
    assert (again["coverage"], again["bytes_fetched"]) == (1.0, 0)


def test_sync_brings_what_is_published_and_then_nothing(
    fscore: Fscore, cli_volume: str, model: Path, changed: Path, tmp_path: Path
) -> None:
    other = f"sqlite3://{tmp_path / 'other.db'}"
    fscore("format", other, "other-cloud", "--bucket", tmp_path / "other-blocks").ok()
    fscore("push", cli_volume, model, "llm/tiny").ok()
    fscore("split", cli_volume, "llm/tiny@1", "--tp", 2).ok()
    fscore("publish", cli_volume, "llm/tiny@1", "--alias", "prod").ok()
    fscore("push", cli_volume, changed, "llm/tiny").ok()

    first = fscore.json("sync", cli_volume, other)
    assert (first["versions"], first["layouts"], first["conflicts"]) == (1, 1, [])
    assert 0 < first["bytes_moved"] <= first["bytes_total"]
    again = fscore.json("sync", cli_volume, other)
    assert (again["versions"], again["layouts"], again["bytes_moved"]) == (0, 0, 0)
    assert "2 were there" in fscore("sync", cli_volume, other, "llm/tiny").ok().out

    here, there = (fscore.json("show", url, "llm/tiny:prod") for url in (cli_volume, other))
    assert (here["digest"], here["state"]) == (there["digest"], "published")
    fscore("pull", other, "llm/tiny:prod", tmp_path / "out").ok()
    assert same(tmp_path / "out", model)
    assert "publish it first" in fscore.refused(1, "sync", cli_volume, other, "llm/tiny@2")
    assert "no such model" in fscore.refused(1, "sync", cli_volume, other, "llm/none")
    assert fscore("fsck", other).ok().out.startswith("sound")
