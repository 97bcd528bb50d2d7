"""Changes of quota records, and of what a volume counts at all (volume-format.md 2.10)."""

from __future__ import annotations

from fscore.domain.attr import DIRECTORY_LENGTH, Attr, Kind
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.quota import Load, Quota, QuotaKey, QuotaKind
from fscore.meta.ops.work import Work


def limit(work: Work, key: QuotaKey, max_space: int | None, max_inodes: int | None) -> bool:
    """Set limits, None keeps one; whether the record is new."""
    old = work.txn.quotas([key]).get(key)
    new = (old or Quota()).limited(max_space, max_inodes)
    work.txn.put_quota(key, new)
    work.log("SETQUOTA(%d,%d,%d,%d)", key.kind, key.number, new.max_space, new.max_inodes)
    return old is None


def use(work: Work, key: QuotaKey, used: Load) -> None:
    """Set what is used; the limits stay."""
    quota = work.txn.quotas([key]).get(key, Quota())
    work.txn.put_quota(key, quota._replace(used_space=used.space, used_inodes=used.inodes))


def delete(work: Work, key: QuotaKey) -> None:
    """Remove a directory's record; a user's or group's loses its limits and goes on counting."""
    quota = work.txn.quotas([key]).get(key)
    if key.kind is QuotaKind.DIRECTORY:
        work.txn.del_quota(key)
    elif quota is not None:
        work.txn.put_quota(key, Quota()._replace(used_space=quota.used_space, used_inodes=quota.used_inodes))
    work.log("DELQUOTA(%d,%d)", key.kind, key.number)


def begin_stats(work: Work) -> None:
    """Statistics of directories are kept from now on: those of an earlier time are outdated."""
    work.txn.clear_dir_stats()
    work.log("INIT_ENABLE_DIRSTATS()")


def begin_owners(work: Work) -> None:
    """Usage is counted by user and group from now on."""
    work.txn.clear_quotas()
    work.log("INIT_ENABLE_USERGROUPQUOTA()")


def make_trash(work: Work) -> None:
    """The trash's root, unless it is there."""
    if work.txn.node(TRASH) is not None:
        return
    now = work.now_ns
    work.put_node(TRASH, Attr(Kind.DIRECTORY, 0o555, 0, 0, now, now, now, 2, DIRECTORY_LENGTH, parent=ROOT))
