"""Fixtures for every test; each kit registers its own."""

from __future__ import annotations

pytest_plugins = [
    "tests.kit.groups",
    "tests.kit.threads",
    "tests.kit.redis_server",
    "tests.kit.redis_groups",
    "tests.kit.postgres",
    "tests.kit.mariadb",
    "tests.kit.golden",
    "tests.kit.s3_server",  # before those that import from it
    "tests.kit.objects",
    "tests.kit.command",
    "tests.kit.engines",
    "tests.kit.histories",
    "tests.kit.volumes",
    "tests.kit.models",
    "tests.kit.releases",
    "tests.kit.mounts",
]
