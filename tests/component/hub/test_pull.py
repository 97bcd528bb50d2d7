"""Pull and warm: what comes out is what went in; broken, stopped and foreign things are seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from fscore.domain.errors import CorruptError, HubError, StoreError
from fscore.hub import records
from fscore.hub.manifest import parse
from fscore.hub.pull import pull
from fscore.hub.push import push
from fscore.hub.split_version import split_version
from fscore.hub.warm import coverage, warm
from fscore.volume import Volume
from tests.kit.releases import local_content, release
from tests.kit.volumes import MakeVolume

Make = Callable[..., Path]
Mini = Callable[[str], Path]


@pytest.fixture
def published(hub_volume: Volume, small_model: Make) -> Volume:
    release(hub_volume, small_model(README__md=b"# made"), "nlp/made", alias="prod")
    return hub_volume


def test_what_comes_out_is_what_went_in(published: Volume, small_model: Make, tmp_path: Path) -> None:
    report = pull(published, "nlp/made:prod", tmp_path / "out")
    assert local_content(tmp_path / "out") == local_content(small_model())
    assert (report.version, report.bytes_fetched, report.bytes_kept) == (1, report.bytes_total, 0)
    stored = parse((tmp_path / "out/.fscore/manifest.json").read_bytes())
    assert stored == records.read_manifest(published.files, "/models/nlp/made/1")
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_second_pull_brings_what_is_missing_or_wrong(published: Volume, small_model: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pull(published, "nlp/made", out)
    assert pull(published, "nlp/made", out).bytes_fetched == 0
    weights = out / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + b"x")
    (out / "README.md").unlink()
    again = pull(published, "nlp/made", out)
    assert again.bytes_fetched == len(data) + len(b"# made")
    assert local_content(out) == local_content(small_model())


def test_a_stopped_pull_goes_on_where_it_stopped(published: Volume, small_model: Make, tmp_path: Path) -> None:
    data = (small_model() / "model.safetensors").read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors.part").write_bytes(data[:500_000])
    assert pull(published, "nlp/made", out).bytes_kept == 500_000
    assert local_content(out) == local_content(small_model())
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "model.safetensors.part").write_bytes(b"x" + data[1:500_000])
    assert pull(published, "nlp/made", wrong).bytes_kept == 0
    assert local_content(wrong) == local_content(small_model())


def test_what_cannot_be_had_says_what_there_is(published: Volume, tmp_path: Path) -> None:
    for ref, options, said in (
        ("nlp/made@7", {}, "no such version"),
        ("nlp/made:staging", {}, "no such alias"),
        ("nlp/none", {}, "no published version"),
        ("nlp/made", {"rank": "tp0-pp0"}, "has no rank tp0-pp0"),
        ("nlp/made", {"layout": "tp2-pp2"}, "has no layout tp2-pp2"),
        ("nlp/made", {"rank": "../x"}, "is no rank"),
        ("nlp/made", {"layout": "../x"}, "is no layout"),
    ):
        with pytest.raises(HubError, match=said):
            pull(published, ref, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_one_rank_of_a_layout(hub_volume: Volume, mini: Mini, tmp_path: Path) -> None:
    pushed = push(hub_volume, mini("llama"), "llm/llama", user="ann")
    split_version(hub_volume, pushed.ref, tp=2, pp=2, actor="ann")
    split_version(hub_volume, pushed.ref, tp=2, pp=1, actor="ann")
    with pytest.raises(HubError, match="several layouts"):
        pull(hub_volume, pushed.ref, tmp_path / "rank", rank="tp1-pp0")
    report = pull(hub_volume, pushed.ref, tmp_path / "rank", rank="tp1-pp0", layout="tp2-pp2")
    assert report.rank == "tp1-pp0"
    assert (tmp_path / "rank/config.json").is_file()
    names: set[str] = set()
    for path in (tmp_path / "rank").glob("*.safetensors"):
        with safe_open(path, "np") as opened:
            names |= set(opened.keys())
    assert any("layers.0." in name for name in names)
    assert not any(name.startswith("model.norm") for name in names), "the last stage has it"
    whole = pull(hub_volume, pushed.ref, tmp_path / "all", layout="tp2-pp2")
    assert whole.files == 4 * report.files
    assert (tmp_path / "all/tp0-pp1/config.json").is_file()


def test_altered_objects_are_seen(published: Volume, open_at: MakeVolume, tmp_path: Path) -> None:
    key = max(published.objects.scan("chunks/"), key=lambda info: info.size).key
    data = bytes(published.objects.get(key))
    published.objects.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    fresh = open_at(published.url)
    with pytest.raises((CorruptError, StoreError)):
        pull(fresh, "nlp/made", tmp_path / "out")
    assert not (tmp_path / "out/.fscore").exists(), "without its manifest a directory is not complete"
    published.objects.put(key, data)
    assert pull(open_at(published.url), "nlp/made", tmp_path / "out").files == 3


@pytest.fixture
def cold(open_at: MakeVolume, mini: Mini, tmp_path: Path) -> Volume:
    """A published, split model in a volume that is opened with an empty disk cache."""
    url = f"memory://{tmp_path.name}-cold"
    first = open_at(url)
    ref = push(first, mini("llama"), "llm/llama", user="ann").ref
    split_version(first, ref, tp=1, pp=2, actor="ann")
    return open_at(url, cache_dir=str(tmp_path / "cache"), memory_cache=0)


def test_warming_fills_the_cache_and_says_how_far(cold: Volume) -> None:
    assert coverage(cold, "llm/llama@1").coverage == 0
    rank = warm(cold, "llm/llama@1", rank="tp0-pp1", layout="tp1-pp2")
    assert rank.coverage == 1
    assert rank.bytes_fetched >= rank.bytes_total > 0
    part = coverage(cold, "llm/llama@1")
    assert part.coverage > 0
    done = warm(cold, "llm/llama@1")
    assert (done.coverage, done.bytes_cached, done.bytes_failed) == (1, done.bytes_total, 0)
    assert warm(cold, "llm/llama@1").bytes_fetched == 0
