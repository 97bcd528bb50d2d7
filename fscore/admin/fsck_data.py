"""Checks of the data: slice records, references, and the objects behind them.

Holds two numbers for each slice of the volume: its size and which of its blocks were seen.
"""

from __future__ import annotations

from typing import Final

from fscore.admin.fsck_tree import Node
from fscore.admin.report import Findings
from fscore.blocks.store import BlockStore
from fscore.domain.attr import Kind
from fscore.domain.geometry import CHUNK, block_length
from fscore.domain.keys import block_key, parse_block_key
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import MetaEngine

MAX_SLICE: Final = CHUNK


class DataCheck:
    """Passes over chunk lists, references and objects."""

    def __init__(self, engine: MetaEngine, blocks: BlockStore, setting: Setting, findings: Findings) -> None:
        self._engine = engine
        self._blocks = blocks
        self._setting = setting
        self._found = findings
        self._sizes: dict[int, int] = {}
        self._records: dict[int, int] = {}
        self._dead: set[int] = set()

    def run(self, nodes: dict[int, Node], *, objects: bool) -> None:
        """Everything there is to check about records; with `objects` the store is listed, too."""
        self._check_records(nodes)
        self._check_refs()
        self._found.counts["slices"] = len(self._records)
        self._found.counts["slice_bytes"] = sum(self._sizes.values())
        if objects:
            self._check_objects()

    def _check_records(self, nodes: dict[int, Node]) -> None:
        deleted = {ino for ino, _ in self._engine.scan_delfiles()}
        self._found.counts["delfiles"] = len(deleted)
        records_seen = 0
        for ino, index, records in self._engine.scan_chunks():
            where = f"inode {ino} chunk {index}"
            node = nodes.get(ino)
            if node is None and ino not in deleted:
                self._found.leak("chunk", where, "belongs to a file that is not there")
            elif node is not None and node.kind != Kind.FILE:
                self._found.problem("chunk", where, f"belongs to a {node.kind.name.lower()}")
            for record in records:
                records_seen += 1
                self._take_record(where, record)
        for slice_id, size in self._engine.scan_delayed():
            self._count(slice_id, size, "delayed slices")
        self._found.counts["records"] = records_seen

    def _take_record(self, where: str, record: SliceRecord) -> None:
        if record.length <= 0 or record.end > CHUNK:
            self._found.problem("record", where, f"leaves its chunk: {tuple(record)}")
        if record.id == 0:
            return
        if record.off + record.length > record.size or record.size > MAX_SLICE:
            self._found.problem("record", where, f"leaves its slice: {tuple(record)}")
        self._count(record.id, record.size, where)

    def _count(self, slice_id: int, size: int, where: str) -> None:
        if not slice_id:
            return
        known = self._sizes.setdefault(slice_id, size)
        if known != size:
            self._found.problem("record", where, f"slice {slice_id} has {size} bytes here and {known} elsewhere")
        self._records[slice_id] = self._records.get(slice_id, 0) + 1

    def _check_refs(self) -> None:
        """References = records + delayed slices. Redis keeps exceptions to 1 only, SQL a row for every slice."""
        stored: set[int] = set()
        for slice_id, size, refs in self._engine.scan_refs():
            if not slice_id:
                continue  # holes, which the official client counts when it loads a dump
            where = f"slice {slice_id}"
            records = self._records.get(slice_id, 0)
            if records and self._sizes[slice_id] != size:
                self._found.problem("refs", where, f"are kept for {size} bytes, it has {self._sizes[slice_id]}")
                continue
            stored.add(slice_id)
            if not records:
                self._dead.add(slice_id)
                self._found.leak("dead_slice", where, f"of {size} bytes waits for deletion ({refs} references)")
            elif refs < records:
                self._found.problem("refs", where, f"are {refs}, {records} records use it")
            elif refs > records:
                self._found.leak("refs", where, f"are {refs}, {records} records use it: it will never be deleted")
        if keeps_exceptions_only(self._engine):
            missing = [
                (slice_id, count) for slice_id, count in self._records.items() if slice_id not in stored and count > 1
            ]
        else:
            missing = [(slice_id, count) for slice_id, count in self._records.items() if slice_id not in stored]
        for slice_id, count in missing:
            self._found.problem("refs", f"slice {slice_id}", f"are not kept, {count} records use it")

    def _check_objects(self) -> None:
        block_size = self._setting.block_size
        plain = self._setting.compression.lower() in ("", "none") and not self._setting.encrypt_key
        seen: dict[int, int] = {}
        count = total = 0
        for found in self._blocks.objects.scan("chunks/"):
            count += 1
            total += found.size
            parsed = parse_block_key(found.key)
            size = self._sizes.get(parsed[0]) if parsed else None
            if parsed is None or size is None:
                self._found.leak("object", found.key, f"{found.size} bytes that no record refers to")
                continue
            slice_id, index, length = parsed
            expected = block_length(size, index, block_size)
            named = block_key(slice_id, index, length, hash_prefix=self._setting.hash_prefix)
            if expected <= 0 or length != expected or named != found.key:
                self._found.leak("object", found.key, f"no block of slice {slice_id} of {size} bytes")
            elif found.size == 0 or (plain and found.size != expected):
                self._found.problem("block_size", found.key, f"is {found.size} bytes, must be {expected}")
            else:
                seen[slice_id] = seen.get(slice_id, 0) | 1 << index
        self._found.counts["objects"] = count
        self._found.counts["object_bytes"] = total
        for slice_id, size in self._sizes.items():
            wanted = (1 << -(-size // block_size)) - 1
            if seen.get(slice_id, 0) != wanted:
                self._report_missing(slice_id, size)

    def _report_missing(self, slice_id: int, size: int) -> None:
        """Asked again one by one, for the listing is older than the volume may be by now."""
        for key in self._blocks.exists(slice_id, size):
            self._found.problem("missing_block", key, f"slice {slice_id} of {size} bytes needs it")


def keeps_exceptions_only(engine: MetaEngine) -> bool:
    """Whether a slice with one reference has no reference record (volume-format.md 2.9; SQL: 3.3)."""
    return engine.name in ("redis", "rediss", "unix")
