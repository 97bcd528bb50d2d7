"""JSON that must not say a thing twice: parsers disagree about which of two equal keys counts."""

from __future__ import annotations

import json
from typing import Any

from fscore.hub.formats.api import FormatError


def load_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`; raises FormatError that starts with `where`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for name, value in pairs:
            if name in table:
                raise FormatError(f"{where}: names {name} twice")
            table[name] = value
        return table

    try:
        body = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise FormatError(f"{where}: not a JSON object")
    return body
