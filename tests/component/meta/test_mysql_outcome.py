"""What is made sure of a lost commit on MySQL, and whose connection is ended for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fscore.meta.engines.sql.mysql import Mysql
from fscore.meta.engines.sql.servers import DatabaseError, Lost, Wire
from tests.kit.engines import fresh_url

pytestmark = pytest.mark.mysql

Connect = Callable[[], Wire]


@pytest.fixture
def connect(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Connect]:
    """Makes connections to an empty database."""
    place = Mysql().place(fresh_url("mysql", request, tmp_path))
    made: list[Wire] = []

    def one() -> Wire:
        made.append(Mysql().wire(place, create=False))
        return made[-1]

    yield one
    for wire in made:
        wire.close()


def lives(wire: Wire) -> bool:
    """Whether it is served."""
    try:
        return wire.batch([("SELECT 1", ())])[0].rows == [(1,)]
    except DatabaseError:
        return False


def lost(wire: Wire, born: float) -> Lost:
    """A commit over this connection, made then."""
    return Lost(wire.ident, wire.life, 0, born)


def test_the_old_session_is_ended(connect: Connect) -> None:
    wire, old = connect(), connect()
    assert abs(time.monotonic() - old.born) < 5
    assert Mysql().outcome(wire, lost(old, old.born)) is None
    assert lives(wire)
    assert not lives(old)


def test_a_stranger_with_the_number_of_a_session_before_a_restart_is_left_alone(connect: Connect) -> None:
    """The lost connection is older than the server."""
    wire, stranger = connect(), connect()
    assert Mysql().outcome(wire, lost(stranger, time.monotonic() - 1_000_000)) is None
    assert lives(wire)
    assert lives(stranger)


def test_a_new_connection_with_the_number_of_the_lost_one_is_left_alone(connect: Connect) -> None:
    wire = connect()
    assert Mysql().outcome(wire, lost(wire, wire.born)) is None
    assert lives(wire)
