"""The commit of a compaction: the head of a chunk's list, if it still is what was compacted, gives way to new records
(volume-format.md 2.16 compact, 4.4). The node is not touched: what readers see stays the same.
"""

from __future__ import annotations

from fscore.domain.compaction import Plan
from fscore.meta.ops.data import refer
from fscore.meta.ops.work import Work
from fscore.meta.records import want_chunk


def compact(work: Work, ino: int, index: int, plan: Plan, slice_id: int, *, delayed: bool) -> bool:
    """Replace records; those replaced are let go, or parked for the days of the trash (`delayed`).

    False, with nothing written, when somebody changed the head of the list. Newer records behind it stay.
    """
    txn = work.txn
    txn.prefetch(want_chunk(ino, index))
    snapshot = plan.snapshot
    if txn.chunk(ino, index)[: len(snapshot)] != snapshot:
        return False
    fresh = plan.records(slice_id)
    gone = [(record.id, record.size) for record in plan.replaced if record.id]
    txn.replace_prefix(ino, index, len(snapshot), plan.kept + fresh)
    refer(work, fresh, {slice_id})
    first, count = fresh[0], len(plan.replaced)
    work.log("COMPACTCHUNK(%d,%d,%d,%d,%d,%d,%d)", ino, index, len(plan.kept), count, first.pos, first.id, first.length)
    if delayed:
        if gone:
            txn.put_delayed(slice_id, work.now_s, gone)
        return True
    for key in dict.fromkeys(gone):
        txn.add_refs(*key, -gone.count(key))
    return True
