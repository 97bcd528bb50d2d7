"""What the operators share: who acts, and where remote files of a run may lie."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fscore_airflow.progress import LogProgress

SERVICE = "airflow"
"""Acts when no person triggered the run."""


class FscoreOperator(BaseOperator):
    """A step that works on volumes. Subclasses import the core inside `execute`."""

    def progress(self) -> LogProgress:
        """Long work reports to this task's log."""
        from fscore_airflow.progress import LogProgress

        return LogProgress(self.log)

    def tell(self, report: dict[str, Any]) -> dict[str, Any]:
        """Write a report's figures to the log and hand it to XCom."""
        for key, value in report.items():
            self.log.info("%s: %s", key, value)
        return report


def actor_of(context: Context) -> str:
    """The user who triggered the run, or the service itself."""
    return str(getattr(context["dag_run"], "triggering_user_name", None) or SERVICE)


def is_true(value: bool | str) -> bool:
    """A boolean that may have come through a template."""
    return value is True or str(value).lower() == "true"


def workspace_of(context: Context) -> Path:
    """A directory of this run's own below FSCORE_WORK_DIR; the same in every try."""
    root = Path(os.environ.get("FSCORE_WORK_DIR") or Path(tempfile.gettempdir()) / f"fscore-work-{os.getuid()}")
    run = context["dag_run"]
    return root / _plain(run.dag_id) / _plain(run.run_id)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
