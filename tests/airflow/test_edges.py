"""Small things that every operator leans on: errors that are not retried, progress in the log, reports, templates."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from airflow.sdk.exceptions import AirflowFailException

from fscore.domain.errors import (
    CorruptError,
    HubError,
    NoSpace,
    NotFound,
    SettingError,
    TransientError,
    UnavailableError,
)
from fscore.runtime.clock import FakeClock
from fscore_airflow.operators.base import is_true, workspace_of
from fscore_airflow.progress import LogProgress
from fscore_airflow.refusals import refusals
from fscore_airflow.reports import report


@pytest.mark.parametrize(
    "error",
    [
        HubError("no", kind="denied"),
        HubError("no", kind="unsafe", hint="push anew"),
        SettingError("wrong URL"),
        CorruptError("bad block"),
        NotFound(path="/x"),
    ],
)
def test_what_a_retry_cannot_mend_fails_at_once(error: Exception) -> None:
    """And says why in the same words."""
    with pytest.raises(AirflowFailException) as failed, refusals():
        raise error
    assert str(failed.value) == str(error)


@pytest.mark.parametrize(
    "error",
    [
        TransientError("503"),
        UnavailableError("redis is away"),
        HubError("busy", kind="conflict"),
        NoSpace("disk full"),
        ConnectionError("cut"),
    ],
)
def test_what_may_pass_is_retried(error: Exception) -> None:
    """Airflow's retries get it as it is."""
    with pytest.raises(type(error)), refusals():
        raise error


def test_progress_speaks_at_most_each_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """A start, a line now and then, an end; nothing after the end."""
    clock = FakeClock()
    progress = LogProgress(logging.getLogger("progress"), every_s=5.0, clock=clock)
    with caplog.at_level(logging.INFO, logger="progress"):
        task = progress.start("upload", 100_000_000, "B")
        for _ in range(100):
            progress.advance(task, 1_000_000)
            clock.advance(0.1)
        progress.finish(task)
        progress.advance(task, 5)
        other = progress.start("scan", None, "files")
        progress.advance(other, 3)
        progress.finish(other)
    assert caplog.messages == [
        "upload: 100.0 MB to go",
        "upload: 51.0 MB of 100.0 MB (51 %)",
        "upload: 100.0 MB in 10.0 s",
        "scan: started",
        "scan: 3 files in 0.0 s",
    ]


def test_reports_are_plain_and_short() -> None:
    """Tuples become lists, long lists are cut, and only structs are reports."""

    class Report(msgspec.Struct):
        names: tuple[str, ...]
        files: list[int]

    assert report(Report(("a",), list(range(60)))) == {"names": ["a"], "files": [*range(50), "... and 10 more"]}
    with pytest.raises(TypeError, match="no report"):
        report([1])


@pytest.mark.parametrize(
    ("value", "truth"), [(True, True), ("True", True), ("true", True), (False, False), ("False", False)]
)
def test_a_checkbox_through_a_template(value: bool | str, truth: bool) -> None:
    """The word False is not true."""
    assert is_true(value) is truth


def test_a_workspace_is_the_same_in_every_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It depends on the run only, and no name leaves the root."""

    class Run:
        dag_id = "model_release"
        run_id = "manual__2026-01-01T00:00:00+00:00/../x"

    monkeypatch.setenv("FSCORE_WORK_DIR", str(tmp_path))
    path = workspace_of({"dag_run": Run()})
    assert path == workspace_of({"dag_run": Run()})
    assert path.parent.parent == tmp_path
