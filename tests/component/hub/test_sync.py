"""Two clouds: only missing content moves, what arrives is verified, and history and aliases come along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from fscore.domain.errors import CorruptError, HubError, UnavailableError
from fscore.hub import records
from fscore.hub.pull import pull
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.split_version import split_version
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty
from fscore.sync import SyncReport, sync_versions
from fscore.volume import Volume
from tests.kit.releases import content_of, local_content, release, stored
from tests.kit.volumes import MakeVolume, assert_sound

Make = Callable[..., Path]
Mini = Callable[[str], Path]


@pytest.fixture
def home(hub_volume: Volume, small_model: Make) -> Volume:
    release(hub_volume, small_model(), "nlp/made", alias="prod")
    return hub_volume


@pytest.fixture
def region(open_at: MakeVolume, tmp_path: Path) -> Iterator[Volume]:
    """The other cloud."""
    volume = open_at(f"memory://{tmp_path.name}-region", setting={"bucket": str(tmp_path / "region")})
    yield volume
    assert_sound(volume)


def moved(report: SyncReport) -> list[tuple[str, str]]:
    return [(item.ref, item.action) for item in report.items]


def test_what_is_published_arrives_once(home: Volume, region: Volume, small_model: Make, tmp_path: Path) -> None:
    push(home, small_model("draft", changed=2), "nlp/made", user="ann")
    report = sync_versions(home, region)
    assert moved(report) == [("nlp/made@1", "copied")]
    assert (report.versions, report.bytes_moved, report.conflicts) == (1, report.bytes_total, ())
    assert content_of(region, "/models/nlp/made/1") == local_content(small_model())
    assert content_of(region, "/models/nlp/made/prod") == local_content(small_model())
    assert all(s.immutable for _, dirs, files in region.files.walk("/models/nlp/made/1") for s in [*dirs, *files])
    assert records.read_manifest(region.files, "/models/nlp/made/1") == records.read_manifest(
        home.files, "/models/nlp/made/1"
    )
    for log in (Registry(home), Registry(region)):
        assert log.verify_log("nlp/made") == []
        assert [e.action for e in log.log("nlp/made")][-1] == "sync"
    assert pull(region, "nlp/made:prod", tmp_path / "out").files == 2
    before = stored(region)
    again = sync_versions(home, region)
    assert (again.bytes_moved, again.versions, moved(again)) == (0, 0, [("nlp/made@1", "kept")])
    assert stored(region) == before


def test_the_next_version_moves_only_what_changed(home: Volume, region: Volume, small_model: Make) -> None:
    sync_versions(home, region)
    release(home, small_model("v2", changed=1), "nlp/made", alias="prod")
    report = sync_versions(home, region)
    assert report.bytes_moved < 0.06 * report.bytes_total
    assert report.versions == 1
    assert content_of(region, "/models/nlp/made/prod") == local_content(small_model("v2", changed=1))
    assert region.files.readlink("/models/nlp/made/prod") == "2"


def test_layouts_are_made_anew_from_what_is_there(home: Volume, region: Volume, mini: Mini) -> None:
    release(home, mini("llama"), "llm/llama")
    split = split_version(home, "llm/llama", tp=2, pp=2, actor="ann")
    report = sync_versions(home, region, ["llm/llama"])
    assert moved(report) == [("llm/llama@1", "copied"), ("llm/llama@1+tp2-pp2", "composed")]
    assert report.items[1].bytes_moved == split.bytes_new
    assert content_of(region, "/models/llm/llama/1+tp2-pp2") == content_of(home, "/models/llm/llama/1+tp2-pp2")
    shown = Registry(region).show("llm/llama", "ann")
    assert [layout.digest for layout in shown.layouts] == [split.digest]
    assert sync_versions(home, region).layouts == 0


def test_a_layout_that_comes_out_otherwise_is_copied(home: Volume, region: Volume, mini: Mini) -> None:
    release(home, mini("llama"), "llm/llama")
    split = split_version(home, "llm/llama", pp=2, actor="ann")
    files = home.files
    files.set_immutable(split.path, False, recursive=True)
    readme = f"{split.path}/tp0-pp0/config.json"
    files.write_bytes(readme, files.read_bytes(readme) + b"\n")
    tampered = _reseal(home, split.path)
    report = sync_versions(home, region, ["llm/llama@1"])
    assert moved(report)[1] == ("llm/llama@1+tp1-pp2", "copied")
    assert report.items[1].digest == tampered
    assert content_of(region, split.path) == content_of(home, split.path)


def _reseal(volume: Volume, path: str) -> str:
    """Write a manifest that fits the files as they are now; returns its digest."""
    import hashlib

    from fscore.hub import manifest as manifests

    old = records.read_manifest(volume.files, path)
    content = content_of(volume, path)
    files = tuple(
        msgspec.structs.replace(f, size=len(content[f.path]), sha256=hashlib.sha256(content[f.path]).hexdigest())
        for f in old.files
    )
    new = msgspec.structs.replace(old, files=files, version_digest=manifests.digest_of(files))
    volume.files.write_atomic(records.audit_path(path, "manifest.json"), manifests.render(new), replace=True)
    return new.version_digest


def test_damage_on_the_way_is_never_shown(home: Volume, region: Volume, small_model: Make) -> None:
    path = "/models/nlp/made/1"
    home.files.set_immutable(path, False, recursive=True)
    data = bytearray(home.files.read_bytes(f"{path}/model.safetensors"))
    data[-1] ^= 1
    home.files.write_bytes(f"{path}/model.safetensors", bytes(data))
    with pytest.raises((CorruptError, HubError)):
        sync_versions(home, region)
    assert not region.files.exists("/models/nlp/made/1")
    data[-1] ^= 1
    home.files.write_bytes(f"{path}/model.safetensors", bytes(data))
    assert sync_versions(home, region).versions == 1
    assert content_of(region, "/models/nlp/made/1") == local_content(small_model())


def test_a_stopped_sync_goes_on(home: Volume, open_at: MakeVolume, small_model: Make, tmp_path: Path) -> None:
    folder = small_model("many")
    for number in range(12):
        (folder / f"extra{number}.dat").write_bytes(bytes([number]) * 50_000)
    release(home, folder, "nlp/many")
    plan = FaultPlan(0, persistent=True, error=UnavailableError)
    url = f"memory://{tmp_path.name}-flaky"
    store = MemoryStore(url)
    region = open_at(url, setting={"object_store": store, "storage": "memory", "bucket": "flaky"},
                     object_store=Faulty(store, plan), attempts=1)  # fmt: skip
    plan.at = plan.seen + 12
    with pytest.raises(UnavailableError):
        sync_versions(home, region, ["nlp/many"])
    assert not region.files.exists("/models/nlp/many/1")
    plan.heal()
    report = sync_versions(home, region, ["nlp/many"])
    assert 0 < report.bytes_moved < report.bytes_total
    assert content_of(region, "/models/nlp/many/1") == local_content(folder)
    assert_sound(region, leaks=True)


def test_another_version_of_the_same_number_is_left_alone(home: Volume, region: Volume, small_model: Make) -> None:
    release(region, small_model("other", changed=3), "nlp/made")
    report = sync_versions(home, region)
    assert (report.versions, report.bytes_moved) == (0, 0)
    assert "nlp/made@1" in report.conflicts[0]
    assert content_of(region, "/models/nlp/made/1") == local_content(small_model("other", changed=3))


def test_a_region_with_a_history_of_its_own_takes_new_versions_in(
    home: Volume, region: Volume, small_model: Make
) -> None:
    sync_versions(home, region)
    registry = Registry(region)
    registry.set_alias("nlp/made@1", "canary", "zoe")
    release(home, small_model("v2", changed=1), "nlp/made")
    report = sync_versions(home, region)
    assert (report.versions, report.conflicts) == (1, ())
    assert Registry(region).show("nlp/made@2", "zoe").state == "published"
    assert Registry(region).resolve("nlp/made") == (2, "/models/nlp/made/2")
    assert Registry(region).verify_log("nlp/made") == []
    assert Registry(region).resolve("nlp/made:canary")[0] == 1
    assert sync_versions(home, region).bytes_moved == 0


def test_a_revoked_version_is_withdrawn_everywhere(home: Volume, region: Volume) -> None:
    sync_versions(home, region)
    Registry(home).revoke("nlp/made@1", "ann", "leaked")
    report = sync_versions(home, region)
    assert report.withdrawn == ("nlp/made@1",)
    assert region.files.listdir("/models/nlp/made") == []
    with pytest.raises(HubError, match="is revoked"):
        Registry(region).resolve("nlp/made@1")
    assert sync_versions(home, region).withdrawn == ()


def test_only_published_versions_are_asked_for(home: Volume, region: Volume, small_model: Make) -> None:
    push(home, small_model("d", changed=4), "nlp/made", user="ann")
    with pytest.raises(HubError, match="cannot sync nlp/made@2: it is staged"):
        sync_versions(home, region, ["nlp/made@2"])
    with pytest.raises(HubError, match="no such model"):
        sync_versions(home, region, ["nlp/none"])
    assert moved(sync_versions(home, region, ["nlp/made:prod"])) == [("nlp/made@1", "copied")]
