"""Fixtures for every test; each kit registers its own."""

from __future__ import annotations

pytest_plugins = [
    "tests.kit.command",
    "tests.kit.engines",
    "tests.kit.volumes",
    "tests.kit.models",
]
