"""The approval gate over real volumes: decided before, decided while it waits, rejected, answered in Airflow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from fscore.hub import approval
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.reports import PushReport
from fscore.volume import Volume, open_volume
from fscore_airflow.operators.approval import ApprovalGate
from fscore_airflow.triggers.approval import ApprovalTrigger
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


def gate(clouds: Clouds, pushed: PushReport, **options: Any) -> ApprovalGate:
    """The operator alone, with its fields as templates would leave them."""
    fields = {"volume": clouds.home, "ref": pushed.ref, "digest": pushed.digest, "uploader": "trainer", **options}
    return ApprovalGate(task_id="approve", subject="Release?", **fields)


def answer(option: str, by: str, reason: str = "") -> dict[str, Any]:
    """What Airflow hands over when somebody used the form or REST."""
    return {
        "chosen_options": [option],
        "params_input": {"reason": reason},
        "responded_by_user": {"id": by, "name": by},
    }


class Run:
    """As much of a DAG run as the gate looks at."""

    dag_id, run_id = "test", "manual__1"


class Instance:
    """As much of a task instance as the gate looks at."""

    id = "01a20cba-da2a-7b7b-a5c5-9a18c032beb0"


CONTEXT: Any = {"dag_run": Run(), "ti": Instance()}


def test_an_answer_in_airflow_is_written_into_the_ledger(clouds: Clouds, draft: Draft) -> None:
    """With who and why, bound to the digest."""
    volume, pushed = draft
    approval.request(volume, pushed.ref, actor="trainer")
    found = gate(clouds, pushed).execute_complete(CONTEXT, answer("Approve", "releaser", "looks good"))
    decision = approval.read(volume, pushed.ref)
    assert decision is not None
    assert (decision.by, decision.reason, decision.digest) == ("releaser", "looks good", pushed.digest)
    assert found["decision"] == "approve"


def test_the_second_answer_gives_way_to_the_first(clouds: Clouds, draft: Draft) -> None:
    """The command line approved a moment before the form said no: approved it is."""
    volume, pushed = draft
    approval.request(volume, pushed.ref, actor="trainer")
    approval.decide(volume, pushed.ref, "approve", by="releaser")
    found = gate(clouds, pushed).execute_complete(CONTEXT, answer("Reject", "somebody", "no"))
    assert (found["decision"], found["by"]) == ("approve", "releaser")


@pytest.mark.parametrize(("approvers", "by"), [([], "trainer"), (["releaser"], "somebody")])
def test_an_answer_that_does_not_count_is_asked_again(
    clouds: Clouds, draft: Draft, monkeypatch: pytest.MonkeyPatch, approvers: list[str], by: str
) -> None:
    """Neither the uploader nor somebody who was not asked decides; the gate goes on waiting."""
    volume, pushed = draft
    approval.request(volume, pushed.ref, actor="trainer", approvers=approvers)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("fscore_airflow.operators.approval.upsert_hitl_detail", lambda **fields: asked.append(fields))
    with pytest.raises(TaskDeferred) as waiting:
        gate(clouds, pushed, approvers=approvers).execute_complete(CONTEXT, answer("Approve", by))
    assert approval.read(volume, pushed.ref) is None
    assert len(asked) == 1
    assert isinstance(waiting.value.trigger, ApprovalTrigger)


def test_an_answer_that_nobody_delivered_is_found(
    clouds: Clouds, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given between the request and the deferral, it resumes no task by itself."""
    _, pushed = draft
    row = SimpleNamespace(
        response_received=True,
        chosen_options=["Approve"],
        params_input={"reason": "quick"},
        responded_by_user=SimpleNamespace(id="releaser", name="releaser"),
    )
    monkeypatch.setattr("fscore_airflow.triggers.approval.get_hitl_detail_content_detail", lambda **_: row)
    trigger = ApprovalTrigger(volume=clouds.home, ref=pushed.ref, digest=pushed.digest, ti_id=Instance.id, poll=0.01)
    path, arguments = trigger.serialize()
    assert path == "fscore_airflow.triggers.approval.ApprovalTrigger"

    async def first() -> Any:
        return await anext(ApprovalTrigger(**arguments).run())

    assert asyncio.run(first()).payload == answer("Approve", "releaser", "quick")
