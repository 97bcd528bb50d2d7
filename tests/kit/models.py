"""Models for tests: the real MiniLM, and small made checkpoints of every family, each made once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fscore_airflow.demo.checkpoints import write_checkpoint
from fscore_airflow.demo.minilm import minilm_path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The directory of all-MiniLM-L6-v2. Read only: copy it before changing it."""
    return minilm_path()


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small sharded checkpoint of a family, by name. Read only: copy it before changing it."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = write_checkpoint(tmp_path_factory.mktemp("mini") / family, family, shard_bytes=150_000)
        return made[family]

    return make
