"""fsx through the kernel: random reads, writes, mmap, truncates, punches, copies, against a model in memory."""

from __future__ import annotations

import pytest

from tests.kit.fsx_mounted import main
from tests.kit.mounts import MakeMount

pytestmark = pytest.mark.mount

NOT_PASSED_ON = "punch,zero,allocate,copy,seek"
"""What pyfuse3 leaves to the kernel, which refuses it."""
HISTORIES = [(1000, 1), *(pytest.param(100_000, seed, marks=pytest.mark.nightly) for seed in range(5))]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("ops", "seed"), HISTORIES)
@pytest.mark.parametrize("transport", ["kernel", "pyfuse3"])
def test_nothing_differs(
    make_mount: MakeMount, capsys: pytest.CaptureFixture[str], transport: str, ops: int, seed: int
) -> None:
    mount = make_mount(transport=transport)
    without = NOT_PASSED_ON if transport == "pyfuse3" else ""
    code = main([str(mount.base), "--ops", str(ops), "--seed", str(seed), "--without", without])
    assert code == 0, capsys.readouterr().out
    assert mount.stop() == 0, mount.said()
