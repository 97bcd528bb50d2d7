"""The run's own directory: made before, removed after, whatever happens in between."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from fscore_airflow.operators.base import FscoreOperator, workspace_of

if TYPE_CHECKING:
    from airflow.sdk import Context


class PrepareWorkspace(FscoreOperator):
    """Setup: make the directory, readable by this user only; returns its path."""

    def execute(self, context: Context) -> str:
        """Make it; a second try finds it."""
        path = workspace_of(context)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(path).free
        self.log.info("workspace %s, %.1f GB free", path, free / 1e9)
        return str(path)


class RemoveWorkspace(FscoreOperator):
    """Teardown: remove the directory."""

    def execute(self, context: Context) -> None:
        """Remove it; that it is gone already is fine."""
        path = workspace_of(context)
        shutil.rmtree(path, ignore_errors=True)
        self.log.info("workspace %s is removed", path)
