"""What files hold: lengths, slices, composition; and which files this client has open."""

from __future__ import annotations

from collections.abc import Sequence

from fscore.domain.attr import Attr, Flag, Kind
from fscore.domain.caller import Caller
from fscore.domain.compaction import Plan
from fscore.domain.errors import Invalid, IsADir, NotPermitted
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import TRASH
from fscore.domain.slices import SliceRecord, overlay
from fscore.meta.ops import change, compact, data, space
from fscore.meta.ops.change import AttrChange
from fscore.meta.ops.check import READ, WRITE
from fscore.meta.ops.data import FreshSlice, Part, Piece, SliceRange
from fscore.meta.records import want_chunk
from fscore.meta.service.attributes import Attributes

_ROOT = Caller.root()


class Data(Attributes):
    """Blocks first, slice after: whoever commits a record here has its objects durable already."""

    def open_file(self, who: Caller, ino: int, *, write: bool, append: bool = False) -> Attr:
        """Count a handle and return fresh attributes (close-to-open); checks that the caller may read or write."""
        known = self._cache.node(ino, self._clock.monotonic())
        attr = known if known is not None and known.immutable else self._node(ino, fresh=True)
        if attr.kind == Kind.DIRECTORY and write:
            raise IsADir(f"inode {ino}")
        if write:
            self._check_writable()
            if attr.parent > TRASH:
                raise NotPermitted("it is in the trash")
            if attr.immutable or (attr.flags & Flag.APPEND and not append):
                raise NotPermitted("it is immutable, or append-only and not opened to append")
        self._check_access(attr, who, WRITE if write else READ)
        self._opened.open(ino)
        return attr

    def hold_file(self, ino: int) -> None:
        """Count a handle of a file that this client has just made: nothing to ask, nothing to check."""
        self._opened.open(ino)

    def close_file(self, ino: int) -> None:
        """One handle less; a file without a name goes with the last one."""
        if self._opened.close(ino):
            self._destroy_sustained(ino)

    def truncate(self, who: Caller, ino: int, length: int, *, checked: bool = False) -> Attr:
        """Set a file's length; `checked` when an open handle carries the permission already."""
        attr = self._run(who, lambda work: change.truncate(work, ino, length, checked=checked))
        return attr if who.uid == 0 else self.strip_privileges(ino, attr)

    def strip_privileges(self, ino: int, attr: Attr) -> Attr:
        """Take setuid, and setgid of what its group may execute, from a file that somebody unprivileged changed."""
        mode = change.stripped(attr.mode)
        if attr.kind != Kind.FILE or mode == attr.mode:
            return attr
        return self.setattr(_ROOT, ino, AttrChange(mode=mode))

    def records(self, ino: int, index: int) -> list[SliceRecord]:
        """The slice records of a chunk as they lie, oldest first."""
        self._check_alive()
        with self.engine.view() as view:
            records = view.chunk(ino, index)
        if not records:
            self._node(ino)
        return list(records)

    def read(self, ino: int, index: int) -> list[SliceRecord]:
        """What a reader of a chunk sees: ascending, disjoint pieces, holes explicit, zeros after the last."""
        return overlay(self.records(ino, index))

    def read_many(self, ino: int, indexes: Sequence[int]) -> list[tuple[int, list[SliceRecord]]]:
        """As read, of several chunks in one round trip where the engine can."""
        self._check_alive()
        with self.engine.view() as view:
            view.prefetch(*(want_chunk(ino, index) for index in indexes))
            return [(index, overlay(view.chunk(ino, index))) for index in indexes]

    def new_slice_id(self) -> int:
        """A fresh slice id, out of the range this client has reserved."""
        self._check_writable()
        return self._slices.take()

    def write(self, ino: int, index: int, records: Sequence[SliceRecord], mtime_ns: int, *, new_length: int) -> Attr:
        """Commit records of fresh slices to one chunk, in their order; the file is at least `new_length` long then."""
        records = tuple(records)
        _check_records(records)
        return self._run(_ROOT, lambda work: data.write(work, ino, index, records, mtime_ns, new_length=new_length))

    def fallocate(self, who: Caller, ino: int, mode: int, offset: int, length: int, *, checked: bool = False) -> Attr:
        """fallocate(2): extend, punch or zero a range; `checked` when an open handle carries the permission."""
        return self._run(who, lambda work: space.fallocate(work, ino, mode, offset, length, checked=checked))

    def chunk_indexes(self, ino: int, first: int, stop: int) -> list[int]:
        """Indexes in [first, stop) of the chunks that hold any record, ascending: the others are holes."""
        self._check_alive()
        with self.engine.view() as view:
            return view.chunk_indexes(ino, first, stop)

    def compact(self, ino: int, index: int, plan: Plan, slice_id: int) -> bool:
        """Put a compaction's slice, whose objects are durable, in the place of what it was made of.

        False when the chunk's list is another one by now. With the trash on what was replaced stays for its days.
        """
        delayed = self.setting.trash_days > 0
        return self._run(_ROOT, lambda work: compact.compact(work, ino, index, plan, slice_id, delayed=delayed))

    def compose(self, who: Caller, ino: int, offset: int, pieces: Sequence[Piece], *, checked: bool = False) -> Attr:
        """Lay ranges of files, fresh slices and holes one after the other from `offset`; moves references only.

        One transaction per chunk of the target. Raises Invalid when a range lies outside its source. `checked`:
        open handles carry the permission to read the sources and to write the target.
        """
        attr, _ = self._compose(who, ino, offset, pieces, checked=checked)
        return attr

    def _compose(
        self, who: Caller, ino: int, offset: int, pieces: Sequence[Piece], *, checked: bool = False
    ) -> tuple[Attr, int]:
        end = data.check_pieces(offset, pieces)
        if offset // CHUNK != (end - 1) // CHUNK:
            self._check_sources(pieces)
        attr, records, declared = None, 0, frozenset[int]()
        for index, parts in data.by_target_chunk(offset, pieces):
            attr, added = self._lay(who, ino, index, parts, declared, checked=checked)
            records += added
            declared |= {part.piece.id for part in parts if isinstance(part.piece, FreshSlice)}
        return (self._node(ino) if attr is None else attr), records

    def _check_sources(self, pieces: Sequence[Piece]) -> None:
        """Refuse before the first chunk what the transactions would refuse at a later one."""
        for piece in pieces:
            if not isinstance(piece, SliceRange):
                continue
            attr = self._node(piece.ino)
            if attr.length < piece.offset + piece.length:
                attr = self._node(piece.ino, fresh=True)
            data.check_range(attr, piece)

    def _lay(
        self, who: Caller, ino: int, index: int, parts: Sequence[Part], declared: frozenset[int], *, checked: bool
    ) -> tuple[Attr, int]:
        return self._run(who, lambda work: data.compose(work, ino, index, parts, declared, checked=checked))

    def copy_file_range(
        self, who: Caller, src: int, soff: int, dst: int, doff: int, length: int, *, checked: bool = False
    ) -> int:
        """Share a range of one file with another; returns the bytes, clipped to the end of the source.

        One transaction per chunk of the target.
        """
        if soff < 0 or doff < 0 or length < 0:
            raise Invalid("a negative offset or length")
        if src == dst or not length:
            attr = self._node(src, fresh=True)
            data.check_range(attr, SliceRange(src, 0, 0))
            length = max(min(length, attr.length - soff), 0)
            if length and soff < doff + length and doff < soff + length:
                raise Invalid("the ranges overlap")
        done = 0
        while done < length:
            index, pos = divmod(doff + done, CHUNK)
            asked = min(length - done, CHUNK - pos)
            laid = self._copy(who, dst, index, Part(pos, SliceRange(src, soff + done, asked)), checked=checked)
            done += laid
            if laid < asked:
                break
        return done

    def _copy(self, who: Caller, ino: int, index: int, part: Part, *, checked: bool) -> int:
        return self._run(who, lambda work: data.copy(work, ino, index, part, checked=checked))[1]


def _check_records(records: Sequence[SliceRecord]) -> None:
    if not records:
        raise Invalid("a commit of no record")
    for record in records:
        inside = record.id == 0 or record.off + record.length <= record.size
        if record.length <= 0 or record.pos < 0 or record.end > CHUNK or not inside:
            raise Invalid(f"a slice record that cannot be: {record}")
