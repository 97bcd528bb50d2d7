"""Clients of database servers, looked at from inside, and connections that break or are interrupted on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from fscore.meta.engines.registry import open_engine
from fscore.meta.engines.sql.links import Call
from fscore.meta.engines.sql.server_engine import ServerEngine
from fscore.meta.engines.sql.servers import COMMIT, Answer, DatabaseError, Fault, ServerLink, Wire
from fscore.meta.txn import MetaTxn


def opened(url: str) -> ServerEngine:
    """An engine that is known to be one over a server."""
    engine = open_engine(url)
    assert isinstance(engine, ServerEngine)
    return engine


def link_of(engine: ServerEngine) -> ServerLink:
    """The only writer's link of an engine."""
    (link,) = engine._links._writers
    assert isinstance(link, ServerLink)
    return link


def grow(txn: MetaTxn) -> None:
    """One more byte of the file 2."""
    attr = txn.node(2)
    assert attr is not None
    txn.put_node(2, msgspec.structs.replace(attr, length=attr.length + 1))


class Cutting(Wire):
    """A real connection that is lost at the next commit: before the server got it, or after it did what was asked."""

    def __init__(self, real: Wire, when: str, meanwhile: Callable[[], object]) -> None:
        self.real, self.when, self.meanwhile = real, when, meanwhile
        self.life, self.born = real.life, real.born

    @property
    def ident(self) -> int:
        """The real one's."""
        return self.real.ident

    def batch(self, calls: Sequence[Call]) -> list[Answer]:
        """Lose the one that commits."""
        if calls[-1] is not COMMIT or calls[0][0].startswith(("BEGIN", "SET")):
            return self.real.batch(calls)
        if self.when == "after":
            self.real.batch(calls)
            self.meanwhile()
        raise DatabaseError(Fault.LOST, "cut")

    def close(self) -> None:
        """Hang up."""
        self.real.close()


def cut(engine: ServerEngine, when: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Lose the next commit of an engine."""
    link = link_of(engine)
    link._wire = Cutting(link.steal(), when, meanwhile)


class Interrupted(Wire):
    """A real connection whose user is interrupted when the statements have gone out and no answer was read."""

    def __init__(self, real: Wire, at: str) -> None:
        self.real, self.at, self.closed = real, at, False
        self.life, self.born = real.life, real.born

    @property
    def ident(self) -> int:
        """The real one's."""
        return self.real.ident

    def batch(self, calls: Sequence[Call]) -> list[Answer]:
        """Interrupt the one that begins so."""
        answers = self.real.batch(calls)
        if calls[0][0].startswith(self.at):
            raise KeyboardInterrupt
        return answers

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self.real.close()
