"""Push, split and publish: the version's way from a directory to what readers see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fscore_airflow.operators.base import SERVICE, FscoreOperator, is_true

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fscore.hub.validate.report import ValidationResult


class PushModel(FscoreOperator):
    """Uploads what the volume does not know yet and composes the rest; the result is a draft version.

    :param volume: connection or META-URL.
    :param acquired: report of AcquireModel.
    :param ref: `team/model`.
    :param validation: path of the validation's result, kept with the version.
    """

    template_fields: Sequence[str] = (
        "volume",
        "acquired",
        "ref",
        "validation",
        "purpose",
        "description",
        "base",
        "alias",
        "allow_pickle",
        "uploader",
    )

    def __init__(
        self,
        *,
        volume: str,
        acquired: dict[str, Any],
        ref: str,
        validation: str = "",
        purpose: str = "",
        description: str = "",
        base: str | None = None,
        alias: str | None = None,
        allow_pickle: bool | str = False,
        uploader: str = SERVICE,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.volume = volume
        self.acquired = acquired
        self.ref = ref
        self.validation = validation
        self.purpose = purpose
        self.description = description
        self.base = base
        self.alias = alias
        self.allow_pickle = allow_pickle
        self.uploader = uploader

    def execute(self, context: Context) -> dict[str, Any]:
        """The push's report: bytes new and shared, files, tensors, digest, version."""
        from fscore.hub.push import push
        from fscore_airflow.acquire.source import opened
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals
        from fscore_airflow.reports import report

        with refusals(), VolumeHook(self.volume).open() as volume, opened(self.acquired["source"]) as source:
            done = push(
                volume,
                source,
                self.ref,
                user=self.uploader,
                purpose=self.purpose or "",
                alias=self.alias or "",
                base=self.base or "",
                description=self.description or "",
                origin=_origin(self.acquired["source"], context),
                validation=_validation(self.validation),
                allow_pickle=is_true(self.allow_pickle),
                progress=self.progress(),
                request_id=context["dag_run"].run_id,
            )
            return self.tell(report(done))


class SplitVersion(FscoreOperator):
    """Lays a version out for tensor, pipeline and expert parallel ranks; contiguous ranges are shared, not copied.

    :param volume: connection or META-URL.
    :param ref: `team/model@version`.
    :param layout: `tp2-pp2` or `tp2-pp2-ep4`.
    """

    template_fields: Sequence[str] = ("volume", "ref", "layout", "actor")

    def __init__(self, *, volume: str, ref: str, layout: str, actor: str = SERVICE, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.volume = volume
        self.ref = ref
        self.layout = layout
        self.actor = actor

    def execute(self, context: Context) -> dict[str, Any]:
        """The split's report: bytes rewritten and shared."""
        from fscore.hub.names import parse_layout
        from fscore.hub.split_version import split_version
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals
        from fscore_airflow.reports import report

        context["label"] = self.layout
        with refusals(), VolumeHook(self.volume).open() as volume:
            tp, pp, ep = parse_layout(self.layout)
            done = split_version(volume, self.ref, tp=tp, pp=pp, ep=ep, actor=self.actor, progress=self.progress())
            return self.tell({**report(done), "layout": self.layout})


class PublishVersion(FscoreOperator):
    """Makes an approved version visible by one rename, and moves its alias.

    :param volume: connection or META-URL.
    :param ref: `team/model@version`.
    :param alias: name to point at the version afterwards.
    :param actor: who publishes.
    """

    template_fields: Sequence[str] = ("volume", "ref", "alias", "actor")

    def __init__(
        self,
        *,
        volume: str,
        ref: str,
        alias: str | None = None,
        actor: str = SERVICE,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.volume = volume
        self.ref = ref
        self.alias = alias
        self.actor = actor

    def execute(self, context: Context) -> dict[str, Any]:
        """State and place of the version; a second try finds it published and only mends the alias."""
        from fscore.hub.registry import Registry
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals
        from fscore_airflow.reports import report

        with refusals(), VolumeHook(self.volume).open() as volume:
            registry = Registry(volume)
            info = registry.show(self.ref, self.actor)
            if info.state not in {"published", "deprecated"}:
                run_id = context["dag_run"].run_id
                info = registry.publish(
                    self.ref, self.actor, alias=self.alias or "", request_id=run_id, dag_run_id=run_id
                )
            elif self.alias and self.alias not in info.aliases:
                info = registry.set_alias(self.ref, self.alias, self.actor)
            return self.tell(report(info))


def _origin(source: dict[str, Any], context: Context) -> dict[str, str]:
    run = context["dag_run"]
    found = {"kind": source["kind"], "uri": source["uri"], "revision": source["revision"]}
    return {**found, "dag_id": run.dag_id, "dag_run_id": run.run_id}


def _validation(path: str) -> ValidationResult | None:
    import msgspec

    from fscore.hub.validate.report import ValidationResult

    return msgspec.json.decode(Path(path).read_bytes(), type=ValidationResult) if path else None
