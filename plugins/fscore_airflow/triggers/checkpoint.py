"""Looks at a watched directory until a new checkpoint is complete and quiet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from fscore_airflow.watch import Watch


class CheckpointTrigger(BaseTrigger):
    """One event with the oldest checkpoint that is complete, quiet for `quiesce` seconds and not yet in the log."""

    def __init__(self, *, directory: str, volume: str, ref: str, quiesce: float, poll: float) -> None:
        super().__init__()
        self.directory = directory
        self.volume = volume
        self.ref = ref
        self.quiesce = quiesce
        self.poll = poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as the metadata database keeps them."""
        return (
            "fscore_airflow.triggers.checkpoint.CheckpointTrigger",
            {
                "directory": self.directory,
                "volume": self.volume,
                "ref": self.ref,
                "quiesce": self.quiesce,
                "poll": self.poll,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Scan in a thread, wait in the loop."""
        watch = await sync_to_async(self._watch)()
        while True:
            found = await sync_to_async(watch.look)()
            for line in watch.news():
                self.log.info("%s", line)
            if found is not None:
                yield TriggerEvent(found)
                return
            await asyncio.sleep(min(self.poll, self.quiesce) if self.quiesce else self.poll)

    def _watch(self) -> Watch:
        from fscore_airflow.watch import Watch

        return Watch(self.directory, self.volume, self.ref, self.quiesce)
