"""Headers: what is refused and with which words; what is accepted is what the real library accepts."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from fscore.hub.formats.api import DTYPE_BITS, CutShort, FormatError, nbytes_of
from fscore.hub.formats.safetensors import ALIGN, build_header, read_header


class Memory:
    """A file in memory behind the reader's interface."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.size = len(data)

    def pread(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def close(self) -> None:
        self._file.close()


def packed(header: Any, data: bytes = b"") -> bytes:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(body)) + body + data


def entry(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


REFUSED = [
    (b"", "0 bytes are too few"),
    (b"\1\0\0\0", "4 bytes are too few"),
    (struct.pack("<Q", 1 << 40), "above the format's limit"),
    (struct.pack("<Q", 100) + b"{}", "does not fit the file"),
    (packed(b"[1]"), "does not start with an object"),
    (packed(b"{,}"), "not valid JSON"),
    (packed(b"\xff\xfe{}"), "does not start with an object"),
    (packed({"a": entry([2], 0, 8)}, bytes(7)), "cut short: "),
    (packed({"a": entry([2], 0, 8)}, bytes(9)), "1 bytes too many at the end"),
    (packed({"a": entry([2], 0, 8), "b": entry([1], 12, 16)}, bytes(16)), "a hole of 4 bytes lies before tensor b"),
    (packed({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, bytes(8)), "tensor b overlaps"),
    (packed({"a": entry([2], 4, 12)}, bytes(12)), "a hole of 4 bytes lies before tensor a"),
    (packed({"a": entry([3], 0, 8)}, bytes(8)), "tensor a says F32 [3], which is 12 bytes, but holds 8"),
    (packed({"a": entry([2], 8, 0)}, bytes(8)), "but holds -8"),
    (packed({"a": entry([2], 0, 8, "F31")}, bytes(8)), "tensor a: dtype F31"),
    (packed({"a": entry([3], 0, 2, "F4")}, bytes(2)), "do not fill whole bytes"),
    (packed({"a": entry([-2, -1], 0, 8)}, bytes(8)), "impossible shape"),
    (packed({"a": entry([True, 2], 0, 8)}, bytes(8)), "impossible shape"),
    (packed({"a": entry([2.0], 0, 8)}, bytes(8)), "impossible shape"),
    (packed({"a": entry([2], 0, -8)}, bytes(8)), "impossible data_offsets"),
    (packed({"a": [1]}, b""), "must have dtype, shape and data_offsets"),
    (packed({"a": {**entry([2], 0, 8), "more": 1}}, bytes(8)), "must have dtype, shape and data_offsets"),
    (packed({"__metadata__": {"a": 1}}), "must map text to text"),
    (packed({"__metadata__": []}), "must map text to text"),
    (packed(b'{"a":' + json.dumps(entry([1], 0, 4)).encode() + b',"a":' + json.dumps(entry([1], 0, 4)).encode() + b"}",
            bytes(4)), "names a twice"),
    (packed(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "names dtype twice"),
    (packed(b'{"a":' * 100_000), "not valid JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "says"), REFUSED, ids=[says[:40] for _, says in REFUSED])
def test_refusals_name_the_file_and_the_tensor(data: bytes, says: str) -> None:
    with pytest.raises(FormatError) as refused:
        read_header(Memory(data), "x.safetensors")
    assert str(refused.value).startswith("x.safetensors: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, CutShort) == any(w in says for w in ("too few", "does not fit", "cut short"))


def test_truncation_at_every_length() -> None:
    whole = packed({"a": entry([2], 0, 8), "b": entry([4], 8, 24)}, bytes(24))
    assert len(read_header(Memory(whole), "x").entries) == 2
    for length in range(len(whole)):
        with pytest.raises(CutShort):
            read_header(Memory(whole[:length]), "x")


def test_the_real_writer_is_read() -> None:
    arrays = {"b": np.ones((2, 3), np.float32), "a": np.zeros((), np.int64), "empty": np.zeros((0, 4), np.float16)}
    header = read_header(Memory(save(arrays, {"format": "pt"})), "x")
    assert header.metadata == {"format": "pt"}
    assert {entry.name: entry.shape for entry in header.entries} == {"a": (), "b": (2, 3), "empty": (0, 4)}


def test_our_header_is_read_by_the_real_library(tmp_path: Path) -> None:
    shapes = [("z.first", "F32", (2, 3)), ("ä", "BF16", ()), ("nothing", "I64", (0,)), ("f8", "F8_E4M3", (5,))]
    header = build_header(shapes)
    assert len(header) % ALIGN == 0
    data = b"".join(bytes(nbytes_of(dtype, shape)) for _, dtype, shape in shapes)
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + data)
    with safe_open(path, "np") as opened:
        assert set(opened.keys()) == {name for name, _, _ in shapes}
        assert opened.metadata() == {"format": "pt"}
        assert opened.get_slice("z.first").get_shape() == [2, 3]
    assert [e.name for e in read_header(Memory(header + data), "x").entries if e.nbytes] == ["z.first", "ä", "f8"]


def test_a_header_does_not_name_a_tensor_twice() -> None:
    with pytest.raises(FormatError, match="planned twice"):
        build_header([("a", "F32", (1,)), ("a", "F32", (1,))])


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
wide = sorted(name for name, bits in DTYPE_BITS.items() if bits % 8 == 0)


@given(st.dictionaries(names, st.tuples(st.sampled_from(wide), shapes), max_size=5))
def test_round_trip(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    tensors.pop("__metadata__", None)
    header = build_header((name, dtype, shape) for name, (dtype, shape) in tensors.items())
    data = bytes(sum(nbytes_of(dtype, shape) for dtype, shape in tensors.values()))
    read = read_header(Memory(header + data), "x")
    assert {entry.name: (entry.dtype, entry.shape) for entry in read.entries} == tensors
    assert read.size == len(header) + len(data)


@given(st.data())
def test_whatever_we_accept_the_real_library_accepts(data: st.DataObject) -> None:
    whole = bytearray(packed({"a": entry([2], 0, 8), "b": entry([1, 1], 8, 12)}, bytes(12)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 13))
        whole[at] = data.draw(st.sampled_from([*b'{}[]",:0123456789 abFx', 0xFF, 0]))
    try:
        read_header(Memory(bytes(whole)), "x")
    except FormatError:
        return
    try:
        load(bytes(whole))
    except SafetensorError as error:
        pytest.fail(f"we accepted what the library refuses: {error}: {bytes(whole)!r}")
    except (ValueError, KeyError):
        pass
