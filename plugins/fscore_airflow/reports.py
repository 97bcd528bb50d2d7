"""Reports become small dictionaries: what a task learned, for its log and for XCom, never model bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = Any

_MOST_ITEMS = 50


def report(value: object) -> dict[str, Any]:
    """A report (msgspec.Struct) as plain JSON values, long lists cut; raises TypeError for anything else."""
    import msgspec

    # Through JSON: XCom would turn a tuple into text.
    plain = msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))
    if not isinstance(plain, dict):
        raise TypeError(f"{type(value).__name__} is no report")
    return {key: _cut(item) for key, item in plain.items()}


def _cut(value: Json) -> Json:
    if isinstance(value, list) and len(value) > _MOST_ITEMS:
        return [*value[:_MOST_ITEMS], f"... and {len(value) - _MOST_ITEMS} more"]
    return value
