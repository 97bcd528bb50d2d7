"""Transactions on a database server: read without locks, decide, then compare under locks and write.

Rule 1  reads are asked without a transaction, many in one round trip, and remembered; intents are kept.
Rule 2  at commit the rows of the inodes concerned are locked in one order (files ascending, then directories
        descending: peers lock what goes before what holds it), then every record that was read is read again and
        compared, then the intents go out together with COMMIT. So locks are held for one round trip, and in order.
Rule 3  a node's row stands for all records of that inode: who changes them locks it exclusively, who read them shares
        it. Entries are the exception: who changes one shares the directory's row, for the unique key and the entry's
        own row tell writers of entries apart; who read that there is no entry, or all of them, locks it exclusively.
Rule 4  of a directory, times and link count are not compared: they are only ever moved on, links relatively
        (volume-format.md 3.3), so that creates in one directory do not disturb each other.
Rule 5  an error or a mere answer that rests on more than one round trip of reads is given only when all of them are
        true at one moment.

The official client locks the node rows of what it changes FOR UPDATE, too, and leaves races for a name to the unique
key: both meet here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import ConflictError, Invalid
from fscore.domain.locks import LockKind, Ranges
from fscore.domain.quota import Quota, QuotaKey
from fscore.domain.slices import RECORD, SliceRecord, pack
from fscore.meta.engines.sql.guards import guards
from fscore.meta.engines.sql.links import Call, Link, Row
from fscore.meta.engines.sql.rows import attr_of
from fscore.meta.engines.sql.servers import ServerLink
from fscore.meta.engines.sql.statements import Statements
from fscore.meta.engines.sql.txn import SqlTxn, SqlView
from fscore.meta.records import Edge, LockOwner, Want

DIRECTORY: Final = int(Kind.DIRECTORY)
TIMES: Final = slice(5, 12)
"""Times and link count in a row of `get_node`."""
LARGEST: Final = 2**31 - 1


class Remembering(Link):
    """A link with answers in memory."""

    __slots__ = ("link", "reads")

    def __init__(self, link: ServerLink) -> None:
        self.link = link
        self.reads: dict[Call, list[Row]] = {}

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """The first row, or None."""
        rows = self.all(sql, args)
        return rows[0] if rows else None

    def fetch(self, calls: Sequence[Call]) -> None:
        """Ask what was not asked before, in one round trip."""
        missing = [call for call in calls if call not in self.reads]
        if missing:
            for call, answer in zip(missing, self.link.ask(missing), strict=True):
                self.reads[call] = answer.rows

    def spread(self, call: Call, text: str) -> None:
        """Take an answer apart, whose rows begin with the number that `text` would have been asked about."""
        for number, *row in self.reads.pop(call, ()):
            self.reads.setdefault((text, (number,)), [tuple(row)])


class Ahead(Remembering):
    """A link whose answers may have been fetched ahead; each is given once."""

    __slots__ = ()

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Every row."""
        rows = self.reads.pop((sql, tuple(args)), None) if self.reads else None
        return self.link.all(sql, args) if rows is None else rows

    def run(self, sql: str, args: Sequence[object] = ()) -> int:
        """Rows that the statement matched."""
        return self.link.run(sql, args)


class Recorder(Remembering):
    """Remembers what was read, keeps what shall be written."""

    __slots__ = ("intents", "trips")

    def __init__(self, link: ServerLink) -> None:
        super().__init__(link)
        self.intents: list[Call] = []
        self.trips = 0

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Every row, as it was at the first time of asking."""
        call = (sql, tuple(args))
        rows = self.reads.get(call)
        if rows is None:
            self.fetch([call])
            rows = self.reads[call]
        return rows

    def run(self, sql: str, args: Sequence[object] = ()) -> int:
        """Keep an intent."""
        self.intents.append((sql, args))
        return 1

    def fetch(self, calls: Sequence[Call]) -> None:
        """As `Remembering`, counted."""
        before = self.link.trips
        super().fetch(calls)
        self.trips += self.link.trips > before


class Batching(SqlView):
    """Reads that can be fetched together."""

    def __init__(self, link: Remembering, statements: Statements) -> None:
        super().__init__(link, statements)
        self._memory = link
        self._guarding = guards(statements)

    def prefetch(self, *wants: Want) -> None:
        """One round trip for all of them."""
        known, lineage = self._guarding.wanted, self._guarding.lineage
        calls = [(known[want.kind], want.key) for want in wants if want.kind in known and _can_be(want)]
        self._memory.fetch(calls)
        for call in calls:
            if call[0] == lineage:
                self._memory.spread(call, self._sql.get_node)

    def quotas(self, keys: Sequence[QuotaKey]) -> dict[QuotaKey, Quota]:
        """As `SqlView`, in one round trip."""
        self._memory.fetch([(table.get, where) for table, where in map(self._sql.quotas.of, keys)])
        return super().quotas(keys)

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """As `SqlView`; a name that is no text cannot be there."""
        return super().xattr(ino, name) if _is_text(name) else None


class ServerView(Batching):
    """Reads of what is committed at that moment."""

    def __init__(self, link: ServerLink, statements: Statements) -> None:
        super().__init__(Ahead(link), statements)


class Guard(NamedTuple):
    """A read that is repeated under locks, and what it must give; None: anything, the lock is what counts."""

    call: Call
    rows: list[Row] | None
    is_node: bool = False

    def holds(self, rows: list[Row]) -> bool:
        """Whether the rows are as they were."""
        if self.rows is None or rows == self.rows:
            return True
        if len(rows) != len(self.rows):
            return False
        if not self.is_node:  # what has no order may come in another one
            return len(rows) > 1 and sorted(map(repr, rows)) == sorted(map(repr, self.rows))
        old, new = self.rows[0], rows[0]
        return old[0] == new[0] == DIRECTORY and _lasting(old) == _lasting(new)


def _lasting(row: Row) -> Row:
    return row[: TIMES.start] + row[TIMES.stop :]


class ServerTxn(Batching, SqlTxn):
    """One run of a body: reads, intents, and how they are committed."""

    def __init__(self, link: ServerLink, statements: Statements) -> None:
        self._record = Recorder(link)
        super().__init__(self._record, statements)
        self._inserted: set[Call] = set()
        self._touched: set[int] = set()
        self._entered: set[int] = set()
        self._nodes: dict[int, Attr | None] = {}
        self._edges: dict[Call, Edge | None] = {}
        self._slices: list[int] = []
        self._quotas: set[QuotaKey] = set()

    def put_node(self, ino: int, attr: Attr) -> None:
        """As `SqlTxn`; owners and devices must fit the columns."""
        for what, number in (("uid", attr.uid), ("gid", attr.gid), ("rdev", attr.rdev)):
            if number > LARGEST:
                raise Invalid(f"{what} {number}: a volume in this database keeps numbers up to {LARGEST} only")
        if ino in self._read:
            self._touched.add(ino)
        self._nodes[ino] = attr
        super().put_node(ino, attr)

    def del_node(self, ino: int) -> None:
        """As `SqlTxn`."""
        self._touched.add(ino)
        self._nodes[ino] = None
        super().del_node(ino)

    def put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        """Insert where there was no entry, so that the unique key finds the race for a name."""
        call = (self._sql.get_edge, (parent, name))
        self._entered.add(parent)
        first = call not in self._edges
        self._edges[call] = edge
        if first and self._record.reads.get(call) == []:
            self._inserted.add(call)
            self._record.run(self._guarding.add_edge, (parent, name, edge.ino, edge.kind.value))
        else:
            super().put_edge(parent, name, edge)

    def del_edge(self, parent: int, name: bytes) -> None:
        """As `SqlTxn`."""
        self._entered.add(parent)
        self._edges[self._sql.get_edge, (parent, name)] = None
        super().del_edge(parent, name)

    def append(self, ino: int, index: int, records: Sequence[SliceRecord], *, if_exists: bool = False) -> None:
        """As `SqlTxn`."""
        self._touched.add(ino)
        super().append(ino, index, records, if_exists=if_exists)

    def replace_prefix(self, ino: int, index: int, count: int, records: Sequence[SliceRecord]) -> None:
        """Put `records` in the place of the oldest `count`, which this transaction has read."""
        self._touched.add(ino)
        row = self._record.one(self._sql.get_chunk, (ino, index))
        if row is None or len(row[0]) < count * RECORD.size:
            raise ConflictError(f"chunk {index} of inode {ino} has fewer than {count} records")
        blob = pack(records) + row[0][count * RECORD.size :]
        if blob:
            self._record.run(self._sql.set_chunk, (blob, ino, index))
        else:
            self.del_chunk(ino, index)

    def del_chunk(self, ino: int, index: int) -> None:
        """As `SqlTxn`."""
        self._touched.add(ino)
        super().del_chunk(ino, index)

    def new_slice(self, slice_id: int, size: int) -> None:
        """As `SqlTxn`."""
        self._slices.append(slice_id)
        super().new_slice(slice_id, size)

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """As `SqlTxn`; names are texts in a database."""
        if not _is_text(name):
            raise Invalid(f"attribute name {name!r}: a volume in this database has names in UTF-8 only")
        self._touched.add(ino)
        super().put_xattr(ino, name, value)

    def del_xattr(self, ino: int, name: bytes) -> None:
        """As `SqlTxn`."""
        self._touched.add(ino)
        super().del_xattr(ino, name)

    def flocks(self, ino: int) -> Mapping[LockOwner, LockKind]:
        """As `SqlTxn`: nobody joins until commit."""
        self._touched.add(ino)
        return SqlView.flocks(self, ino)

    def plocks(self, ino: int) -> Mapping[LockOwner, Ranges]:
        """As `flocks`."""
        self._touched.add(ino)
        return SqlView.plocks(self, ino)

    def put_quota(self, key: QuotaKey, quota: Quota) -> None:
        """Insert where there was no record: no row could be locked, so that the unique key has to find the race."""
        table, where = self._sql.quotas.of(key)
        first = key not in self._quotas
        self._quotas.add(key)
        if first and self._record.reads.get((table.get, where)) == []:
            self._record.run(table.insert, (*where, *quota))
        else:
            super().put_quota(key, quota)

    def unchanged(self) -> bool:
        """Whether all that was read is true at one moment."""
        guards = [
            Guard(call, rows, is_node=call[0] == self._sql.get_node)
            for call, rows in self._record.reads.items()
            if call[0] not in self._guarding.uncompared
        ]
        answers = self._record.link.glance([guard.call for guard in guards])
        return all(guard.holds(answer.rows) for guard, answer in zip(guards, answers, strict=True))

    def confirm(self) -> None:
        """ConflictError when what was read in several round trips was not true at one moment."""
        if self._record.trips > 1 and not self.unchanged():
            raise ConflictError("what was read has changed")

    def commit(self) -> None:
        """Compare what was read and write what is intended, or ConflictError. See the module."""
        record = self._record
        if not record.intents:
            self.confirm()
            return
        guards = list(self._guards())
        record.link.begin()
        answers = record.link.ask([guard.call for guard in guards])
        for guard, answer in zip(guards, answers, strict=True):
            if not guard.holds(answer.rows):
                raise ConflictError("what was read has changed")
        record.link.finish(record.intents)

    def _guards(self) -> Iterator[Guard]:
        reads, sql, guarding = self._record.reads, self._sql, self._guarding
        locks = self._locks()
        for ino in sorted(locks, key=self._lock_order):
            node = guarding.exclusive_node if locks[ino] else guarding.shared_node
            yield Guard((node, (ino,)), reads.get((sql.get_node, (ino,))), is_node=True)
        for call, rows in reads.items():
            text, args = call
            if text == sql.get_node or text in guarding.uncompared or call in self._inserted:
                continue
            if text == sql.get_edge and rows:
                yield Guard((guarding.exclusive_edge if call in self._edges else guarding.shared_edge, args), rows)
            else:
                yield Guard((guarding.locking.get(text, text), args), rows)

    def _locks(self) -> dict[int, bool]:
        """Inodes whose rows are to be locked, and whether for this transaction alone."""
        sql, guarding = self._sql, self._guarding
        locks = dict.fromkeys(self._entered, False)
        for call, rows in self._record.reads.items():
            text, args = call
            if text == sql.get_edge:
                _lock(locks, args[0], alone=not rows and call not in self._inserted)
            elif text in guarding.of_directory:
                _lock(locks, args[0], alone=True)
            elif text in guarding.of_inode:
                _lock(locks, args[0], alone=False)
        for ino in self._touched:
            locks[ino] = True
        return locks

    def _lock_order(self, ino: int) -> tuple[bool, int]:
        attr = self._read.get(ino)
        is_dir = attr.kind == Kind.DIRECTORY if attr else ino in self._entered
        return (True, -ino) if is_dir else (False, ino)

    def happened(self) -> bool | None:
        """Whether a commit whose answer was lost has happened, by what is stored now; None when nobody can tell.

        What this transaction put is told by its times and by numbers that nobody else has; what it removed is gone. A
        record that it left as it was tells nothing.
        """
        told = self._evidence()
        guards = [*self._guards(), *(Guard(call, []) for call in self._inserted)]
        calls = [*told, *(guard.call for guard in guards)]
        answers = [answer.rows for answer in self._record.link.ask(calls)]
        if told and all(_told(rows, expected) for rows, expected in zip(answers, told.values(), strict=False)):
            return True
        before = all(guard.holds(rows) for guard, rows in zip(guards, answers[len(told) :], strict=True))
        return False if before else None

    def _evidence(self) -> dict[Call, Attr | Edge | bool]:
        """Reads that tell whether this transaction was committed, and what they find then; False: nothing."""
        sql, reads = self._sql, self._record.reads
        found: dict[Call, Attr | Edge | bool] = {(self._guarding.get_slice, (number,)): True for number in self._slices}
        found |= {call: edge or False for call, edge in self._edges.items()}
        own: dict[Call, Attr | Edge | bool] = {}
        for ino, attr in self._nodes.items():
            call = (sql.get_node, (ino,))
            moving = attr is not None and attr.kind == Kind.DIRECTORY and call in reads  # by others, too
            (own if moving else found)[call] = attr or False
        found = found or own
        return {call: value for call, value in found.items() if call not in reads or not _told(reads[call], value)}


def _told(rows: list[Row], expected: Attr | Edge | bool) -> bool:
    """Whether rows of a node, an entry or a slice say what is expected."""
    if isinstance(expected, Attr):
        return bool(rows) and attr_of(rows[0]) == expected
    return _edge(rows) == expected if isinstance(expected, Edge) else bool(rows) == expected


def _edge(rows: list[Row]) -> Edge | None:
    return Edge(Kind(rows[0][0]), rows[0][1]) if rows else None


def _lock(locks: dict[int, bool], ino: object, *, alone: bool) -> None:
    assert isinstance(ino, int)
    locks[ino] = locks.get(ino, False) or alone


def _can_be(want: Want) -> bool:
    """Whether the server can be asked at all."""
    return want.kind != "xattr" or (isinstance(want.key[1], bytes) and _is_text(want.key[1]))


def _is_text(name: bytes) -> bool:
    try:
        return "\0" not in name.decode()
    except UnicodeDecodeError:
        return False
