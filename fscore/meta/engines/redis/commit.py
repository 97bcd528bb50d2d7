"""The commit of a transaction: compare and write in one script, and what a lost connection leaves open.

When the connection dies, the script is sent once more. It cannot be done twice: a transaction changes a record that it
compares, so the second run finds it changed. If what is there now is what this transaction writes, it was done; if a
record that it would change still is as it was, it was not; else nobody can tell, and the caller is told so. Where no
compared record changes, only writes that may be done twice are sent again.
"""

from __future__ import annotations

from typing import Any, Final

from fscore.domain.errors import UnavailableError
from fscore.meta.engines.redis.link import Link, LostError
from fscore.meta.engines.redis.recall import Read
from fscore.meta.engines.redis.scripts import COMMIT
from fscore.meta.engines.redis.txn import RedisTxn, raw_of

Argument = bytes | int | str

REPEATABLE: Final = frozenset({"SET", "HSET", "HDEL", "DEL", "ZADD", "ZREM", "SADD", "SREM"})
"""Commands that leave the same when done twice."""


def commit(link: Link, txn: RedisTxn) -> dict[Read, Any] | None:
    """Apply the transaction: None when it is done, else what Redis holds of the records it read."""
    if not txn.writes and not txn.guessed:
        return None
    keys, args, order = _script(txn)
    try:
        answer = link.script(COMMIT, keys, args, again=False)
    except LostError as lost:
        return _settle(link, txn, lost)
    return None if answer == 1 else _found(txn, order, answer)


def _settle(link: Link, txn: RedisTxn, lost: LostError) -> dict[Read, Any] | None:
    telling = {read: raw for read, raw in txn.changed.items() if read in txn.reads}
    if not telling and not all(write[0] in REPEATABLE for write in txn.writes):
        raise UnavailableError(f"the connection was lost, the outcome of a transaction is unknown: {lost}") from lost
    keys, args, order = _script(txn)
    answer = link.script(COMMIT, keys, args)
    if answer == 1:
        return None
    now = _found(txn, order, answer)
    if not telling or any(now.get(read) == txn.reads[read] for read in telling):
        return now
    if all(now.get(read) == raw for read, raw in telling.items()):
        return None
    raise UnavailableError(f"the connection was lost, others wrote since, the outcome is unknown: {lost}") from lost


def _script(txn: RedisTxn) -> tuple[list[bytes], list[Argument], list[Read]]:
    order = list(txn.reads)
    keys = [read.key for read in order]
    args: list[Argument] = [len(order)]
    for read, value in txn.reads.items():
        _compare(read, value, args)
    for command, key, *rest in txn.writes:
        keys.append(key)
        args += (command, len(rest), *rest)
    return keys, args, order


def _compare(read: Read, value: Any, args: list[Argument]) -> None:  # noqa: ANN401 - see txn.raw_of
    if read.op == "S":
        args += ("s",) if value is None else ("S", value)
    elif read.op == "H":
        args += ("h", read.field) if value is None else ("H", read.field, value)
    elif read.op == "L":
        args += ("L", value)
    elif read.op == "E":
        args.append("e" if value else "E")
    else:
        args += ("M", len(value))
        for field, content in value.items():
            args += (field, content)


def _found(txn: RedisTxn, order: list[Read], answer: list[Any]) -> dict[Read, Any]:
    now = dict(txn.reads)
    for number, value in zip(answer[::2], answer[1::2], strict=True):
        read = order[number - 1]
        if read.op == "M":
            del now[read]
        else:
            now[read] = raw_of(read, [value]) if read.op == "L" else value
    return now
