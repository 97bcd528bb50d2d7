"""Which published versions a region lacks: manifest digests against manifest digests, no bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.hub.access import Actor
from fscore.hub.registry import Registry
from fscore_airflow.operators.base import SERVICE

if TYPE_CHECKING:
    from fscore.volume import Volume

_VISIBLE = frozenset({"published", "deprecated"})


def missing_versions(home: Volume, target: Volume) -> list[str]:
    """`team/model@version` of each published version that `target` lacks, or has without some of its layouts."""
    here, there = _published(home), _published(target)
    return [ref for ref, content in here.items() if not content <= there.get(ref, frozenset())]


def _published(volume: Volume) -> dict[str, frozenset[str]]:
    """Version -> digests of it and of its layouts, for the versions whose files lie there."""
    everything = Actor(SERVICE, admin=True)
    registry = Registry(volume)
    found: dict[str, frozenset[str]] = {}
    for model in registry.models(everything):
        for info in registry.versions(f"{model.team}/{model.model}", everything):
            if info.state in _VISIBLE and info.present:
                layouts = {f"{layout.name} {layout.digest}" for layout in info.layouts}
                found[info.ref] = frozenset({info.digest, *layouts})
    return found
