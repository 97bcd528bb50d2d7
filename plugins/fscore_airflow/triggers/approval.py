"""Waits for a decision about one version: in the hub's ledger, or in Airflow's own request row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail, update_hitl_detail_response
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from fscore.volume import Volume

APPROVE, REJECT = "Approve", "Reject"


class ApprovalTrigger(BaseTrigger):
    """Polls the ledger of `volume` for a decision on `ref` that is bound to `digest`.

    An answer given in Airflow resumes the task without this trigger, except when it came between the
    request and the deferral: then nobody would ever resume it. So the row is polled too, less often.

    :param volume: connection or META-URL.
    :param ref: `team/model@version`.
    :param digest: what was asked about.
    :param ti_id: the task instance whose request row is closed when the ledger decides.
    :param poll: seconds between looks into the ledger.
    """

    def __init__(self, *, volume: str, ref: str, digest: str, ti_id: str, poll: float = 1.0) -> None:
        super().__init__()
        self.volume = volume
        self.ref = ref
        self.digest = digest
        self.ti_id = ti_id
        self.poll = poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as the metadata database keeps them."""
        return (
            "fscore_airflow.triggers.approval.ApprovalTrigger",
            {"volume": self.volume, "ref": self.ref, "digest": self.digest, "ti_id": self.ti_id, "poll": self.poll},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: the ledger's decision, or the answer that nobody delivered."""
        with ExitStack() as stack:
            volume = await sync_to_async(self._open)(stack)
            looks = 0
            while True:
                decision = await sync_to_async(self._read)(volume)
                if decision is not None:
                    await self._close_row(decision)
                    yield TriggerEvent(decision)
                    return
                if looks % 5 == 1:
                    answer = await self._undelivered()
                    if answer is not None:
                        yield TriggerEvent(answer)
                        return
                looks += 1
                await asyncio.sleep(self.poll)

    def _open(self, stack: ExitStack) -> Volume:
        from fscore_airflow.hooks.volume import VolumeHook

        return stack.enter_context(VolumeHook(self.volume).open(read_only=True, session=False))

    def _read(self, volume: Volume) -> dict[str, Any] | None:
        from fscore_airflow.ledger import read_decision

        return read_decision(volume, self.ref, self.digest)

    async def _close_row(self, decision: dict[str, Any]) -> None:
        chosen = APPROVE if decision["decision"] == "approve" else REJECT
        try:
            await sync_to_async(update_hitl_detail_response)(
                ti_id=UUID(self.ti_id), chosen_options=[chosen], params_input={"reason": decision["reason"]}
            )
        except Exception as error:  # noqa: BLE001  a row answered in the same moment is closed already
            self.log.info("the request for %s was closed by somebody else: %s", self.ref, error)

    async def _undelivered(self) -> dict[str, Any] | None:
        row = await sync_to_async(get_hitl_detail_content_detail)(ti_id=UUID(self.ti_id))
        if row is None or not (row.response_received and row.chosen_options):
            return None
        user = row.responded_by_user
        return {
            "chosen_options": list(row.chosen_options),
            "params_input": row.params_input or {},
            "responded_by_user": {"id": user.id, "name": user.name} if user else None,
        }
