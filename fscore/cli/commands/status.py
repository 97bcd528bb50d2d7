"""`fscore status`: what a volume is, how full, and who uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fscore.cli import options
from fscore.cli.output import Output, fields, human

EXAMPLES: Final = "fscore status sqlite3:///srv/meta.db --json"

SIZES: Final = ("UsedSpace", "AvailableSpace", "Capacity")


def command(volume: options.Volume, *, as_json: options.Json = False) -> None:
    """Show the volume's setting, its usage and its sessions."""
    from fscore.admin.status import status
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        report = status(opened)
    Output(as_json=as_json).result(report, lambda: lines(report))


def lines(report: Mapping[str, Any]) -> list[str]:
    """`name  value` lines, one block a group; what is not set is left out."""
    blocks: list[list[str]] = []
    for name, values in report.items():
        if isinstance(values, Mapping):
            told = [
                (key, human(value) if key in SIZES else value) for key, value in values.items() if value not in (0, "")
            ]
            blocks.append([f"{name}:", *(f"  {line}" for line in fields(told))])
        else:
            rows = [" ".join(f"{key}={value}" for key, value in item.items()) for item in values]
            blocks.append([f"{name}:", *(f"  {row}" for row in rows or ["none"])])
    return [line for block in blocks for line in (*block, "")][:-1]
