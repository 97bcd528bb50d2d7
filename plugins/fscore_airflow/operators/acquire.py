"""Acquire and validate: the model within reach, and a verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from fscore_airflow.operators.base import FscoreOperator, is_true

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fscore.hub.validate.report import ValidationResult

VALIDATION_FILE = "validation.json"
_MOST_REASONS = 10


class AcquireModel(FscoreOperator):
    """Brings a model within reach: local path, `hf://org/name@rev`, `s3://bucket/prefix`, `fscore://volume/path`.

    Safetensors are preferred over pickles of the same weights; a second try goes on where the first was cut.

    :param uri: where the model is.
    :param workspace: directory for what must be downloaded.
    :param include: patterns of files to take; empty takes all.
    :param exclude: patterns of files to leave out.
    :param allow_pickle: take pickles, too.
    """

    template_fields: Sequence[str] = ("uri", "workspace", "include", "exclude", "allow_pickle")

    def __init__(
        self,
        *,
        uri: str,
        workspace: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        allow_pickle: bool | str = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.uri = uri
        self.workspace = workspace
        self.include = include
        self.exclude = exclude
        self.allow_pickle = allow_pickle

    def execute(self, context: Context) -> dict[str, Any]:
        """Log the preview, fetch what is missing, return the location and the figures."""
        from fscore_airflow.acquire.fetch import Request, acquire
        from fscore_airflow.refusals import refusals
        from fscore_airflow.reports import report

        request = Request(
            uri=self.uri,
            workspace=self.workspace,
            include=list(self.include),
            exclude=list(self.exclude),
            allow_pickle=is_true(self.allow_pickle),
        )
        with refusals():
            return self.tell(report(acquire(request, self.log, self.progress())))


class ValidateModel(FscoreOperator):
    """Judges tensors, files and config by the release suite; a failed critical check fails the run with the reasons.

    :param acquired: report of AcquireModel.
    :param workspace: directory where the whole result is kept for the push.
    :param allow_pickle: let pickles pass with a warning.
    """

    template_fields: Sequence[str] = ("acquired", "workspace", "allow_pickle")

    def __init__(
        self,
        *,
        acquired: dict[str, Any],
        workspace: str,
        allow_pickle: bool | str = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.acquired = acquired
        self.workspace = workspace
        self.allow_pickle = allow_pickle

    def execute(self, context: Context) -> dict[str, Any]:
        """The verdict in short; the whole result lies in the workspace."""
        import msgspec

        from fscore.hub.validate.run import validate
        from fscore_airflow.acquire.source import opened
        from fscore_airflow.refusals import refusals

        with refusals(), opened(self.acquired["source"]) as source:
            result = validate(source, allow_pickle=is_true(self.allow_pickle), progress=self.progress())
        path = Path(self.workspace) / VALIDATION_FILE
        path.write_bytes(msgspec.json.encode(result))
        failed = [check for check in result.checks if not check.success]
        for check in failed:
            self.log.warning("%s %s: %s", check.severity, check.name, check.detail)
        if not result.success:
            raise AirflowFailException(f"{source.location} is refused: {_reasons(result)}")
        return self.tell(
            {
                "success": result.success,
                "checks": len(result.checks),
                "warnings": [f"{check.name}: {check.detail}" for check in failed],
                "counts": result.counts,
                "digest": result.digest,
                "result": str(path),
            }
        )


def _reasons(result: ValidationResult) -> str:
    bad = [
        f"{check.name}: {check.detail}" for check in result.checks if not check.success and check.severity != "warning"
    ]
    more = f"; and {len(bad) - _MOST_REASONS} more" if len(bad) > _MOST_REASONS else ""
    return "; ".join(bad[:_MOST_REASONS]) + more
