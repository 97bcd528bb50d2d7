"""The life of a version as a table. Pure: who may ask is `access`, what is moved is `registry`.

Rule 1  draft = number taken, bytes under way; staged = complete and frozen, seen by nobody.
Rule 2  a pending version is only approved or rejected; a decision is taken once.
Rule 3  from staged and validated a version may be published unasked only where the team's policy asks no approval.
Rule 4  published is only left by deprecated or revoked; revoked and rejected are ends.
"""

from __future__ import annotations

import enum
from typing import Final

from fscore.domain.errors import HubError


class State(enum.StrEnum):
    """Where a version stands."""

    NONE = "none"
    DRAFT = "draft"
    STAGED = "staged"
    VALIDATED = "validated"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"
    DEPRECATED = "deprecated"
    REVOKED = "revoked"


class Action(enum.StrEnum):
    """What moves a version from one state to another."""

    UPLOAD = "upload"
    STAGE = "stage"
    VALIDATE = "validate"
    REQUEST = "request"
    APPROVE = "approve"
    REJECT = "reject"
    PUBLISH = "publish"
    DEPRECATE = "deprecate"
    REVOKE = "revoke"
    IMPORT = "import"


TRANSITIONS: Final[dict[State, dict[Action, State]]] = {
    State.NONE: {Action.UPLOAD: State.DRAFT, Action.IMPORT: State.PUBLISHED},
    State.DRAFT: {Action.STAGE: State.STAGED},
    State.STAGED: {
        Action.VALIDATE: State.VALIDATED,
        Action.REQUEST: State.PENDING,
        Action.REJECT: State.REJECTED,
        Action.PUBLISH: State.PUBLISHED,
    },
    State.VALIDATED: {
        Action.VALIDATE: State.VALIDATED,
        Action.REQUEST: State.PENDING,
        Action.REJECT: State.REJECTED,
        Action.PUBLISH: State.PUBLISHED,
    },
    State.PENDING: {Action.APPROVE: State.APPROVED, Action.REJECT: State.REJECTED},
    State.APPROVED: {Action.PUBLISH: State.PUBLISHED},
    State.REJECTED: {},
    State.PUBLISHED: {Action.DEPRECATE: State.DEPRECATED, Action.REVOKE: State.REVOKED},
    State.DEPRECATED: {Action.REVOKE: State.REVOKED},
    State.REVOKED: {},
}

UNDECIDED: Final = frozenset({State.STAGED, State.VALIDATED})
"""States in which a draft may still get layouts and validations."""

VISIBLE: Final = frozenset({State.PUBLISHED, State.DEPRECATED})
"""States whose version readers may see."""

_HINTS: Final = {
    State.DRAFT: "its upload is not finished: push again",
    State.PENDING: "it waits for a decision: approve or reject it",
    State.REJECTED: "push it anew",
    State.REVOKED: "push a new version",
    State.PUBLISHED: "it is already published",
}


def after(state: State, action: Action, what: str = "version") -> State:
    """The state that `action` leads to. Raises HubError(kind="state") when the table has no such step."""
    found = TRANSITIONS[state].get(action)
    if found is None:
        possible = ", ".join(TRANSITIONS[state]) or "nothing"
        hint = _HINTS.get(state, f"possible now: {possible}")
        raise HubError(f"cannot {action} {what}: it is {state}", hint=hint, kind="state")
    return found
