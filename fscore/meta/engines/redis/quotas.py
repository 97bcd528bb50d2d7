"""Quotas and the change log in Redis (volume-format.md 2.2, 2.10, 2.15).

A quota is a field in three hashes: limits (16 bytes), used space, used inodes; the last one tells which there are.
Usage is compared and then set, so that a commit whose answer is lost can still tell whether it was done.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from fscore.domain.errors import CorruptError
from fscore.domain.quota import UNLIMITED, Quota, QuotaKey, QuotaKind
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.engines.redis.link import Link
from fscore.meta.engines.redis.recall import Read
from fscore.meta.engines.redis.scripts import LOG_PAGE
from fscore.runtime import log

logger = log.get(__name__)

LIMITS: Final = struct.Struct(">qq")
PAGE: Final = 1000
"""Lines of the change log read in one go."""

Raw = bytes | None


class QuotaReads:
    """The part of a view that reads quotas."""

    _keys: Keys
    _known: dict[Read, Any]

    if TYPE_CHECKING:

        def _take(self, read: Read) -> Any: ...  # noqa: ANN401 - see txn.raw_of
        def _fetch(self, reads: Sequence[Read]) -> None: ...

    def quotas(self, keys: Sequence[QuotaKey]) -> dict[QuotaKey, Quota]:
        """The quota records of these that have one; a usage without limits counts as one."""
        reads = {key: self._quota_reads(key) for key in keys}
        self._fetch([read for three in reads.values() for read in three if read not in self._known])
        found: dict[QuotaKey, Quota] = {}
        for key, three in reads.items():
            limits, space, inodes = (self._take(read) for read in three)
            if limits is not None or inodes is not None:
                found[key] = decode(limits, space, inodes)
        return found

    def _quota_reads(self, key: QuotaKey) -> tuple[Read, Read, Read]:
        field = b"%d" % key.number
        limits, space, inodes = self._keys.quota(key.kind)
        return Read("H", limits, field), Read("H", space, field), Read("H", inodes, field)


class QuotaWrites(QuotaReads):
    """The part of a transaction that writes quotas, and the change log."""

    writes: list[tuple[Any, ...]]
    _others: dict[Read, bytes | None]

    def put_quota(self, key: QuotaKey, quota: Quota) -> None:
        """Set the three fields."""
        limits, space, inodes = self._quota_reads(key)
        self._others[limits] = LIMITS.pack(quota.max_space, quota.max_inodes)
        self._others[space] = b"%d" % quota.used_space
        self._others[inodes] = b"%d" % quota.used_inodes

    def add_quota(self, key: QuotaKey, space: int, inodes: int) -> None:
        """Set the usage to what was read and this much more."""
        three = self._quota_reads(key)
        quota = decode(*(self._known[read] for read in three)).grown(space, inodes)
        self.put_quota(key, quota)

    def del_quota(self, key: QuotaKey) -> None:
        """Remove the three fields."""
        for read in self._quota_reads(key):
            self._others[read] = None

    def clear_quotas(self) -> None:
        """Remove the six hashes."""
        self.writes += (("DEL", key) for kind in (QuotaKind.USER, QuotaKind.GROUP) for key in self._keys.quota(kind))

    def clear_dir_stats(self) -> None:
        """Remove two of the three hashes, as the official client does (volume-format.md 2.10)."""
        self.writes += (("DEL", key) for key in (self._keys.dir_inodes, self._keys.dir_space))

    def put_log(self, line: bytes) -> None:
        """Append, and count the version up."""
        self.writes += log_writes(self._keys, line)


def log_writes(keys: Keys, line: bytes) -> tuple[tuple[bytes | int | str, ...], ...]:
    """The writes that append a line to the change log."""
    return (("RPUSH", keys.change_log, line), ("INCRBY", keys.last_log, 1))


def log_lines(link: Link, keys: Keys) -> Iterator[tuple[int, bytes]]:
    """Lines with their versions, oldest first: the newest has the version in `txnLastLog`."""
    after = 0
    while True:
        found = link.script(LOG_PAGE, (keys.change_log, keys.last_log), (after, PAGE))
        if len(found) < 2:
            return
        yield from enumerate(found[1:], int(found[0]))
        after = int(found[0]) + len(found) - 2


def decode(limits: Raw, space: Raw, inodes: Raw) -> Quota:
    """A quota from its three fields."""
    try:
        most: tuple[int, int] = (UNLIMITED, UNLIMITED) if limits is None else LIMITS.unpack(limits)
        return Quota(most[0], most[1], int(space or 0), int(inodes or 0))
    except (struct.error, ValueError):
        raise CorruptError(f"a quota record is none: {limits!r}, {space!r}, {inodes!r}") from None


def load(link: Link, keys: Keys, kinds: Sequence[QuotaKind]) -> dict[QuotaKey, Quota]:
    """Every quota of these kinds, in one round trip."""
    hashes = [key for kind in kinds for key in keys.quota(kind)]
    answers = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in link.batch([("HGETALL", k) for k in hashes])]
    found: dict[QuotaKey, Quota] = {}
    for at, kind in enumerate(kinds):
        limits, space, inodes = answers[3 * at : 3 * at + 3]
        for field, count in inodes.items():
            try:
                found[QuotaKey(kind, int(field))] = decode(limits.get(field), space.get(field), count)
            except (CorruptError, ValueError) as error:
                logger.warning("a quota in %s is left out: field %r: %s", keys.quota(kind)[0].decode(), field, error)
    return found
