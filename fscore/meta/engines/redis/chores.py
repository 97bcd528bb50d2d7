"""What a volume needs around its tree in Redis: counters, sessions, queues, features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fscore.domain.quota import QuotaKind
from fscore.meta.engines.redis.keys import OTHER_COUNTERS, Keys, parse_delfile, parse_lock_field
from fscore.meta.engines.redis.link import Link
from fscore.meta.engines.redis.scripts import COMMIT, PUT_SESSION
from fscore.meta.records import Counter, Session

PAGE: Final = 1000
"""Fields of a hash that are asked for in one go."""


def init_volume(link: Link, keys: Keys, setting: bytes, records: Mapping[bytes, bytes]) -> bool:
    """Write setting and nodes, unless a setting is there. The root is written, the trash root kept if it exists.

    A setting with this volume's own UUID is there when a lost connection made the script run twice.
    """
    root = keys.node(1)
    writes = [("SET", keys.setting, setting)]
    writes += [("SET" if key == root else "SETNX", key, raw) for key, raw in records.items()]
    args: list[bytes | int | str] = [1, "s"]
    for command, _, raw in writes:
        args += (command, 1, raw)
    done = link.script(COMMIT, [keys.setting, *(key for _, key, _ in writes)], args) == 1
    return done or bool(link.ask("GET", keys.setting) == setting)


def counters(link: Link, keys: Keys) -> dict[str, int]:
    """Every counter there is. Next inode and slice as the number to hand out next."""
    names = [counter.value for counter in Counter] + list(OTHER_COUNTERS)
    values = link.ask("MGET", *(keys.counter(counter) for counter in Counter), *map(keys.named, OTHER_COUNTERS))
    found = {name: int(value) for name, value in zip(names, values, strict=True) if value is not None}
    found[Counter.INODE.value] = max(found.get(Counter.INODE.value, 0), 1) + 1
    found[Counter.SLICE.value] = found.get(Counter.SLICE.value, 0) + 1
    for name in (Counter.SESSION.value, "usedSpace", "totalInodes"):
        found.setdefault(name, 0)
    return found


def put_session(link: Link, keys: Keys, session: Session) -> bool:
    """Its info when that is missing, and its expiry, at once. Whether it had an expiry before."""
    names = (keys.session_infos, keys.all_sessions)
    return bool(link.script(PUT_SESSION, names, (session.sid, session.expires, session.info)))


def sessions(link: Link, keys: Keys) -> list[Session]:
    """Every session in the set of expiries."""
    scored, fields = link.batch((("ZRANGE", keys.all_sessions, 0, -1, "WITHSCORES"), ("HGETALL", keys.session_infos)))
    infos = dict(zip(fields[::2], fields[1::2], strict=True))
    pairs = zip(scored[::2], scored[1::2], strict=True)
    return sorted(Session(int(sid), int(float(expires)), infos.get(sid, b"")) for sid, expires in pairs)


def drop_session(link: Link, keys: Keys, sid: int) -> None:
    """Its locks, the record of where they are, its record."""
    hashes = link.ask("SMEMBERS", keys.locked(sid))
    commands: list[tuple[bytes | int | str, ...]] = []
    for key, fields in zip(hashes, link.batch([("HKEYS", key) for key in hashes]) if hashes else (), strict=True):
        own = [field for field in fields if parse_lock_field(field)[0] == sid]
        if own:
            commands.append(("HDEL", key, *own))
        commands.append(("SREM", keys.locked(sid), key))
    commands += (("HDEL", keys.session_infos, sid), ("ZREM", keys.all_sessions, sid))
    commands.append(("ZREM", keys.legacy_sessions, sid))
    link.batch(commands)


def delfiles(link: Link, keys: Keys, before_s: int, limit: int) -> list[tuple[int, int]]:
    """Queued deletions whose score is at most `before_s`."""
    members = link.ask("ZRANGEBYSCORE", keys.delfiles, "-inf", before_s, "LIMIT", 0, limit)
    return [pair for pair in map(parse_delfile, members) if pair is not None]


def add_acl(link: Link, keys: Keys, rule: bytes) -> int:
    """Store a rule under the next number; a number that is taken already is passed over (volume-format.md 2.11)."""
    while True:
        number = int(link.ask("INCR", keys.named("aclMaxId")))
        if link.ask("HSETNX", keys.acl, number, rule) or link.ask("HGET", keys.acl, number) == rule:
            return number


def acls_after(link: Link, keys: Keys, after: int) -> dict[int, bytes]:
    """Rules above a number, by the numbers that were given away since: the hash has no order to ask for."""
    last = int(link.ask("GET", keys.named("aclMaxId")) or 0)
    found: dict[int, bytes] = {}
    for first in range(after + 1, last + 1, PAGE):
        numbers = range(first, min(first + PAGE, last + 1))
        rules = link.ask("HMGET", keys.acl, *numbers)
        found |= {number: rule for number, rule in zip(numbers, rules, strict=True) if rule is not None}
    return found


def used_features(link: Link, keys: Keys) -> frozenset[str]:
    """Features whose keys exist. Locks show in the sets of the sessions that hold them."""
    asked: dict[str, tuple[bytes, ...]] = {
        "acl": (keys.acl,),
        "dir_quota": keys.quota(QuotaKind.DIRECTORY),
        "user_quota": (*keys.quota(QuotaKind.USER), *keys.quota(QuotaKind.GROUP)),
        "change_log": (keys.change_log,),
        "legacy_sessions": (keys.legacy_sessions,),
    }
    holders = tuple(keys.locked(session.sid) for session in sessions(link, keys))
    if holders:
        asked["locks"] = holders
    answers = link.batch([("EXISTS", *names) for names in asked.values()])
    return frozenset(name for name, count in zip(asked, answers, strict=True) if count)
