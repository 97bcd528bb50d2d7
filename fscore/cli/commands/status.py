"""`fscore status`: what a volume is, how full, and who uses it."""

from __future__ import annotations

from typing import Final

from fscore.cli import options
from fscore.cli.output import Output, fields, human

EXAMPLES: Final = "fscore status sqlite3:///srv/meta.db --json"

SIZES: Final = ("total", "used", "available", "avail", "capacity", "used_bytes", "total_bytes", "available_bytes")


def command(volume: options.Volume, *, as_json: options.Json = False) -> None:
    """Show the volume's setting, its usage and its sessions."""
    from fscore.admin.status import status
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        report = status(opened)
    Output(as_json=as_json).result(report, lambda: lines(report))


def lines(report: object) -> list[str]:
    """Nested values as `name  value` lines, one block a group."""
    import msgspec

    plain = msgspec.to_builtins(report, str_keys=True, enc_hook=str)
    flat: list[tuple[str, object]] = []
    for name, value in plain.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{key}", shown(key, inner)) for key, inner in value.items()]
        elif isinstance(value, list):
            flat.append((name, len(value)))
            flat += [
                (f"{name}.{index}", " ".join(map(str, item.values())) if isinstance(item, dict) else item)
                for index, item in enumerate(value)
            ]
        else:
            flat.append((name, shown(name, value)))
    return fields(flat)


def shown(name: str, value: object) -> object:
    """Sizes as people read them."""
    return human(value) if name in SIZES and isinstance(value, int) else value
