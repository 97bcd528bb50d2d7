"""The approval gate: one task that shows in Required Actions and sees the hub's ledger; whoever comes first wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

from fscore_airflow.operators.base import SERVICE
from fscore_airflow.triggers.approval import ApprovalTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

REASON = Param(
    None,
    source="task",  # one without a source is no field of the form
    type=["null", "string"],
    title="Reason",
    description="Kept in the model's log.",
)


class ApprovalGate(ApprovalOperator):
    """Asks for approval of a draft version; the hub's ledger is the truth, Airflow's form one way to write it.

    Approved in Airflow, by REST or by `fscore approve`: the run goes on. Rejected: everything downstream is
    skipped, the draft is removed and the reason stays in the log. A retry, a cleared task or a second run
    of a version that was decided before reads the decision and does not ask again.

    :param volume: connection or META-URL of the volume with the draft.
    :param ref: `team/model@version` of the draft.
    :param digest: the digest the decision is bound to.
    :param approvers: ids of the users that may decide; empty means anyone but the uploader.
    :param uploader: who pushed the draft.
    :param poll: seconds between looks into the ledger.
    """

    template_fields: Sequence[str] = (
        *ApprovalOperator.template_fields,
        "volume",
        "ref",
        "digest",
        "approvers",
        "uploader",
    )

    def __init__(
        self,
        *,
        volume: str,
        ref: str,
        digest: str,
        approvers: Sequence[str] = (),
        uploader: str = "",
        poll: float = 1.0,
        **kwargs: Any,  # noqa: ANN401  what every operator takes
    ) -> None:
        # A DAG with params hands them to every task: `setdefault` would leave the form without its field.
        kwargs["params"] = {"reason": REASON}
        super().__init__(ignore_downstream_trigger_rules=True, **kwargs)
        self.volume = volume
        self.ref = ref
        self.digest = digest
        self.approvers = approvers
        self.uploader = uploader
        self.poll = poll

    def execute(self, context: Context) -> dict[str, Any]:
        """Pass on a decision that exists; else ask and wait without a worker slot."""
        decision = self._decided_or_requested(context["dag_run"].run_id)
        if decision is not None:
            return self._finish(context, decision)
        self._ask(context)
        raise AssertionError("unreachable: deferred")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume with the ledger's decision, or write the answer given in Airflow into the ledger."""
        if "decision" in event:
            return self._finish(context, event)
        if event.get("error"):
            raise AirflowFailException(f"{self.ref} waits for approval no longer: {event['error']}")
        return self._finish(context, self._record(context, event))

    def _decided_or_requested(self, run_id: str) -> dict[str, Any] | None:
        from fscore.hub.approval import request
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.ledger import read_decision
        from fscore_airflow.refusals import refusals

        with refusals(), VolumeHook(self.volume).open() as volume:
            decision = read_decision(volume, self.ref, self.digest)
            if decision is None:
                request(
                    volume,
                    self.ref,
                    actor=self.uploader or SERVICE,
                    digest=self.digest,
                    approvers=list(self.approvers),
                    dag_run_id=run_id,
                )
            return decision

    def _ask(self, context: Context) -> None:
        ti_id = context["ti"].id
        upsert_hitl_detail(
            ti_id=ti_id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            defaults=self.defaults,
            multiple=False,
            params=self.serialized_params,
            assigned_users=[{"id": name, "name": name} for name in self.approvers] or None,
        )
        for notifier in self.notifiers:
            notifier(context)
        self.log.info("%s (%s) waits for approval: Required Actions, REST, or `fscore approve`", self.ref, self.digest)
        self.defer(
            trigger=ApprovalTrigger(
                volume=self.volume, ref=self.ref, digest=self.digest, ti_id=str(ti_id), poll=self.poll
            ),
            method_name="execute_complete",
            timeout=self.response_timeout,
        )

    def _record(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        from fscore.domain.errors import HubError
        from fscore.hub.approval import decide
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.ledger import read_decision
        from fscore_airflow.refusals import refusals
        from fscore_airflow.reports import report

        self.validate_chosen_options(event["chosen_options"])
        user = event.get("responded_by_user") or {}
        by = str(user.get("name") or user.get("id") or "unknown")
        reason = str((event.get("params_input") or {}).get("reason") or "")
        run_id = context["dag_run"].run_id
        verdict = "approve" if event["chosen_options"] == [self.APPROVE] else "reject"
        with refusals(), VolumeHook(self.volume).open() as volume:
            try:
                taken = decide(volume, self.ref, verdict, by=by, reason=reason, digest=self.digest, dag_run_id=run_id)
                return report(taken)
            except HubError as error:
                standing = read_decision(volume, self.ref, self.digest)
                if standing is not None:
                    self.log.warning("the answer of %s came second: %s", by, error)
                    return standing
                if error.kind != "denied":
                    raise
                self.log.warning("the answer of %s does not count: %s; asking again", by, error)
        self._ask(context)
        raise AssertionError("unreachable: deferred")

    def _finish(self, context: Context, decision: dict[str, Any]) -> dict[str, Any]:
        self.log.info("%s: %s by %s: %s", self.ref, decision["decision"], decision["by"], decision["reason"] or "-")
        if decision["decision"] == "approve":
            return decision
        # Skipping ends the task by an exception, so its result would be lost.
        context["ti"].xcom_push(key="return_value", value=decision)
        tasks = [task for task in context["task"].get_flat_relatives(upstream=False) if not task.is_teardown]
        self.skip(ti=context["ti"], tasks=tasks)
        return decision
