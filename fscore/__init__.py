"""A filesystem core and a model repository on it.

The way in is `open_volume`; `fscore.hub` keeps models on a volume. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fscore.domain import errors
    from fscore.volume import Options, Volume, open_volume

__version__ = "0.1.0"

__all__ = ["Options", "Volume", "errors", "open_volume"]

_HOMES = {
    "Options": "fscore.volume",
    "Volume": "fscore.volume",
    "open_volume": "fscore.volume",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  a module's attribute has any type
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in {"errors", "hub", "sync"}:
        return importlib.import_module("fscore.domain.errors" if name == "errors" else f"fscore.{name}")
    raise AttributeError(f"module 'fscore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "hub", "sync"])
