"""Copy published versions to other regions, and warm caches before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException

from fscore_airflow.operators.base import SERVICE, FscoreOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class SyncVersion(FscoreOperator):
    """Brings one published version with its layouts to one region; only missing content moves, verified before visible.

    :param volume: connection or META-URL that has the version.
    :param region: connection or META-URL that gets it.
    :param ref: `team/model@version`.
    """

    template_fields: Sequence[str] = ("volume", "region", "ref")

    def __init__(self, *, volume: str, region: str, ref: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.volume = volume
        self.region = region
        self.ref = ref

    def execute(self, context: Context) -> dict[str, Any]:
        """The sync's report: bytes moved, bytes that were there."""
        from fscore.hub.access import Actor
        from fscore.sync import sync_versions
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals
        from fscore_airflow.reports import report

        context["label"] = f"{self.ref} -> {self.region}"
        with (
            refusals(),
            VolumeHook(self.volume).open() as source,
            VolumeHook(self.region).open() as target,
        ):
            done = sync_versions(
                source,
                target,
                [self.ref],
                actor=Actor(SERVICE, admin=True),
                region=self.region,
                progress=self.progress(),
            )
        found = self.tell({**report(done), "ref": self.ref, "region": self.region})
        if done.conflicts:
            # A log that moved meanwhile is carried by the next try; another content under this number never is.
            raise AirflowException(f"{self.ref} in {self.region}: {'; '.join(done.conflicts)}")
        return found


class PlanSync(FscoreOperator):
    """Lists every (version, region) where the region lacks a version, a layout, a revocation or an alias of home.

    :param volume: connection or META-URL of the home volume.
    :param regions: connections to compare with; None means those of the home connection.
    """

    template_fields: Sequence[str] = ("volume", "regions")

    def __init__(self, *, volume: str, regions: Sequence[str] | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.volume = volume
        self.regions = regions

    def execute(self, context: Context) -> list[dict[str, str]]:
        """One mapping of operator arguments for each copy that is to be made."""
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.missing import missing_versions
        from fscore_airflow.refusals import refusals

        hook = VolumeHook(self.volume)
        jobs: list[dict[str, str]] = []
        with refusals(), hook.open(read_only=True, session=False) as home:
            for region in hook.regions() if self.regions is None else self.regions:
                with VolumeHook(region).open(read_only=True, session=False) as target:
                    found = missing_versions(home, target)
                self.log.info("%s is behind by %d versions: %s", region, len(found), ", ".join(found) or "-")
                jobs += [{"ref": ref, "region": region} for ref in found]
        return jobs


class WarmVersion(FscoreOperator):
    """Fills this worker's local cache with a version and its layouts, or with one layout or rank; reports coverage.

    :param volume: connection or META-URL.
    :param ref: `team/model@version` or `team/model:alias`.
    :param layout: `tp2-pp2`; only this layout.
    :param rank: `tp0-pp1`; only this rank.
    """

    template_fields: Sequence[str] = ("volume", "ref", "layout", "rank")

    def __init__(
        self,
        *,
        volume: str,
        ref: str,
        layout: str = "",
        rank: str = "",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.volume = volume
        self.ref = ref
        self.layout = layout
        self.rank = rank

    def execute(self, context: Context) -> dict[str, Any]:
        """Bytes in the cache and bytes fetched, in all and by layout; blocks that layouts share are fetched once."""
        from fscore.hub.access import Actor
        from fscore.hub.registry import Registry
        from fscore.hub.warm import warm
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals

        context["label"] = f"{self.ref} in {self.volume}"
        with refusals(), VolumeHook(self.volume).open(read_only=True, session=False) as volume:
            layouts = [self.layout]
            if not self.layout and not self.rank:
                info = Registry(volume).show(self.ref, Actor(SERVICE, admin=True))
                layouts += [layout.name for layout in info.layouts]
            done = {
                layout: warm(volume, self.ref, rank=self.rank, layout=layout, progress=self.progress())
                for layout in layouts
            }
        total = sum(part.bytes_total for part in done.values())
        cached = sum(part.bytes_cached for part in done.values())
        return self.tell(
            {
                "ref": self.ref,
                "volume": self.volume,
                "rank": self.rank,
                "bytes_total": total,
                "bytes_cached": cached,
                "bytes_fetched": sum(part.bytes_fetched for part in done.values()),
                "bytes_failed": sum(part.bytes_failed for part in done.values()),
                "coverage": round(cached / total, 4) if total else 1.0,
                "layouts": {layout or "-": part.coverage for layout, part in done.items()},
                "seconds": round(sum(part.seconds for part in done.values()), 3),
            }
        )
