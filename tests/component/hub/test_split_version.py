"""Layouts beside their versions: drafts beside drafts, published beside published, once, and mostly shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fscore.domain.errors import HubError
from fscore.hub import approval, records
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import LocalSource
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.split.plan import plan_split
from fscore.hub.split.write import materialise
from fscore.hub.split_version import split_version
from fscore.volume import Volume
from fscore_airflow.demo.checkpoints import vary, write_checkpoint
from tests.kit.releases import content_of, release, stored

Mini = Callable[[str], Path]


def expected(folder: Path, tp: int, pp: int) -> dict[str, bytes]:
    """Every file of every rank, made from the source without a volume."""
    source = LocalSource(folder)
    made: dict[str, bytes] = {}
    for rank in plan_split(scan_model(source), tp, pp).ranks:
        for file in rank.files:
            made[f"{rank.name}/{file.path}"] = b"".join(bytes(part) for part in materialise(file, source, made))
    return made


def test_a_draft_is_split_decided_and_published_with_its_layouts(hub_volume: Volume, mini: Mini) -> None:
    folder = mini("llama")
    ref = push(hub_volume, folder, "llm/llama", user="ann").ref
    before = stored(hub_volume)
    report = split_version(hub_volume, ref, tp=2, pp=2, actor="ann")
    assert (report.path, report.ranks) == (
        "/.fscore/drafts/llm/llama/1+tp2-pp2",
        ("tp0-pp0", "tp1-pp0", "tp0-pp1", "tp1-pp1"),
    )
    assert content_of(hub_volume, report.path) == expected(folder, 2, 2)
    assert stored(hub_volume) - before < report.bytes_new + 10_000
    manifest = records.read_manifest(hub_volume.files, report.path)
    assert (manifest.version_digest, manifest.parallel.tp, manifest.parallel.pp) == (report.digest, 2, 2)
    assert manifest.parallel.derived_from == manifest.parent_digest == Registry(hub_volume).show(ref, "ann").digest
    asked = approval.request(hub_volume, ref, actor="ann")
    assert asked.layouts == {"tp2-pp2": report.digest}
    said = approval.decide(hub_volume, ref, "approve", by="bob")
    assert said.layouts == asked.layouts
    info = Registry(hub_volume).publish(ref, "ann")
    assert [layout.path for layout in info.layouts] == ["/models/llm/llama/1+tp2-pp2"]
    assert content_of(hub_volume, "/models/llm/llama/1+tp2-pp2") == expected(folder, 2, 2)
    assert hub_volume.files.stat("/models/llm/llama/1+tp2-pp2").immutable
    assert hub_volume.files.listdir("/.fscore/drafts/llm/llama") == []


def test_a_published_version_gets_published_layouts(hub_volume: Volume, mini: Mini) -> None:
    folder = mini("llama")
    release(hub_volume, folder, "llm/llama")
    first = split_version(hub_volume, "llm/llama", pp=2, actor="ann")
    assert first.path == "/models/llm/llama/1+tp1-pp2"
    assert first.zero_copy > 0.9
    again = split_version(hub_volume, "llm/llama", pp=2, actor="bob")
    assert (again.deduplicated, again.digest, again.bytes_new) == (True, first.digest, 0)
    assert content_of(hub_volume, first.path) == expected(folder, 1, 2)
    assert [e.action for e in Registry(hub_volume).log("llm/llama")].count("split") == 1


def test_a_layout_added_after_the_decision_does_not_ride_along(hub_volume: Volume, mini: Mini) -> None:
    ref = push(hub_volume, mini("llama"), "llm/llama", user="ann").ref
    approval.request(hub_volume, ref, actor="ann")
    approval.decide(hub_volume, ref, "approve", by="bob")
    with pytest.raises(HubError, match="cannot split"):
        split_version(hub_volume, ref, tp=2, actor="ann")
    Registry(hub_volume).publish(ref, "ann")
    assert split_version(hub_volume, ref, tp=2, actor="ann").path == "/models/llm/llama/1+tp2-pp1"


def test_a_layout_that_vanished_stops_the_publication(hub_volume: Volume, mini: Mini) -> None:
    ref = push(hub_volume, mini("llama"), "llm/llama", user="ann").ref
    path = split_version(hub_volume, ref, tp=2, actor="ann").path
    approval.request(hub_volume, ref, actor="ann")
    approval.decide(hub_volume, ref, "approve", by="bob")
    hub_volume.files.set_immutable(path, False, recursive=True)
    hub_volume.files.rmtree(path, skip_trash=True)
    with pytest.raises(HubError, match="not what was approved"):
        Registry(hub_volume).publish(ref, "ann")
    assert not hub_volume.files.exists("/models/llm/llama/1")


def test_a_rejected_version_takes_its_layouts_along(hub_volume: Volume, mini: Mini) -> None:
    ref = push(hub_volume, mini("llama"), "llm/llama", user="ann").ref
    split_version(hub_volume, ref, tp=2, actor="ann")
    approval.request(hub_volume, ref, actor="ann")
    approval.decide(hub_volume, ref, "reject", by="bob", reason="no")
    hub_volume.collect()
    assert hub_volume.files.listdir("/.fscore/drafts/llm/llama") == []
    assert stored(hub_volume) < 100_000, "only records are left"


def test_a_degree_that_does_not_divide_leaves_nothing(hub_volume: Volume, mini: Mini) -> None:
    ref = push(hub_volume, mini("llama"), "llm/llama", user="ann").ref
    with pytest.raises(HubError, match="heads"):
        split_version(hub_volume, ref, tp=7, actor="ann")
    with pytest.raises(HubError, match="at least 1"):
        split_version(hub_volume, ref, tp=0, actor="ann")
    assert hub_volume.files.listdir("/.fscore/drafts/llm/llama") == ["1"]
    assert hub_volume.files.listdir("/.fscore/staging/llm/llama") == []


def test_a_changed_version_shares_the_columns_that_did_not_change(hub_volume: Volume, tmp_path: Path) -> None:
    old, new = write_checkpoint(tmp_path / "old", nbytes=20_000_000), tmp_path / "new"
    vary(old, new, fraction=0.1)
    push(hub_volume, old, "llm/llama", user="ann")
    first = split_version(hub_volume, "llm/llama@1", tp=2, pp=2, actor="ann")
    before = stored(hub_volume)
    pushed = push(hub_volume, new, "llm/llama", user="ann")
    second = split_version(hub_volume, "llm/llama@2", tp=2, pp=2, actor="ann")
    grown = stored(hub_volume) - before
    assert content_of(hub_volume, second.path) == expected(new, 2, 2)
    assert content_of(hub_volume, first.path) == expected(old, 2, 2)
    assert second.bytes_new < first.bytes_new // 2
    assert second.bytes_new + second.bytes_shared == second.bytes_total
    assert grown < 0.11 * pushed.bytes_total + (1 << 20), "release and layout together"
