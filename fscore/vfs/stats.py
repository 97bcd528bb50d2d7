"""The text behind `.stats`: Prometheus lines, named as JuiceFS names what means the same (`juicefs stats` reads them).

As in that file, labels are part of the name (`..._total_GET`); a histogram is its count (`_total`) and its `_sum`.
What JuiceFS has no name for begins with `fscore_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Snapshot = Mapping[str, int | float | list[int]]

_COUNTERS: Final = {
    "cache.disk.evicted": "blockcache_evicts",
    "cache.disk.put.bytes": "blockcache_write_bytes",
    "blocks.fetch.bytes": "blockcache_miss_bytes",
    "blocks.fetch.count": "blockcache_miss",
    "fuse.read.bytes": "fuse_read_size_bytes_sum",
    "fuse.write.bytes": "fuse_written_size_bytes_sum",
    "fuse.read.count": "fuse_read_size_bytes_total",
    "fuse.write.count": "fuse_written_size_bytes_total",
}
_METHODS: Final = {"get": "GET", "put": "PUT", "head": "HEAD", "delete": "DELETE"}
_OPERATION: Final = "fuse."
_ERRORS: Final = "fuse.errors."


def render(found: Snapshot, gauges: Mapping[str, float]) -> bytes:
    """The lines of a process's metrics, and of `gauges`, which come with their JuiceFS names."""
    lines: dict[str, float] = {
        name if name.startswith("fscore_") else f"juicefs_{name}": value for name, value in gauges.items()
    }
    lines |= {f"juicefs_{name}": number(found, key) for key, name in _COUNTERS.items()}
    lines["juicefs_blockcache_hits"] = number(found, "cache.memory.hit") + number(found, "cache.disk.hit.count")
    lines["juicefs_blockcache_hit_bytes"] = number(found, "cache.memory.hit.bytes") + number(
        found, "cache.disk.hit.bytes"
    )
    lines |= _objects(found) | _operations(found)
    lines |= {f"fscore_{key.replace('.', '_')}": v for key, v in found.items() if isinstance(v, int | float)}
    return "".join(f"{name} {_plain(lines[name])}\n" for name in sorted(lines)).encode()


def number(found: Snapshot, key: str) -> float:
    """One counter; 0 if it never moved."""
    value = found.get(key, 0)
    return value if isinstance(value, int | float) else 0


def _objects(found: Snapshot) -> dict[str, float]:
    lines: dict[str, float] = {"juicefs_object_request_errors": 0}
    for call, method in _METHODS.items():
        histogram = f"juicefs_object_request_durations_histogram_seconds_{method}"
        lines[f"{histogram}_total"] = number(found, f"objects.{call}.count")
        lines[f"{histogram}_sum"] = number(found, f"objects.{call}.seconds")
        lines["juicefs_object_request_errors"] += number(found, f"objects.{call}.errors")
        if call in {"get", "put"}:
            lines[f"juicefs_object_request_data_bytes_{method}"] = number(found, f"objects.{call}.bytes")
    return lines


def _operations(found: Snapshot) -> dict[str, float]:
    lines: dict[str, float] = {}
    calls = seconds = 0.0
    for key in found:
        if key.startswith(_ERRORS):
            lines[f"juicefs_fuse_ops_io_errors_{key.removeprefix(_ERRORS)}"] = number(found, key)
        if not key.startswith(_OPERATION) or not key.endswith(".seconds"):
            continue
        name = key.removeprefix(_OPERATION).removesuffix(".seconds")
        lines[f"juicefs_fuse_ops_total_{name}"] = number(found, f"{_OPERATION}{name}.count")
        lines[f"juicefs_fuse_ops_durations_seconds_{name}"] = number(found, key)
        calls += number(found, f"{_OPERATION}{name}.count")
        seconds += number(found, key)
    lines["juicefs_fuse_ops_durations_histogram_seconds_total"] = calls
    lines["juicefs_fuse_ops_durations_histogram_seconds_sum"] = seconds
    return lines


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.9f}".rstrip("0").rstrip(".")
