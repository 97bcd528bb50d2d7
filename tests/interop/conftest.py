"""What the tests beside the official client share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.engines import SQL_SERVERS, fresh_url


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis), *SQL_SERVERS])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty metadata database."""
    return fresh_url(request.param, request, tmp_path)
