"""Who may do what: members push and read their team's models, approvers decide, admins do all.

The policy is one file on the volume, `/.fscore/teams.json`. Without it everybody may do everything, except approve
what they brought themselves.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fscore.domain.errors import HubError, NotFound
from fscore.files.filesystem import Filesystem
from fscore.hub import names

POLICY: Final = f"{names.HOME}/teams.json"
PROTECTED: Final = frozenset({"production", "champion"})
"""Aliases that only approvers move, and only to published versions."""


class Actor(msgspec.Struct, frozen=True):
    """Who acts: a name, and what the caller knows about its teams (the policy file adds to it)."""

    name: str
    teams: tuple[str, ...] = ()
    admin: bool = False


class TeamPolicy(msgspec.Struct, frozen=True):
    """One team's people and rules."""

    members: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()
    require_approval: bool = True
    allow_self_approval: bool = False


class Policy(msgspec.Struct, frozen=True):
    """The policy of a volume; `open` when there is none."""

    teams: dict[str, TeamPolicy] = {}
    admins: tuple[str, ...] = ()
    open: bool = False

    def team(self, team: str) -> TeamPolicy:
        """A team's rules; strict ones for a team that the policy does not know."""
        if self.open:
            return TeamPolicy(require_approval=False)
        return self.teams.get(team, TeamPolicy())

    def is_admin(self, actor: Actor, team: str) -> bool:
        """Whether it may do everything in this team."""
        return self.open or actor.admin or actor.name in self.admins or actor.name in self.team(team).admins

    def is_member(self, actor: Actor, team: str) -> bool:
        """Whether it may see and push this team's models."""
        rules = self.team(team)
        named = actor.name in rules.members or actor.name in rules.approvers or team in actor.teams
        return named or self.is_admin(actor, team)

    def check_member(self, actor: Actor, team: str) -> None:
        """Raises HubError(kind="denied") unless it may see and push this team's models."""
        if not self.is_member(actor, team):
            raise HubError(f"{actor.name!r} is not in team {team!r}", hint=f"ask an admin of {team}", kind="denied")

    def check_admin(self, actor: Actor, team: str, what: str) -> None:
        """Raises HubError(kind="denied") unless it administers this team."""
        if not self.is_admin(actor, team):
            raise HubError(f"{actor.name!r} may not {what} in team {team!r}", hint="an admin may", kind="denied")

    def check_approver(self, actor: Actor, team: str, what: str) -> None:
        """Raises HubError(kind="denied") unless it may decide for this team."""
        if actor.name not in self.team(team).approvers and not self.is_admin(actor, team):
            raise HubError(f"{actor.name!r} may not {what} in team {team!r}", hint="an approver may", kind="denied")


def as_actor(who: str | Actor) -> Actor:
    """An actor from a name or from itself. Raises HubError when it has no name."""
    actor = who if isinstance(who, Actor) else Actor(who)
    if not actor.name.strip():
        raise HubError("nobody acts here: a user name is needed", hint="give --user or set one in the connection")
    return actor


def load_policy(files: Filesystem) -> Policy:
    """The volume's policy; the open one when there is none. Raises HubError when it cannot be read."""
    try:
        data = files.read_bytes(POLICY)
    except NotFound:
        return Policy(open=True)
    try:
        return msgspec.structs.replace(msgspec.json.decode(data, type=Policy), open=False)
    except msgspec.MsgspecError as error:
        raise HubError(f"{POLICY} is no policy: {error}", hint="mend it; nobody gets in until then") from error


def save_policy(files: Filesystem, policy: Policy) -> None:
    """Write the volume's policy, whole or not at all."""
    files.mkdir(names.HOME, parents=True, exist_ok=True)
    plain = msgspec.to_builtins(policy)
    del plain["open"]
    files.write_atomic(POLICY, msgspec.json.format(msgspec.json.encode(plain), indent=2), replace=True)
