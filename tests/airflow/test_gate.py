"""The approval gate over real volumes: decided before, decided while it waits, rejected, answered in Airflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fscore.hub import approval
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.reports import PushReport
from fscore.volume import Volume, open_volume
from tests.airflow.conftest import Clouds

RunDag = Callable[..., Any]
Draft = tuple[Volume, PushReport]


@pytest.fixture
def draft(clouds: Clouds, mini: Callable[[str], Path]) -> Iterator[Draft]:
    """A draft version in the first cloud, uploaded by `trainer`."""
    with open_volume(clouds.url(clouds.home)) as volume:
        yield volume, push(volume, mini("llama"), "ai/llama", user="trainer", purpose="gate test")


def ask(run_dag: RunDag, clouds: Clouds, ref: str, digest: str) -> Any:
    """A run of the gate about that version."""
    return run_dag("gate_only", volume=clouds.home, ref=ref, digest=digest, uploader="trainer")


def states(run: Any) -> dict[str, str]:
    """Task -> final state."""
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def later(action: Callable[[], object], volume: Volume, ref: str) -> threading.Thread:
    """Do `action` once the gate has asked and waits."""

    def wait_then_act() -> None:
        deadline = time.monotonic() + 60
        while Registry(volume).show(ref, "trainer").state != "pending" and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        action()

    thread = threading.Thread(target=wait_then_act)
    thread.start()
    return thread


def test_a_decision_that_exists_is_passed_on(run_dag: RunDag, clouds: Clouds, draft: Draft) -> None:
    """Approved before the run came here: nobody is asked again."""
    volume, pushed = draft
    approval.request(volume, pushed.ref, actor="trainer")
    approval.decide(volume, pushed.ref, "approve", by="releaser", reason="known good")
    run = ask(run_dag, clouds, pushed.ref, pushed.digest)
    assert states(run) == {"approve": "success", "publish": "success"}


def test_an_approval_on_the_command_line_resumes_the_gate(run_dag: RunDag, clouds: Clouds, draft: Draft) -> None:
    """The ledger decides while the gate is deferred."""
    volume, pushed = draft
    thread = later(lambda: approval.decide(volume, pushed.ref, "approve", by="releaser"), volume, pushed.ref)
    run = ask(run_dag, clouds, pushed.ref, pushed.digest)
    thread.join()
    assert states(run) == {"approve": "success", "publish": "success"}
    decision = approval.read(volume, pushed.ref)
    assert decision is not None
    assert decision.by == "releaser"


def test_a_rejection_ends_the_run_and_cleans_the_draft(run_dag: RunDag, clouds: Clouds, draft: Draft) -> None:
    """Nothing behind the gate runs; the reason stays, the files go."""
    volume, pushed = draft
    thread = later(
        lambda: approval.decide(volume, pushed.ref, "reject", by="releaser", reason="wrong licence"), volume, pushed.ref
    )
    run = ask(run_dag, clouds, pushed.ref, pushed.digest)
    thread.join()
    assert states(run) == {"approve": "success", "publish": "skipped"}
    info = Registry(volume).show(pushed.ref, "trainer")
    assert info.state == "rejected"
    assert info.approval is not None
    assert info.approval.reason == "wrong licence"
    assert not volume.files.exists(pushed.path)


def test_another_digest_is_not_decided_by_this_decision(run_dag: RunDag, clouds: Clouds, draft: Draft) -> None:
    """A gate that asks about other bytes fails instead of passing."""
    volume, pushed = draft
    approval.request(volume, pushed.ref, actor="trainer")
    approval.decide(volume, pushed.ref, "approve", by="releaser")
    run = ask(run_dag, clouds, pushed.ref, "sha256:" + "0" * 64)
    assert states(run)["approve"] == "failed"
