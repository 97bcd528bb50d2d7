"""Crash sweeps over releases: whatever fails, no version is half visible, nothing acknowledged is lost, reruns end.

Each story is told to a volume whose store and metadata fail for good at step 1, 2, 3 ...; then, healed and reopened,
the volume must be sound, show only whole versions, and the same story told again must come to its end.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.admin.report import Problem
from fscore.domain.errors import FsError, NotFound, StoreError, UnavailableError
from fscore.hub import approval, names, records
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.split_version import split_version
from fscore.meta.engines.registry import forget_memory, open_engine
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty, When
from fscore.sync import sync_versions
from fscore.sync.verify import differences
from fscore.volume import Volume, open_volume
from tests.kit.crash import STEPS, faulty_engine
from tests.kit.releases import content_of, local_content, model_dir, noise, release

OPTIONS = {"background": False, "attempts": 1, "patience_s": (0.0,)}
Acked = dict[str, object]
Tell = Callable[[Volume, Acked], None]


class Stand(msgspec.Struct):
    """One volume, and how to open it with and without faults."""

    url: str
    store: MemoryStore
    plan: FaultPlan

    def faulty(self) -> Volume:
        """Opened so that calls fail by the plan."""
        engine = faulty_engine(open_engine(self.url), self.plan)
        return open_volume(self.url, object_store=Faulty(self.store, self.plan), meta_engine=engine, **OPTIONS)  # type: ignore[arg-type]

    def healed(self, *, read_only: bool = False) -> Volume:
        """Opened as if nothing had ever failed."""
        return open_volume(self.url, object_store=self.store, read_only=read_only, **OPTIONS)  # type: ignore[arg-type]


def stand(plan: FaultPlan) -> Stand:
    """A fresh volume in memory."""
    name = uuid.uuid4().hex
    store = MemoryStore(name)
    url = f"memory://{name}"
    format_volume(url, "crash", storage="memory", bucket=name, object_store=store, block_size="64K", trash_days=0)
    return Stand(url, store, plan)


def problems(volume: Volume) -> list[Problem]:
    """What fsck finds, but for statistics of directories: the format lets them drift when a crash loses a flush."""
    return [found for found in fsck(volume).problems if found.kind != "dir_stat"]


def only_whole(volume: Volume) -> None:
    """Every version and layout that lies at its place, published or draft, is complete and as its manifest says."""
    for top in (names.MODELS, f"{names.HOME}/drafts"):
        for here, dirs, others in volume.files.walk(top) if volume.files.exists(top) else ():
            for found in dirs:
                if names.split_entry(found.name) and here.count("/") == top.count("/") + 2:
                    manifest = records.read_manifest(volume.files, found.path)
                    assert differences(volume.files, found.path, manifest) == [], found.path
            for link in others:
                if link.is_symlink and not link.name.startswith("."):
                    assert volume.files.is_dir(link.path), f"{link.path} leads nowhere"


def acknowledged(volume: Volume, acked: Acked) -> None:
    """What a call returned before the fault is so."""
    registry = Registry(volume)
    for name, told in acked.items():
        if name == "pushed":
            assert registry.show(told.ref, "ann").digest == told.digest  # type: ignore[attr-defined]
        elif name == "decided":
            assert approval.read(volume, told.ref) == told  # type: ignore[attr-defined]
        elif name == "published":
            shown = registry.show(told.ref, "ann")  # type: ignore[attr-defined]
            assert (shown.state, shown.path, shown.aliases) == ("published", "/models/nlp/made/1", ("prod",))
        elif name == "split":
            assert records.read_manifest(volume.files, told.path).version_digest == told.digest  # type: ignore[attr-defined]
        elif name == "synced":
            assert volume.files.is_dir("/models/nlp/made/1")


def sweep(prepare: Tell, tell: Tell, finished: Tell, when: When, *, first: int = 1, stride: int = 1) -> int:
    """Tell the story, failing at step 1, 2, 3 ... for good, until it has fewer steps; returns how many it has."""
    for step in count(first, stride):
        plan = FaultPlan(0, persistent=True, when=when, calls=STEPS, error=UnavailableError)
        place = stand(plan)
        with place.healed() as volume:
            prepare(volume, {})
        acked: Acked = {}
        volume = place.faulty()
        plan.seen, plan.at = 0, step
        with suppress(FsError, StoreError):
            tell(volume, acked)
        with suppress(FsError, StoreError):
            volume.close()
        struck = plan.struck > 0
        plan.heal()
        try:
            with place.healed() as volume:
                assert problems(volume) == [], f"step {step}"
                only_whole(volume)
                acknowledged(volume, acked)
                tell(volume, acked)
                acknowledged(volume, acked)
                only_whole(volume)
                finished(volume, acked)
                volume.collect()
                assert problems(volume) == [], f"step {step}, told again"
        finally:
            forget_memory(place.url.removeprefix("memory://"))
        if not struck:
            return step - 1
    raise AssertionError("unreachable")


def nothing(_: Volume, __: Acked) -> None:
    """No preparation."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tensors, a config, a twin."""
    folder = model_dir(tmp_path_factory.mktemp("crash") / "m", {"a": noise(100_000, 1), "b": noise(70_000, 2)})
    (folder / "sub").mkdir()
    (folder / "sub/twin.dat").write_bytes(noise(70_000, 2))
    return folder


@pytest.mark.parametrize("when", list(When))
def test_push(model: Path, when: When) -> None:
    def tell(volume: Volume, acked: Acked) -> None:
        acked["pushed"] = push(volume, model, "nlp/made", user="ann", alias="prod")

    def finished(volume: Volume, acked: Acked) -> None:
        assert acked["pushed"].state == "staged"  # type: ignore[attr-defined]
        assert volume.files.listdir("/.fscore/drafts/nlp/made") == ["1"]
        assert volume.files.listdir("/.fscore/staging/nlp/made") == []
        assert content_of(volume, "/.fscore/drafts/nlp/made/1") == local_content(model)
        assert Registry(volume).verify_log("nlp/made") == []

    assert sweep(nothing, tell, finished, when) > 30


@pytest.mark.parametrize("when", list(When))
def test_decide_and_publish(model: Path, when: When) -> None:
    def prepare(volume: Volume, _: Acked) -> None:
        push(volume, model, "nlp/made", user="ann", alias="prod")

    def tell(volume: Volume, acked: Acked) -> None:
        approval.request(volume, "nlp/made@1", actor="ann")
        acked["decided"] = approval.decide(volume, "nlp/made@1", "approve", by="bob")
        acked["published"] = Registry(volume).publish("nlp/made@1", "ann", request_id="run")

    def finished(volume: Volume, _: Acked) -> None:
        assert content_of(volume, "/models/nlp/made/prod") == local_content(model)
        assert all(s.immutable for _, d, f in volume.files.walk("/models/nlp/made/1") for s in [*d, *f])
        actions = [event.action for event in Registry(volume).log("nlp/made")]
        assert [actions.count(name) for name in ("request", "approve", "publish")] == [1, 1, 1]
        assert Registry(volume).verify_log("nlp/made") == []

    assert sweep(prepare, tell, finished, when) > 15


@pytest.mark.parametrize("when", list(When))
def test_reject(model: Path, when: When) -> None:
    def prepare(volume: Volume, _: Acked) -> None:
        push(volume, model, "nlp/made", user="ann")
        approval.request(volume, "nlp/made@1", actor="ann")

    def tell(volume: Volume, acked: Acked) -> None:
        acked["decided"] = approval.decide(volume, "nlp/made@1", "reject", by="bob", reason="no")

    def finished(volume: Volume, _: Acked) -> None:
        assert volume.files.listdir("/.fscore/drafts/nlp/made") == []
        assert "manifest.json" in volume.files.listdir("/.fscore/log/nlp/made/kept/1")

    assert sweep(prepare, tell, finished, when) > 5


@pytest.mark.parametrize("published", [False, True], ids=["draft", "published"])
def test_split(mini: Callable[[str], Path], *, published: bool) -> None:
    folder = mini("gpt2")

    def prepare(volume: Volume, _: Acked) -> None:
        if published:
            release(volume, folder, "nlp/made")
        else:
            push(volume, folder, "nlp/made", user="ann")

    def tell(volume: Volume, acked: Acked) -> None:
        acked["split"] = split_version(volume, "nlp/made@1", tp=2, actor="ann")

    def finished(volume: Volume, _: Acked) -> None:
        top = "/models/nlp/made" if published else "/.fscore/drafts/nlp/made"
        assert sorted(volume.files.listdir(top)) == ["1", "1+tp2-pp1"]
        assert Registry(volume).verify_log("nlp/made") == []

    # a split has a hundred steps: each way takes every second one
    if published:
        assert sweep(prepare, tell, finished, When.AFTER, first=2, stride=2) > 20
    else:
        assert sweep(prepare, tell, finished, When.BEFORE, stride=2) > 20


@pytest.mark.parametrize("when", list(When))
def test_sync(model: Path, when: When) -> None:
    home = stand(FaultPlan(0))
    with home.healed() as source:
        release(source, model, "nlp/made", alias="prod")
    # Read only: else each telling adds to the log that the next one carries over, and no telling is the last.
    with home.healed(read_only=True) as source:

        def tell(volume: Volume, acked: Acked) -> None:
            acked["synced"] = sync_versions(source, volume)

        def finished(volume: Volume, _: Acked) -> None:
            assert content_of(volume, "/models/nlp/made/prod") == local_content(model)
            assert Registry(volume).verify_log("nlp/made") == []
            assert sync_versions(source, volume).bytes_moved == 0
            with pytest.raises(NotFound):
                volume.files.stat("/.fscore/drafts/nlp/made/1")

        assert sweep(nothing, tell, finished, when) > 30
        assert problems(source) == []
