"""The table of states, the fold of events, and the chain that proves them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from fscore.domain.errors import HubError
from fscore.hub import log
from fscore.hub.history import fold
from fscore.hub.lifecycle import TRANSITIONS, Action, State, after
from fscore.hub.log import Change, Event
from fscore.hub.names import Ref


def chain(*changes: Change) -> list[Event]:
    events: list[Event] = []
    for number, change in enumerate(changes):
        events.append(log.link(events[-1] if events else None, change, "nlp", "m", number * 10**9))
    return events


def walk(*actions: Action) -> State:
    state = State.NONE
    for action in actions:
        state = after(state, action)
    return state


def test_a_release_walks_through_the_table() -> None:
    way = (Action.UPLOAD, Action.STAGE, Action.VALIDATE, Action.REQUEST, Action.APPROVE, Action.PUBLISH)
    assert walk(*way) == State.PUBLISHED
    assert walk(*way, Action.DEPRECATE, Action.REVOKE) == State.REVOKED
    assert walk(Action.UPLOAD, Action.STAGE, Action.REQUEST, Action.REJECT) == State.REJECTED


def test_every_state_has_a_row_and_two_are_ends() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state, row in TRANSITIONS.items() if not row} == {State.REJECTED, State.REVOKED}


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (State.PENDING, Action.PUBLISH),
        (State.REJECTED, Action.PUBLISH),
        (State.DRAFT, Action.PUBLISH),
        (State.APPROVED, Action.REJECT),
        (State.PUBLISHED, Action.APPROVE),
        (State.REVOKED, Action.PUBLISH),
        (State.PENDING, Action.VALIDATE),
    ],
)
def test_forbidden_steps_say_what_is_possible(state: State, action: Action) -> None:
    with pytest.raises(HubError) as refused:
        after(state, action, "nlp/m@1")
    assert refused.value.kind == "state"
    assert refused.value.hint
    assert str(state) in str(refused.value)


def test_history_is_the_fold_of_events() -> None:
    events = chain(
        Change("upload", "ann", 1, "none", "draft", "sha256:1"),
        Change("stage", "ann", 1, "draft", "staged", "sha256:1"),
        Change("split", "ann", 1, digest="sha256:l", extra={"layout": "tp2-pp1"}),
        Change("upload", "bob", 2, "none", "draft", "sha256:2"),
        Change("publish", "ann", 1, "staged", "published", "sha256:1"),
        Change("alias", "ann", 1, extra={"alias": "prod"}),
        Change("alias", "ann", 1, extra={"alias": "old"}),
        Change("alias", "ann", 0, extra={"alias": "old"}),
    )
    history = fold(events)
    assert history.aliases == {"prod": 1}
    assert history.versions[1].state == State.PUBLISHED
    assert history.versions[1].layouts == {"tp2-pp1": "sha256:l"}
    assert history.versions[2].uploader == "bob"
    assert history.next_number() == 3
    found = history.with_digest("sha256:2")
    assert found is not None
    assert found.number == 2
    with pytest.raises(HubError, match="no such version"):
        history.version(Ref("nlp", "m", 9))


def test_rejected_content_may_come_again() -> None:
    events = chain(
        Change("upload", "ann", 1, "none", "draft", "sha256:1"), Change("reject", "bob", 1, "pending", "rejected")
    )
    assert fold(events).with_digest("sha256:1") is None


def check(events: Sequence[Event]) -> list[int]:
    """Positions whose link is broken."""
    last, broken = "", []
    for number, event in enumerate(events):
        if event.prev_hash != last or log.hash_of(event) != event.hash:
            broken.append(number)
        last = event.hash
    return broken


def test_the_chain_shows_what_was_altered() -> None:
    events = chain(*(Change("note", "ann", 1, extra={"n": n}) for n in range(4)))
    assert check(events) == []
    assert all(log.decode(log.encode(event)) == event for event in events)
    forged = [*events]
    forged[1] = msgspec.structs.replace(forged[1], actor="eve")
    assert check(forged) == [1]
    forged[1] = msgspec.structs.replace(forged[1], hash=log.hash_of(forged[1]))
    assert check(forged) == [2]
    assert check([events[0], *events[2:]]) == [1]
    with pytest.raises(HubError):
        log.decode(b"[]")
