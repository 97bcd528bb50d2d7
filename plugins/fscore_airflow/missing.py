"""What a region lacks of what is published at home: digests against digests and aliases against aliases, no bytes.

Rule 1  a visible version is missing where it, or one of its layouts, is not there with the same digest.
Rule 2  a version that home revoked is due where readers still see it.
Rule 3  an alias that points elsewhere makes the version it points to at home due; one that home has no more, any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fscore.hub.access import Actor
from fscore.hub.registry import Registry
from fscore_airflow.operators.base import SERVICE

if TYPE_CHECKING:
    from fscore.volume import Volume

_VISIBLE = frozenset({"published", "deprecated"})


class Shown(msgspec.Struct):
    """One model as a volume shows it: digests of what readers see, what was revoked, where aliases point."""

    visible: dict[str, frozenset[str]] = {}
    revoked: list[str] = []
    aliases: dict[str, str] = {}


def missing_versions(home: Volume, target: Volume) -> list[str]:
    """`team/model@version` of everything that a sync to `target` would change."""
    there = _shown(target)
    return [ref for name, model in _shown(home).items() for ref in _due(model, there.get(name, Shown()))]


def _due(here: Shown, there: Shown) -> list[str]:
    due = [ref for ref, content in here.visible.items() if not content <= there.visible.get(ref, frozenset())]
    due += [ref for ref in here.revoked if ref in there.visible]
    due += [ref for alias, ref in here.aliases.items() if there.aliases.get(alias) != ref and ref in here.visible]
    if there.aliases.keys() - here.aliases.keys():
        due += list(here.visible)[:1]
    return list(dict.fromkeys(due))


def _shown(volume: Volume) -> dict[str, Shown]:
    everything = Actor(SERVICE, admin=True)
    registry = Registry(volume)
    found: dict[str, Shown] = {}
    for model in registry.models(everything):
        name = f"{model.team}/{model.model}"
        shown = Shown(aliases={alias: f"{name}@{number}" for alias, number in model.aliases.items()})
        for info in registry.versions(name, everything):
            if info.state == "revoked":
                shown.revoked.append(info.ref)
            elif info.state in _VISIBLE and info.present:
                layouts = {f"{layout.name} {layout.digest}" for layout in info.layouts}
                shown.visible[info.ref] = frozenset({info.digest, *layouts})
        found[name] = shown
    return found
