"""pjdfstest, the POSIX conformance suite in C, inside our mount.

Runs where PJDFSTEST names a folder with a built copy (github.com/pjd/pjdfstest: the program `pjdfstest` beside
`tests/`) and `prove` is there; as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.mounts import Mounted

SUITE = os.environ.get("PJDFSTEST", "")

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not SUITE, reason="PJDFSTEST does not name a built pjdfstest: conformance is not proven here"),
    pytest.mark.skipif(shutil.which("prove") is None, reason="prove (perl) is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="pjdfstest wants root"),
    pytest.mark.timeout(1800),
]


def test_all_of_pjdfstest_passes(mounted: Mounted, tmp_path: Path) -> None:
    log = tmp_path / "prove.log"
    with log.open("wb") as out:
        done = subprocess.run(
            ["prove", "-rQ", str(Path(SUITE, "tests"))], cwd=mounted.path, stdout=out, stderr=out, check=False
        )
    said = log.read_text(errors="replace")
    assert done.returncode == 0, said[-6000:]
    assert "All tests successful" in said
