"""What a file holds: the commit of written slices, and composition out of ranges that exist
(volume-format.md 2.16 write commit and copy_file_range, 2.17, 4.2).

Rule 1  one reference per record with a slice id, taken in the transaction that appends the record.
Rule 2  the chunks that records are copied from are read in that transaction, so that a compaction in between is seen.
Rule 3  records that continue each other in slice and place become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from fscore.domain.attr import Attr, Flag, Kind, align4k
from fscore.domain.errors import Invalid, IsADir, NotPermitted, TooLarge
from fscore.domain.geometry import CHUNK, by_chunk
from fscore.domain.slices import SliceRecord, clip, hole, overlay
from fscore.meta.ops.change import MAX_LENGTH, existing, parents_of
from fscore.meta.ops.check import READ, WRITE, check_access, check_movable
from fscore.meta.ops.work import NANO, Work
from fscore.meta.records import Want, want_chunk, want_file, want_node


class SliceRange(NamedTuple):
    """A byte range of a file that exists, to be shared."""

    ino: int
    offset: int
    length: int


class FreshSlice(NamedTuple):
    """`length` bytes from `off` of a slice that was uploaded for this, whose objects hold `size` bytes."""

    id: int
    size: int
    off: int
    length: int


class Hole(NamedTuple):
    """Zeros."""

    length: int


Piece = SliceRange | FreshSlice | Hole


class Part(NamedTuple):
    """What of a piece lies in one target chunk: the piece cut to it, and its place there."""

    pos: int
    piece: Piece


def check_pieces(offset: int, pieces: Sequence[Piece]) -> int:
    """The end of pieces laid from `offset`. Invalid or TooLarge when they cannot lie there."""
    if offset < 0:
        raise Invalid(f"an offset of {offset}")
    for piece in pieces:
        if piece.length < 0:
            raise Invalid(f"a piece of {piece.length} bytes")
        if isinstance(piece, SliceRange) and piece.offset < 0:
            raise Invalid(f"a source offset of {piece.offset}")
        if isinstance(piece, FreshSlice) and not 0 <= piece.off <= piece.off + piece.length <= piece.size <= CHUNK:
            raise Invalid(f"a range outside its slice {piece.id}")
    end = offset + sum(piece.length for piece in pieces)
    if end > MAX_LENGTH:
        raise TooLarge(f"{end} bytes")
    return end


def by_target_chunk(offset: int, pieces: Iterable[Piece]) -> Iterator[tuple[int, list[Part]]]:
    """Lay pieces one after the other from `offset`, and cut them at chunk borders: (chunk index, its parts)."""
    index, parts = offset // CHUNK, list[Part]()
    for piece in pieces:
        done = 0
        for at, pos, length in by_chunk(offset, piece.length):
            if at != index:
                if parts:
                    yield index, parts
                index, parts = at, []
            parts.append(Part(pos, _cut(piece, done, length)))
            done += length
        offset += piece.length
    if parts:
        yield index, parts


def _cut(piece: Piece, start: int, length: int) -> Piece:
    if isinstance(piece, SliceRange):
        return SliceRange(piece.ino, piece.offset + start, length)
    if isinstance(piece, FreshSlice):
        return FreshSlice(piece.id, piece.size, piece.off + start, length)
    return Hole(length)


def writable(work: Work, ino: int) -> Attr:
    """The attributes of a file whose content may change."""
    attr = existing(work.txn, ino)
    if attr.kind != Kind.FILE:
        raise IsADir(f"inode {ino}") if attr.kind == Kind.DIRECTORY else Invalid(f"inode {ino} is no file")
    if attr.flags & Flag.IMMUTABLE:
        raise NotPermitted("it is immutable")
    return attr


def write(work: Work, ino: int, index: int, records: Sequence[SliceRecord], mtime_ns: int, *, new_length: int) -> Attr:
    """Append the records of slices whose objects are durable; the file is then at least `new_length` long."""
    txn = work.txn
    txn.prefetch(want_file(ino))
    attr = writable(work, ino)
    length = max(attr.length, new_length)
    if length > MAX_LENGTH:
        raise TooLarge(f"{length} bytes")
    space = align4k(length) - align4k(attr.length)
    parents = parents_of(txn, ino, attr)
    work.need(space, 0, attr, parents)
    txn.append(ino, index, records)
    refer(work, records, fresh={record.id for record in records})
    for record in records:
        _log_write(work, ino, index, record.pos, record.id, record.length, mtime_ns)
    return _grown(work, ino, attr, parents, length, mtime_ns)


def compose(
    work: Work, ino: int, index: int, parts: Sequence[Part], declared: frozenset[int], *, checked: bool = False
) -> tuple[Attr, int]:
    """Lay the parts of one target chunk; `declared` are fresh slices that an earlier chunk refers to already.

    `checked`: open handles carry the permissions. Returns the attributes and the number of records appended.
    """
    txn = work.txn
    sources = [part.piece for part in parts if isinstance(part.piece, SliceRange)]
    txn.prefetch(*_wants(ino, index, sources))
    for source in sources:
        _check_source(work, source, checked=checked)
    attr = writable(work, ino)
    check_movable(attr)
    if not checked:
        check_access(txn, attr, work.who, WRITE)
    old = txn.chunk(ino, index)
    records = _records(work, parts, old)
    end = index * CHUNK + parts[-1].pos + parts[-1].piece.length
    length = max(attr.length, end)
    space = align4k(length) - align4k(attr.length)
    parents = parents_of(txn, ino, attr)
    work.need(space, 0, attr, parents)
    if records:
        txn.append(ino, index, records)
    fresh = {part.piece.id for part in parts if isinstance(part.piece, FreshSlice)} - declared
    refer(work, records, fresh)
    _log_compose(work, ino, index, parts, length)
    return _grown(work, ino, attr, parents, length, work.now_ns), len(records)


def _log_write(work: Work, ino: int, index: int, pos: int, slice_id: int, length: int, mtime_ns: int) -> None:
    work.log("WRITE(%d,%d,%d,%d,%d,%d,%d):0", ino, index, pos, slice_id, length, *divmod(mtime_ns, NANO))


def _log_compose(work: Work, ino: int, index: int, parts: Sequence[Part], length: int) -> None:
    """What is shared is a copied range, what is new a write, what is empty a zeroed range."""
    if work.rules.log is None:
        return
    for pos, piece in parts:
        at = index * CHUNK + pos
        if isinstance(piece, FreshSlice):
            _log_write(work, ino, index, pos, piece.id, piece.length, work.now_ns)
        elif isinstance(piece, Hole):
            work.log("FALLOCATE(%d,%d,%d,16)", ino, at, piece.length)
        else:
            work.log("COPYFILERANGE(%d,%d,%d,%d,%d):%d", piece.ino, piece.offset, ino, at, piece.length, length)


def _wants(ino: int, index: int, sources: Iterable[SliceRange]) -> list[Want]:
    wants = [want_file(ino), want_chunk(ino, index)]
    for source in sources:
        wants.append(want_node(source.ino))
        wants += [want_chunk(source.ino, at) for at, _, _ in by_chunk(source.offset, source.length)]
    return list(dict.fromkeys(wants))


def copy(work: Work, ino: int, index: int, part: Part, *, checked: bool = False) -> tuple[Attr | None, int]:
    """As `compose` of one range of a file, as far as that has bytes; returns how many it laid, and the attributes."""
    source = part.piece
    assert isinstance(source, SliceRange)
    work.txn.prefetch(*_wants(ino, index, [source]))
    attr = existing(work.txn, source.ino)
    check_range(attr, SliceRange(source.ino, 0, 0))
    length = min(source.length, attr.length - source.offset)
    if length <= 0:
        return None, 0
    if index * CHUNK + part.pos + length > MAX_LENGTH:
        raise TooLarge(f"{index * CHUNK + part.pos + length} bytes")
    clipped = Part(part.pos, _cut(source, 0, length))
    return compose(work, ino, index, [clipped], frozenset(), checked=checked)[0], length


def check_range(attr: Attr, source: SliceRange) -> None:
    """A source must be a file, and the range inside it."""
    if attr.kind != Kind.FILE:
        raise IsADir(f"inode {source.ino}") if attr.kind == Kind.DIRECTORY else Invalid(f"{source.ino} is no file")
    if source.offset + source.length > attr.length:
        raise Invalid(f"a range that ends at {source.offset + source.length} in a file of {attr.length} bytes")


def _check_source(work: Work, source: SliceRange, *, checked: bool) -> None:
    attr = existing(work.txn, source.ino)
    check_range(attr, source)
    if not checked:
        check_access(work.txn, attr, work.who, READ)


def _records(work: Work, parts: Sequence[Part], old: Sequence[SliceRecord]) -> list[SliceRecord]:
    records: list[SliceRecord] = []
    for part in parts:
        for record in _part_records(work, part):
            if record.id == 0 and not any(other.pos < record.end and other.end > record.pos for other in old):
                continue  # nothing was written there, so that it reads as zeros already
            if records and _continues(records[-1], record):
                last = records[-1]
                records[-1] = last._replace(length=last.length + record.length)
            else:
                records.append(record)
    return records


def _part_records(work: Work, part: Part) -> Iterator[SliceRecord]:
    pos, piece = part
    if isinstance(piece, FreshSlice):
        if piece.length:
            yield SliceRecord(pos, piece.id, piece.size, piece.off, piece.length)
    elif isinstance(piece, Hole):
        if piece.length:
            yield hole(pos, piece.length)
    else:
        for index, start, length in by_chunk(piece.offset, piece.length):
            view = overlay(work.txn.chunk(piece.ino, index))
            for record in clip(view, start, length):
                yield record._replace(pos=pos + record.pos - start)
            pos += length


def _continues(last: SliceRecord, record: SliceRecord) -> bool:
    if last.end != record.pos or last.id != record.id:
        return False
    return record.id == 0 or (last.size == record.size and last.off + last.length == record.off)


def refer(work: Work, records: Sequence[SliceRecord], fresh: set[int]) -> None:
    """Take one reference per record; the first record of a fresh slice declares it."""
    counts: dict[tuple[int, int], int] = {}
    for record in records:
        if record.id:
            counts[record.id, record.size] = counts.get((record.id, record.size), 0) + 1
    for (slice_id, size), count in counts.items():
        more = count
        if slice_id in fresh:
            work.txn.new_slice(slice_id, size)
            more -= 1
        if more:
            work.txn.add_refs(slice_id, size, more)


def _grown(work: Work, ino: int, attr: Attr, parents: dict[int, int], length: int, mtime_ns: int) -> Attr:
    changed = replace(attr, length=length, mtime_ns=mtime_ns, ctime_ns=work.now_ns)
    work.put_node(ino, changed)
    space = align4k(length) - align4k(attr.length)
    work.charge(space, 0, attr)
    work.stat_growth(parents, length - attr.length, space)
    return changed
