"""Breaks model directories in ways that happen: each function changes a copy in place."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data starts."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), 8 + length


def write_raw(path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    """A safetensors file of exactly this header and data, however wrong."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body + data)


def find(folder: Path, tensor: str) -> tuple[Path, int, int]:
    """(file, first byte, one past the last) of a tensor."""
    for path in sorted(folder.glob("*.safetensors")):
        header, start = header_of(path)
        if tensor in header:
            begin, end = header[tensor]["data_offsets"]
            return path, start + begin, start + end
    raise KeyError(tensor)


def poke(folder: Path, tensor: str, content: bytes, at: int = 0) -> None:
    """Overwrite bytes of a tensor."""
    path, begin, _ = find(folder, tensor)
    with path.open("r+b") as file:
        file.seek(begin + at)
        file.write(content)


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    body = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            body.pop(key, None)
        else:
            body[key] = value
    path.write_text(json.dumps(body))


def edit_index(folder: Path, **weight_map: str | None) -> None:
    """Change entries of the index, given with `__` for dots; None removes one."""
    path = folder / "model.safetensors.index.json"
    body = json.loads(path.read_text())
    for key, value in weight_map.items():
        name = key.replace("__", ".")
        if value is None:
            del body["weight_map"][name]
        else:
            body["weight_map"][name] = value
    path.write_text(json.dumps(body))


def append_tensor(path: Path, name: str, dtype: str, shape: list[int], content: bytes) -> None:
    """Add a tensor to a file, soundly."""
    header, start = header_of(path)
    data = path.read_bytes()[start:]
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
    write_raw(path, header, data + content)


def edit_pickle(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the pickle inside a torch archive; the archive stays sound."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries:
            archive.writestr(name, change(content) if name.endswith("/data.pkl") else content)
