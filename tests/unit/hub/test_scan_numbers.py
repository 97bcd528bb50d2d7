"""The integer tests for NaN and infinity agree with floating point on every dtype, wherever the bytes are cut."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.hub.formats.api import FormatError, TensorEntry
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import LocalSource
from fscore.hub.validate.scan import TensorScanner, TensorStats, bits_to_float, scan_tensor, scan_tensors


def scan(dtype: str, data: bytes, *cuts: int) -> TensorStats:
    scanner = TensorScanner(dtype)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        scanner.feed(data[start:stop])
    return scanner.finish()


def widened(dtype: str, data: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The values as numpy knows them."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "F8_E5M2":
        return (np.frombuffer(data, "<u1").astype(np.uint16) << 8).view(np.float16).astype(np.float64)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(np.float64)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E5M2"])
@given(raw=st.binary(min_size=8, max_size=256), cuts=st.lists(st.integers(0, 256), max_size=3))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_against_floating_point(dtype: str, raw: bytes, cuts: list[int]) -> None:
    data = raw[: len(raw) // 8 * 8]
    found, values = scan(dtype, data, *cuts), widened(dtype, data)
    finite = values[np.isfinite(values)]
    assert found.elements == len(values)
    assert found.nan == np.isnan(values).sum()
    assert found.inf == np.isinf(values).sum()
    assert found.zeros == (values == 0).sum()
    assert found.absmax == (np.abs(finite).max() if len(finite) else 0.0)


def test_every_pattern_of_two_bytes() -> None:
    every = np.arange(65536, dtype=np.uint16).tobytes()
    for dtype, nans in (("BF16", 2 * 127), ("F16", 2 * 1023)):
        found = scan(dtype, every)
        assert (found.nan, found.inf, found.zeros) == (nans, 2, 2)
    assert scan("F16", every).absmax == 65504.0


@pytest.mark.parametrize(
    ("dtype", "nan", "inf", "zeros", "top"),
    [
        ("F8_E4M3", 2, 0, 2, 448.0),
        ("F8_E5M2", 6, 2, 2, 57344.0),
        ("F8_E4M3FNUZ", 1, 0, 1, None),
        ("F8_E8M0", 1, 0, 1, None),
        ("U8", 0, 0, 1, None),
        ("BOOL", 0, 0, 1, None),
    ],
)
def test_every_pattern_of_one_byte(dtype: str, nan: int, inf: int, zeros: int, top: float | None) -> None:
    found = scan(dtype, bytes(range(256)))
    assert (found.nan, found.inf, found.zeros, found.absmax) == (nan, inf, zeros, top)


def test_small_fp8_values() -> None:
    assert bits_to_float("F8_E4M3", 0x01) == 2.0**-9
    assert bits_to_float("F8_E4M3", 0x38) == 1.0
    assert math.isclose(bits_to_float("F8_E4M3", 0x7E), 448.0)


def test_bytes_left_over() -> None:
    with pytest.raises(FormatError, match="1 bytes are left over"):
        scan("F32", bytes(9))


def test_a_tensor_larger_than_a_step(tmp_path: Path) -> None:
    values = np.ones(3 << 20, np.float32)
    values[-1] = np.nan
    (tmp_path / "raw").write_bytes(b"head" + values.tobytes())
    entry = TensorEntry("w", "F32", (3 << 20,), "raw", 4, values.nbytes)
    reader = LocalSource(tmp_path).open("raw")
    found = scan_tensor(reader, entry)
    assert (found.nan, found.elements, found.absmax) == (1, 3 << 20, 1.0)
    os.truncate(tmp_path / "raw", 1 << 20)
    with pytest.raises(FormatError, match="became shorter"):
        scan_tensor(reader, entry)
    reader.close()


def test_in_order_and_the_same_with_any_number_of_threads(minilm: Path) -> None:
    source = LocalSource(minilm)
    tensors = scan_model(source).tensors
    assert scan_tensors(source, tensors, workers=1) == scan_tensors(source, tensors, workers=4)
