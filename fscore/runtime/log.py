"""Loggers, all below `fscore`. The library never configures handlers; programs do."""

from __future__ import annotations

import logging


def get(name: str) -> logging.Logger:
    """The logger of a module; pass `__name__`."""
    return logging.getLogger(name if name == "fscore" or name.startswith("fscore.") else f"fscore.{name}")
