"""torch.distributed.checkpoint: `.metadata` is written last and says where every piece lies (models.md 1.3).

Saving again into the same directory leaves the old `.metadata` valid while the data changes under it, so it is
believed only when every file ends exactly where its last item does and every item is a whole archive.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from fscore.hub.formats.api import FormatError, read_whole
from fscore.hub.formats.finding import Finding, Folder
from fscore.hub.formats.inert import Inert, Made, Name
from fscore.hub.formats.torch_zip import END_LENGTH, END_RECORD, LOCAL_HEADER

METADATA = ".metadata"
DATA = ".distcp"
_MOST = 1 << 60


class Item(msgspec.Struct, frozen=True):
    """One stored piece: of which tensor (or other value), in which file, where."""

    name: str
    file: str
    offset: int
    length: int
    transformed: bool = False
    at: tuple[int, ...] = ()
    """Where in the tensor the piece begins."""


class Stored(msgspec.Struct, frozen=True):
    """A parsed `.metadata`: global shapes, the element counts that chunks cover, and the items."""

    shapes: dict[str, tuple[int, ...]]
    covered: dict[str, int]
    items: tuple[Item, ...]
    save_id: str = ""
    version: str = ""


def parse_metadata(data: bytes, where: str = METADATA) -> Stored:
    """Read `.metadata` without executing it; raises FormatError when it is something else."""
    top = Inert(data, where).value
    fields = top.fields if isinstance(top, Made) else {}
    states, places = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(states, dict) or not isinstance(places, dict):
        raise FormatError(f"{where}: is not the metadata of torch.distributed.checkpoint")
    shapes: dict[str, tuple[int, ...]] = {}
    covered: dict[str, int] = {}
    for name, state in states.items():
        size = _size(state.fields.get("size")) if isinstance(state, Made) else None
        if size is None:
            continue
        shapes[str(name)] = size
        chunks = state.fields.get("chunks") or []
        parts = [_size(chunk.fields.get("sizes")) for chunk in chunks if isinstance(chunk, Made)]
        covered[str(name)] = sum(math.prod(part) for part in parts if part is not None)
    meta = fields.get("storage_meta")
    save_id = meta.fields.get("save_id") if isinstance(meta, Made) else None
    items = tuple(_item(key, place, where) for key, place in places.items())
    return Stored(shapes, covered, items, str(save_id or ""), str(fields.get("version") or ""))


def look(folder: Folder, finding: Finding, below: str = "") -> None:
    """Add what the files of a DCP directory say; `below` is its path inside the checkpoint (`weights`)."""
    at = f"{below}/" if below else ""
    sizes = {path[len(at) :]: size for path, size in folder.files() if path.startswith(at)}
    here = {path: size for path, size in sizes.items() if "/" not in path}
    if f"{METADATA}.tmp" in here:
        finding.incomplete.append(f"{at}{METADATA}.tmp is still there: the save is not committed")
    if METADATA not in here:
        finding.incomplete.append(f"{at}{METADATA} is missing: the save is not committed")
        return
    try:
        stored = parse_metadata(read_whole(folder, at + METADATA, limit=1 << 30), at + METADATA)
    except FormatError as error:
        finding.corrupt.append(str(error))
        return
    finding.tensors += len(stored.shapes)
    finding.parameters += sum(math.prod(shape) for shape in stored.shapes.values())
    finding.optimizer = finding.optimizer or any("optim" in name for name in stored.shapes)
    finding.writer.update({"save_id": stored.save_id, "dcp_version": stored.version})
    finding.corrupt.extend(
        f"{name}: its chunks hold {stored.covered[name]} of {math.prod(shape)} elements"
        for name, shape in stored.shapes.items()
        if stored.covered[name] != math.prod(shape)
    )
    _files(folder, finding, stored, here, at)


def _files(folder: Folder, finding: Finding, stored: Stored, here: dict[str, int], at: str) -> None:
    by_file: dict[str, list[Item]] = {}
    for item in stored.items:
        by_file.setdefault(item.file, []).append(item)
    orphans = sorted(path for path in here if path.endswith(DATA) and path not in by_file)
    finding.corrupt.extend(f"{at}{path} is in no list: it is of another save" for path in orphans)
    for file, items in sorted(by_file.items()):
        if file not in here:
            finding.corrupt.append(f"{at}{file} is missing, though the save is committed")
            continue
        end = max(item.offset + item.length for item in items)
        if end != here[file]:
            finding.corrupt.append(
                f"{at}{file} has {here[file]} bytes, its items end at {end}: cut short or overwritten"
            )
            continue
        broken = _broken_item(folder, at + file, items)
        if broken:
            finding.corrupt.append(f"{at}{file}: the item of {broken} is not whole: overwritten by another save")


def _broken_item(folder: Folder, path: str, items: list[Item]) -> str:
    """The first item that is not an archive from its first byte to its last; "" when all are."""
    if not path.endswith(DATA):
        return ""
    reader = folder.open(path)
    try:
        for item in items:
            if item.transformed:
                continue
            head = reader.pread(item.offset, len(LOCAL_HEADER))
            tail = reader.pread(max(item.offset, item.offset + item.length - END_LENGTH), len(END_RECORD))
            if head != LOCAL_HEADER or tail != END_RECORD:
                return item.name
    finally:
        reader.close()
    return ""


def _size(value: object) -> tuple[int, ...] | None:
    """A torch.Size: called with one tuple."""
    if isinstance(value, Made) and isinstance(value.of, Name) and str(value.of) == "torch.Size" and value.args:
        value = value.args[0]
    if isinstance(value, tuple | list) and all(isinstance(n, int) and n >= 0 for n in value):
        return tuple(value)
    return None


def _item(key: Any, place: Any, where: str) -> Item:  # noqa: ANN401  a pickle holds anything
    index, info = (key.fields if isinstance(key, Made) else {}), (place.fields if isinstance(place, Made) else {})
    name, file, offset, length = (index.get("fqn"), *(info.get(part) for part in ("relative_path", "offset", "length")))
    if not isinstance(file, str) or not isinstance(offset, int) or not isinstance(length, int):
        raise FormatError(f"{where}: an item has no place")
    if not 0 <= offset <= _MOST or not 0 <= length <= _MOST:
        raise FormatError(f"{where}: an item lies at {offset} with {length} bytes, which cannot be")
    at = _size(index.get("offset")) or ()
    return Item(str(name), file, offset, length, transformed=bool(info.get("transform_descriptors")), at=at)
