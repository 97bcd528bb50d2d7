"""Waits for a complete checkpoint that was not ingested before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from fscore_airflow.triggers.checkpoint import CheckpointTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class CheckpointSensor(BaseSensorOperator):
    """Succeeds when a directory below `directory` holds a complete, quiet checkpoint unknown to the model's log.

    Complete is what the format's own commit marker and the files' sizes prove, never a modification time alone;
    quiet is two equal looks at least `quiesce` seconds apart. The result has the shape of AcquireModel's report.

    :param directory: the watched directory; a checkpoint is it or one of its children.
    :param volume: connection or META-URL of the volume that gets the checkpoint.
    :param ref: `team/model`, whose log says what was ingested before.
    :param quiesce: seconds of quiet that async savers need.
    :param poll: seconds between looks.
    """

    template_fields: Sequence[str] = ("directory", "volume", "ref", "quiesce")

    def __init__(
        self,
        *,
        directory: str,
        volume: str,
        ref: str,
        quiesce: float | str = 30.0,
        poll: float = 5.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.directory = directory
        self.volume = volume
        self.ref = ref
        self.quiesce = quiesce
        self.poll = poll

    def execute(self, context: Context) -> None:
        """Hand the waiting to the triggerer at once: a checkpoint needs two looks in any case."""
        self.log.info("watching %s for a new checkpoint of %s", self.directory, self.ref)
        self.defer(
            trigger=CheckpointTrigger(
                directory=self.directory,
                volume=self.volume,
                ref=self.ref,
                quiesce=float(self.quiesce),
                poll=self.poll,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint's location and what its probe found."""
        for key, value in event.items():
            self.log.info("%s: %s", key, value)
        return event
