"""The driver of the official client is loud: nothing runs on the empty directory below a mount that did not come."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import official

pytestmark = official.NEEDED


def test_a_mount_that_does_not_come_up_fails_the_test(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    with (
        pytest.raises(AssertionError, match="juicefs did not mount"),
        official.mounted(f"sqlite3://{tmp_path}/none.db", place),
    ):
        (place / "entered").touch()
    assert not (place / "entered").exists()
