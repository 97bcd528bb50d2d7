"""Model references as users write them: `team/model@3`, or `model@3` when $FSCORE_TEAM or --team names the team."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.cli.errors import WrongUse
from fscore.domain.errors import HubError

if TYPE_CHECKING:
    from fscore.hub.names import Ref


def named(text: str, team: str = "") -> Ref:
    """A model, or one version of it. A malformed reference is wrong use."""
    from fscore.hub.names import parse_ref  # here, because the hub is more than `fscore --help` wants to load

    name = text if "/" in text or not team else f"{team}/{text}"
    try:
        return parse_ref(name)
    except HubError as error:
        raise WrongUse(str(error)) from error


def versioned(text: str, team: str = "") -> Ref:
    """One version: by number or by alias."""
    ref = named(text, team)
    if ref.version is None and ref.alias is None:
        raise WrongUse(f"{text} names no version: write {ref.name}@1, or {ref.name}:alias")
    return ref
