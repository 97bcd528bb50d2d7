"""`.stats` names what it counts as JuiceFS does, so that `juicefs stats` and dashboards read it."""

from __future__ import annotations

import re

from fscore.runtime.metrics import Metrics
from fscore.vfs.stats import render


def parsed(text: bytes) -> dict[str, float]:
    """Names and values; every line must be one."""
    lines = text.decode().splitlines()
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]* -?\d+(\.\d+)?", line) for line in lines), text
    return {name: float(value) for name, value in (line.split() for line in lines)}


def test_what_both_know_has_the_name_of_juicefs() -> None:
    metrics = Metrics()
    metrics.observe("objects.get", 0.25)
    metrics.observe("objects.put", 0.5)
    metrics.observe("objects.put", 0.5)
    metrics.add("objects.get.bytes", 1000)
    metrics.add("objects.get.errors", 2)
    metrics.add("objects.head.errors", 1)
    metrics.observe("fuse.read", 0.001)
    metrics.observe("fuse.lookup", 0.002)
    metrics.add("fuse.read.bytes", 4096)
    metrics.add("fuse.errors.ENOENT", 3)
    metrics.add("cache.memory.hit", 5)
    metrics.observe("cache.disk.hit", 0.1)
    found = parsed(render(metrics.snapshot(), {"uptime": 2.5, "memory": 1 << 20}))
    expected = {
        "juicefs_uptime": 2.5,
        "juicefs_memory": 1 << 20,
        "juicefs_object_request_durations_histogram_seconds_GET_total": 1,
        "juicefs_object_request_durations_histogram_seconds_PUT_total": 2,
        "juicefs_object_request_durations_histogram_seconds_PUT_sum": 1,
        "juicefs_object_request_durations_histogram_seconds_DELETE_total": 0,
        "juicefs_object_request_data_bytes_GET": 1000,
        "juicefs_object_request_errors": 3,
        "juicefs_fuse_ops_total_read": 1,
        "juicefs_fuse_ops_durations_histogram_seconds_total": 2,
        "juicefs_fuse_ops_durations_histogram_seconds_sum": 0.003,
        "juicefs_fuse_read_size_bytes_sum": 4096,
        "juicefs_fuse_ops_io_errors_ENOENT": 3,
        "juicefs_blockcache_hits": 6,
        "fscore_objects_get_bytes": 1000,
    }
    assert {name: found[name] for name in expected} == expected


def test_a_process_that_did_nothing_says_zero() -> None:
    found = parsed(render({}, {}))
    assert found["juicefs_fuse_ops_durations_histogram_seconds_total"] == 0
    assert set(found.values()) == {0}
