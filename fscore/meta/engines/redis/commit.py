"""The commit of a transaction: compare and write in one script, which may be sent twice and happens once (`marks`)."""

from __future__ import annotations

from typing import Any, Final

from fscore.meta.engines.redis.link import Link
from fscore.meta.engines.redis.marks import KEPT_S, Marks
from fscore.meta.engines.redis.recall import Read
from fscore.meta.engines.redis.scripts import COMMIT
from fscore.meta.engines.redis.txn import RedisTxn, raw_of

Argument = bytes | int | str

_FIRST: Final = 2
"""Number of the comparison of the first read: the mark stands before them."""


def commit(link: Link, txn: RedisTxn, marks: Marks) -> dict[Read, Any] | None:
    """Apply the transaction: None when it is done, else what Redis holds of the records it read."""
    if not txn.writes and not txn.guessed:
        return None
    mark, number = marks.take()
    try:
        keys, args, order = _script(txn, mark, number)
        answer = link.script(COMMIT, keys, args, durable=bool(txn.writes))
    finally:
        marks.give(mark)
    return None if answer == 1 else _found(txn, order, answer)


def _script(txn: RedisTxn, mark: bytes, number: int) -> tuple[list[bytes], list[Argument], list[Read]]:
    order = list(txn.reads)
    keys = [mark, *(read.key for read in order)]
    args: list[Argument] = [len(keys), "D", number]
    for read, value in txn.reads.items():
        _compare(read, value, args)
    for command, key, *rest in txn.writes:
        keys.append(key)
        args += (command, len(rest), *rest)
    if txn.writes:
        keys.append(mark)
        args += ("SET", 3, number, "EX", KEPT_S)
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
        read = order[number - _FIRST]
        if read.op == "M":
            del now[read]
        else:
            now[read] = raw_of(read, [value]) if read.op == "L" else value
    return now
