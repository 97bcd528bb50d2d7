"""What a scheduled warm-up is about: which versions, and how it went before the scale-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from fscore_airflow.operators.base import SERVICE, FscoreOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fscore.hub.reports import VersionInfo


class PlanWarmUp(FscoreOperator):
    """Lists what to warm: one model when it is named, else the released version of every model.

    :param volume: connection or META-URL.
    :param ref: `team/model`, with `@version` or `:alias`; None means every model.
    :param alias: which version of each model is meant; models without this alias are warmed at their latest.
    :param rank: `tp0-pp1`, where only one rank's files are needed; a version without it is left out.
    """

    template_fields: Sequence[str] = ("volume", "ref", "alias", "rank")

    def __init__(
        self,
        *,
        volume: str,
        ref: str | None = None,
        alias: str = "production",
        rank: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.volume = volume
        self.ref = ref
        self.alias = alias
        self.rank = rank

    def execute(self, context: Context) -> list[dict[str, str]]:
        """One mapping of WarmVersion's arguments for each version."""
        from fscore.hub.access import Actor
        from fscore.hub.registry import Registry
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals

        everything = Actor(SERVICE, admin=True)
        rank = self.rank or ""
        with refusals(), VolumeHook(self.volume).open(read_only=True, session=False) as volume:
            registry = Registry(volume)
            if self.ref:
                info = registry.show(self.ref, everything)
                return [{"ref": f"{info.team}/{info.model}@{info.version}", "rank": rank}]
            jobs: list[dict[str, str]] = []
            for model in registry.models(everything):
                number = model.aliases.get(self.alias, model.latest)
                ref = f"{model.team}/{model.model}@{number}"
                if number and (not rank or _has_rank(registry.show(ref, everything), rank)):
                    jobs.append({"ref": ref, "rank": rank})
        self.log.info("to be warmed: %s", ", ".join(job["ref"] for job in jobs) or "nothing")
        return jobs


class ReportWarmUp(FscoreOperator):
    """Adds up the warm-ups of a run, and fails it when less than `least` of the bytes are in the cache.

    :param reports: what the WarmVersion tasks returned.
    :param least: wanted coverage, 0 to 1.
    """

    template_fields: Sequence[str] = ("reports", "least")

    def __init__(self, *, reports: Sequence[dict[str, Any]], least: float | str = 1.0, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.reports = reports
        self.least = least

    def execute(self, context: Context) -> dict[str, Any]:
        """Bytes, coverage, and how long before the scale-up it was done."""
        from fscore.runtime.clock import SystemClock

        reports = list(self.reports or [])
        total = sum(int(item["bytes_total"]) for item in reports)
        held = sum(int(item["bytes_cached"]) for item in reports)
        coverage = held / total if total else 1.0
        scale_up = context.get("data_interval_end")
        early = None if scale_up is None else scale_up.timestamp() - SystemClock().now_ns() / 1e9
        summary = self.tell(
            {
                "models": [item["ref"] for item in reports],
                "bytes_total": total,
                "bytes_fetched": sum(int(item["bytes_fetched"]) for item in reports),
                "coverage": round(coverage, 6),
                "minutes_before_scale_up": None if early is None else round(early / 60, 1),
            }
        )
        if coverage < float(self.least):
            raise AirflowFailException(f"only {coverage:.1%} of {total} bytes are cached; {self.least} were wanted")
        return summary


def _has_rank(info: VersionInfo, rank: str) -> bool:
    return any(rank in layout.ranks for layout in info.layouts)
