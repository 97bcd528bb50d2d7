"""Versions, decisions and aliases: who may, who is first, what readers see, what the log keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fscore.admin.format import format_volume
from fscore.domain.errors import HubError, NotFound
from fscore.hub import approval
from fscore.hub.access import Policy, TeamPolicy, save_policy
from fscore.hub.pull import pull
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.split_version import split_version
from fscore.volume import Volume, open_volume
from tests.kit.releases import content_of, local_content, release
from tests.kit.volumes import assert_sound

Make = Callable[..., Path]


class Result(msgspec.Struct):
    """A validation result as far as the registry cares."""

    success: bool
    counts: dict[str, int]


@pytest.fixture
def draft(hub_volume: Volume, small_model: Make) -> str:
    return push(hub_volume, small_model(), "nlp/made", user="ann", alias="stable").ref


def test_a_decision_is_taken_once(hub_volume: Volume, draft: str) -> None:
    asked = approval.request(hub_volume, draft, actor="ann", approvers=["bob", "carol"])
    assert approval.request(hub_volume, draft, actor="ann") == asked
    assert approval.read(hub_volume, draft) is None
    said = approval.decide(hub_volume, draft, "approve", by="bob", reason="good numbers")
    assert (said.by, said.reason, said.digest) == ("bob", "good numbers", asked.digest)
    assert approval.decide(hub_volume, draft, "approve", by="carol") == said
    with pytest.raises(HubError, match="already approved by bob") as refused:
        approval.decide(hub_volume, draft, "reject", by="carol")
    assert refused.value.kind == "conflict"
    assert approval.read(hub_volume, draft) == said


def test_nobody_decides_on_their_own_upload(hub_volume: Volume, draft: str) -> None:
    approval.request(hub_volume, draft, actor="ann")
    with pytest.raises(HubError, match="cannot decide") as refused:
        approval.decide(hub_volume, draft, "approve", by="ann")
    assert refused.value.kind == "denied"


def test_only_those_asked_decide(hub_volume: Volume, draft: str) -> None:
    approval.request(hub_volume, draft, actor="ann", approvers=["bob"])
    with pytest.raises(HubError, match="asked: bob"):
        approval.decide(hub_volume, draft, "approve", by="eve")


def test_a_decision_is_bound_to_the_digest(hub_volume: Volume, draft: str) -> None:
    with pytest.raises(HubError, match="not sha256:0"):
        approval.request(hub_volume, draft, actor="ann", digest="sha256:0")
    approval.request(hub_volume, draft, actor="ann")
    with pytest.raises(HubError, match="not sha256:0"):
        approval.decide(hub_volume, draft, "approve", by="bob", digest="sha256:0")


def test_a_pending_version_is_neither_published_nor_split(hub_volume: Volume, draft: str) -> None:
    approval.request(hub_volume, draft, actor="ann")
    for refused in (
        lambda: Registry(hub_volume).publish(draft, "ann"),
        lambda: split_version(hub_volume, draft, tp=2, actor="ann"),
        lambda: Registry(hub_volume).record_validation(draft, Result(success=True, counts={}), "ann"),
        lambda: Registry(hub_volume).set_alias(draft, "prod", "ann"),
    ):
        with pytest.raises(HubError) as told:
            refused()
        assert told.value.kind == "state"
    assert not hub_volume.files.exists("/models/nlp/made/1")


def test_a_rejected_version_is_cleaned_and_remembered(hub_volume: Volume, draft: str, small_model: Make) -> None:
    Registry(hub_volume).record_validation(draft, Result(success=True, counts={"critical": 0}), "ann")
    approval.request(hub_volume, draft, actor="ann")
    said = approval.decide(hub_volume, draft, "reject", by="bob", reason="wrong base")
    assert said.decision == "reject"
    files = hub_volume.files
    assert files.listdir("/.fscore/drafts/nlp/made") == []
    assert sorted(files.listdir("/.fscore/log/nlp/made/kept/1")) == ["manifest.json", "tensors.json", "validation.json"]
    info = Registry(hub_volume).show(draft, "ann")
    assert (info.state, info.present, info.approval) == ("rejected", False, said)
    with pytest.raises(HubError, match="is rejected"):
        Registry(hub_volume).resolve(draft)
    assert approval.decide(hub_volume, draft, "reject", by="bob") == said
    again = push(hub_volume, small_model(), "nlp/made", user="ann")
    assert (again.version, again.deduplicated) == (2, False)


def test_a_failed_validation_stops_a_release(hub_volume: Volume, small_model: Make) -> None:
    failed = Result(success=False, counts={"critical": 1})
    pushed = push(hub_volume, small_model(), "nlp/made", user="ann", validation=failed)
    assert pushed.state == "staged"
    for refused in (
        lambda: approval.request(hub_volume, pushed.ref, actor="ann"),
        lambda: Registry(hub_volume).publish(pushed.ref, "ann"),
    ):
        with pytest.raises(HubError, match="failed its release checks"):
            refused()
    info = Registry(hub_volume).record_validation(pushed.ref, Result(success=True, counts={}), "ann")
    assert info.state == "validated"
    assert Registry(hub_volume).publish(pushed.ref, "ann").state == "published"


def test_publish_is_done_once(hub_volume: Volume, draft: str) -> None:
    registry = Registry(hub_volume)
    info = registry.publish(draft, "ann", request_id="run-1")
    assert (info.state, info.aliases, info.path) == ("published", ("stable",), "/models/nlp/made/1")
    assert registry.publish(draft, "ann", request_id="run-1") == info
    for other in ({"actor": "bob"}, {"actor": "ann", "request_id": "run-2"}):
        with pytest.raises(HubError, match="already published by ann") as refused:
            registry.publish(draft, **other)
        assert refused.value.kind == "conflict"


def test_a_retried_publication_moves_no_alias_back(hub_volume: Volume, draft: str, small_model: Make) -> None:
    registry = Registry(hub_volume)
    registry.publish(draft, "ann", request_id="run-1")
    release(hub_volume, small_model("b", changed=1), "nlp/made", alias="stable")
    registry.publish(draft, "ann", request_id="run-1")
    assert registry.resolve("nlp/made:stable")[0] == 2


def test_aliases_move_and_go(hub_volume: Volume, small_model: Make) -> None:
    _, one = release(hub_volume, small_model(), "nlp/made", alias="prod")
    _, two = release(hub_volume, small_model("b", changed=1), "nlp/made")
    registry = Registry(hub_volume)
    assert registry.resolve("nlp/made:prod") == (1, one.path)
    assert registry.resolve("nlp/made") == (2, two.path)
    assert registry.set_alias("nlp/made@2", "prod", "ann").aliases == ("prod",)
    assert hub_volume.files.readlink("/models/nlp/made/prod") == "2"
    assert Registry(hub_volume).resolve("nlp/made:prod") == (2, two.path)
    registry.remove_alias("nlp/made", "prod", "ann")
    with pytest.raises(HubError, match="no such alias"):
        registry.resolve("nlp/made:prod")
    with pytest.raises(HubError, match="no such alias"):
        registry.remove_alias("nlp/made", "prod", "ann")
    assert sorted(hub_volume.files.listdir("/models/nlp/made")) == ["1", "2"]


def test_a_revoked_version_leaves_every_reader(hub_volume: Volume, small_model: Make, tmp_path: Path) -> None:
    release(hub_volume, small_model(), "nlp/made", alias="prod")
    release(hub_volume, small_model("b", changed=1), "nlp/made")
    registry = Registry(hub_volume)
    assert registry.deprecate("nlp/made@1", "ann").state == "deprecated"
    assert pull(hub_volume, "nlp/made@1", tmp_path / "out").warnings == ("nlp/made@1 is deprecated",)
    info = registry.revoke("nlp/made@1", "ann", "leaked data")
    assert (info.state, info.present, info.aliases) == ("revoked", False, ())
    assert hub_volume.files.listdir("/models/nlp/made") == ["2"]
    assert content_of(hub_volume, "/.fscore/revoked/nlp/made/1") == local_content(small_model())
    with pytest.raises(HubError, match="is revoked"):
        pull(hub_volume, "nlp/made@1", tmp_path / "out")
    assert registry.revoke("nlp/made@1", "ann").state == "revoked"
    assert registry.verify_log("nlp/made") == []


def test_what_there_is(hub_volume: Volume, small_model: Make) -> None:
    release(hub_volume, small_model(), "nlp/made", alias="prod")
    push(hub_volume, small_model("b", changed=1), "nlp/made", user="ann", purpose="tests", description="two")
    push(hub_volume, small_model("c"), "vision/other", user="ann")
    registry = Registry(hub_volume)
    assert [(m.team, m.model, m.versions, m.latest, m.aliases) for m in registry.models("ann")] == [
        ("nlp", "made", 2, 1, {"prod": 1}),
        ("vision", "other", 1, 0, {}),
    ]
    one, two = registry.versions("nlp/made", "ann")
    assert (one.state, one.uploader, one.files, one.tensors) == ("published", "ann", 2, 10)
    assert (two.state, two.purpose, two.description, two.path) == (
        "staged",
        "tests",
        "two",
        "/.fscore/drafts/nlp/made/2",
    )
    with pytest.raises(HubError, match="no such model"):
        registry.versions("nlp/none", "ann")
    with pytest.raises(HubError, match="no such version"):
        registry.show("nlp/made@9", "ann")
    with pytest.raises(HubError, match="no published version"):
        registry.resolve("vision/other")


def test_teams_see_and_do_only_theirs(hub_volume: Volume, small_model: Make) -> None:
    teams = {"nlp": TeamPolicy(("ann",), ("bob",)), "vision": TeamPolicy(("vera",), ())}
    save_policy(hub_volume.files, Policy(teams, admins=("root",)))
    pushed = push(hub_volume, small_model(), "nlp/made", user="ann")
    registry = Registry(hub_volume)
    assert [m.model for m in registry.models("ann")] == ["made"]
    assert registry.models("vera") == []
    assert [m.model for m in registry.models("root")] == ["made"]
    for refused in (
        lambda: push(hub_volume, small_model(), "nlp/x", user="vera"),
        lambda: registry.show("nlp/made@1", "vera"),
        lambda: registry.models("vera", "nlp"),
        lambda: registry.publish(pushed.ref, "vera"),
        lambda: pull(hub_volume, pushed.ref, "/nowhere", user="vera"),
        lambda: approval.decide(hub_volume, pushed.ref, "approve", by="vera"),
    ):
        with pytest.raises(HubError) as told:
            refused()
        assert told.value.kind == "denied"
    with pytest.raises(HubError, match="only what is approved"):
        registry.publish(pushed.ref, "ann")
    approval.request(hub_volume, pushed.ref, actor="ann")
    approval.decide(hub_volume, pushed.ref, "approve", by="bob")
    registry.publish(pushed.ref, "ann")
    with pytest.raises(HubError, match="protected alias production"):
        registry.set_alias(pushed.ref, "production", "ann")
    assert registry.set_alias(pushed.ref, "production", "bob").aliases == ("production",)


def test_an_unreadable_policy_lets_nobody_in(hub_volume: Volume) -> None:
    hub_volume.files.mkdir("/.fscore")
    hub_volume.files.write_bytes("/.fscore/teams.json", b"{")
    with pytest.raises(HubError, match="no policy"):
        Registry(hub_volume).models("ann")


def test_a_log_that_was_touched_shows_it(hub_volume: Volume, small_model: Make) -> None:
    release(hub_volume, small_model(), "nlp/made")
    files = hub_volume.files
    second = "/.fscore/log/nlp/made/00000002.json"
    data = files.read_bytes(second)
    files.write_bytes(second, data.replace(b'"ann"', b'"eve"'))
    assert Registry(hub_volume).verify_log("nlp/made") == [f"{second} was altered"]
    files.unlink(second)
    assert Registry(hub_volume).verify_log("nlp/made") == ["event 2 is missing"]
    with pytest.raises(HubError, match="event 2 is missing"):
        Registry(hub_volume).show("nlp/made@1", "ann")


def test_an_approved_draft_that_changed_is_not_published(hub_volume: Volume, small_model: Make) -> None:
    folder = small_model()
    pushed = push(hub_volume, folder, "nlp/made", user="ann")
    approval.request(hub_volume, pushed.ref, actor="ann")
    approval.decide(hub_volume, pushed.ref, "approve", by="bob")
    with pytest.raises(PermissionError):
        hub_volume.files.write_bytes(f"{pushed.path}/config.json", b"{}")
    with pytest.raises((PermissionError, NotFound)):
        hub_volume.files.unlink(f"{pushed.path}/.fscore/manifest.json")
    assert Registry(hub_volume).publish(pushed.ref, "ann").digest == pushed.digest


RACE = """
import sys, time
from pathlib import Path
from fscore.domain.errors import HubError
from fscore.hub.registry import Registry
from fscore.volume import open_volume
url, actor, start = sys.argv[1], sys.argv[2], Path(sys.argv[3])
with open_volume(url, background=False) as volume:
    registry = Registry(volume)
    registry.show("nlp/made@1", actor)
    print("ready", flush=True)
    while not start.exists():
        time.sleep(0.001)
    try:
        print(registry.publish("nlp/made@1", actor, alias="prod").state)
    except HubError as error:
        print(error.kind, "|", error)
"""


def test_two_processes_racing_to_publish(tmp_path: Path, small_model: Make) -> None:
    url = f"sqlite3://{tmp_path / 'race.db'}"
    format_volume(url, "race", bucket=f"{tmp_path / 'race'}/", block_size="64K", trash_days=0)
    for round_ in range(2):
        with open_volume(url, background=False) as volume:
            push(volume, small_model(f"m{round_}", changed=round_), f"nlp/made{round_}", user="ann")
        start = tmp_path / f"start{round_}"
        script = RACE.replace("nlp/made@1", f"nlp/made{round_}@1")
        racers = [
            subprocess.Popen([sys.executable, "-c", script, url, name, str(start)], stdout=subprocess.PIPE, text=True)
            for name in ("ann", "zoe")
        ]
        assert all(racer.stdout is not None and racer.stdout.readline() == "ready\n" for racer in racers)
        start.touch()
        said = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
        assert said[1] == "published", said
        assert said[0].startswith(f"conflict | nlp/made{round_}@1 was already published by "), said
    with open_volume(url, background=False) as volume:
        for round_ in range(2):
            registry = Registry(volume)
            assert [e.action for e in registry.log(f"nlp/made{round_}")].count("publish") == 1
            assert registry.verify_log(f"nlp/made{round_}") == []
            assert content_of(volume, f"/models/nlp/made{round_}/prod") == local_content(
                small_model(f"m{round_}", changed=round_)
            )
        assert_sound(volume, leaks=True)


PUSH = """
import sys
from fscore.hub.push import push
from fscore.volume import open_volume
with open_volume(sys.argv[1], background=False) as volume:
    done = push(volume, sys.argv[2], "nlp/made", user=sys.argv[3])
    print(done.version, done.digest, done.state)
"""


def test_two_processes_pushing_the_same(tmp_path: Path, small_model: Make) -> None:
    url = f"sqlite3://{tmp_path / 'twice.db'}"
    format_volume(url, "twice", bucket=f"{tmp_path / 'twice'}/", block_size="64K", trash_days=0)
    folder = small_model()
    for number in range(40):
        (folder / f"extra{number}.json").write_text(f'{{"n": {number}}}')
    racers = [
        subprocess.Popen([sys.executable, "-c", PUSH, url, str(folder), name], stdout=subprocess.PIPE, text=True)
        for name in ("ann", "zoe", "bob")
    ]
    said = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(said) == 1
    with open_volume(url, background=False) as volume:
        assert content_of(volume, "/.fscore/drafts/nlp/made/1") == local_content(folder)
        assert volume.files.listdir("/.fscore/drafts/nlp/made") == ["1"]
        assert volume.files.listdir("/.fscore/staging/nlp/made") == []
        assert_sound(volume, leaks=True)


def test_a_killed_push_goes_on(tmp_path: Path, small_model: Make) -> None:
    url = f"sqlite3://{tmp_path / 'killed.db'}"
    format_volume(url, "killed", bucket=f"{tmp_path / 'killed'}/", block_size="64K", trash_days=0)
    folder = small_model()
    for number in range(300):
        (folder / f"extra{number}.json").write_text(f'{{"n": {number}}}')
    racer = subprocess.Popen([sys.executable, "-c", PUSH, url, str(folder), "ann"])
    with open_volume(url, background=False) as volume:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and count_staged(volume) < 20 and racer.poll() is None:
            time.sleep(0.005)
        os.kill(racer.pid, signal.SIGKILL)
        racer.wait()
        assert count_staged(volume) >= 20
        assert not volume.files.exists("/.fscore/drafts/nlp/made/1")
        pushed = push(volume, folder, "nlp/made", user="ann")
        assert pushed.bytes_new < pushed.bytes_total
        assert content_of(volume, pushed.path) == local_content(folder)
        assert_sound(volume, leaks=True)


def count_staged(volume: Volume) -> int:
    top = "/.fscore/staging/nlp/made"
    try:
        return sum(len(volume.files.listdir(f"{top}/{name}/files")) for name in volume.files.listdir(top))
    except NotFound:
        return 0
