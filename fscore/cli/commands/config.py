"""`fscore config`: what a volume's setting says, and changes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output, fields

if TYPE_CHECKING:
    from fscore.admin.setting import Changed, Changes

EXAMPLES: Final = """fscore config VOLUME

fscore config VOLUME --capacity 2T --inodes 10000000 --trash-days 7

fscore config VOLUME --min-client-version 1.2.0"""

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


Capacity: TypeAlias = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Limit of all bytes: 500 (GiB), 2T; 0 is none.")
]
Inodes: TypeAlias = Annotated[int | None, typer.Option(min=0, help="Limit of files and directories; 0 is none.")]
Days: TypeAlias = Annotated[int | None, typer.Option(min=0, help="Days that removed files are kept.")]
ByDirectory: TypeAlias = Annotated[
    bool | None, typer.Option("--dir-stats/--no-dir-stats", help="Count usage by directory.", show_default=False)
]
ByOwner: TypeAlias = Annotated[
    bool | None,
    typer.Option("--user-group-quota/--no-user-group-quota", help="Count usage by owner.", show_default=False),
]
Acl: TypeAlias = Annotated[bool, typer.Option("--enable-acl", help="Keep POSIX ACLs; cannot be undone.")]
Rate: TypeAlias = Annotated[int | None, typer.Option(min=0, metavar="MBPS", help="Of each client; 0 is none.")]
Oldest: TypeAlias = Annotated[str | None, typer.Option(metavar="VERSION", help="Older clients are kept out.")]
Newest: TypeAlias = Annotated[str | None, typer.Option(metavar="VERSION", help="Newer clients are kept out.")]
Bucket: TypeAlias = Annotated[str | None, typer.Option(help="Where the blocks are.")]
Secret: TypeAlias = Annotated[str | None, typer.Option(help="Of the object storage.")]
StorageClass: TypeAlias = Annotated[str | None, typer.Option(help="Class of new objects, where no tier says another.")]
Tier: TypeAlias = Annotated[int, typer.Option(min=0, max=3, help="Whose --storage-class and --tag are meant.")]
Tag: TypeAlias = Annotated[str | None, typer.Option(metavar="KEY=VALUE", help="Tag of new objects.")]
Log: TypeAlias = Annotated[
    bool | None, typer.Option("--changelog/--no-changelog", help="Log every change.", show_default=False)
]
LogAge: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help="How long lines stay: 2h, 30m; 0 is for ever.")
]
LogLines: TypeAlias = Annotated[int | None, typer.Option(min=0, help="How many lines stay; 0 is all.")]


def command(
    volume: options.Volume,
    *,
    capacity: Capacity = None,
    inodes: Inodes = None,
    trash_days: Days = None,
    dir_stats: ByDirectory = None,
    user_group_quota: ByOwner = None,
    enable_acl: Acl = False,
    upload_limit: Rate = None,
    download_limit: Rate = None,
    min_client_version: Oldest = None,
    max_client_version: Newest = None,
    bucket: Bucket = None,
    access_key: Secret = None,
    secret_key: Secret = None,
    session_token: Secret = None,
    tier: Tier = 0,
    storage_class: StorageClass = None,
    tag: Tag = None,
    changelog: Log = None,
    changelog_max_age: LogAge = None,
    changelog_max_lines: LogLines = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Show a volume's setting, or change what is named.

    Clients follow within 12 seconds; where the blocks are, and their keys, at their next start. A change that locks
    somebody out or deletes something is refused with the reason, unless --yes.
    """
    from fscore.admin.setting import Changes

    changes = Changes(
        capacity=size(capacity),
        inodes=inodes,
        trash_days=trash_days,
        dir_stats=dir_stats,
        user_group_quota=user_group_quota,
        enable_acl=True if enable_acl else None,
        upload_limit=upload_limit,
        download_limit=download_limit,
        min_client_version=min_client_version,
        max_client_version=max_client_version,
        bucket=bucket,
        access_key=access_key,
        secret_key=secret_key,
        session_token=session_token,
        tier=tier,
        storage_class=storage_class,
        tag=tag,
        change_log=changelog,
        change_log_max_age=seconds(changelog_max_age),
        change_log_max_lines=changelog_max_lines,
    )
    tell(volume, changes, Output(as_json=as_json), sure=yes)


def tell(volume: str, changes: Changes, out: Output, *, sure: bool) -> None:
    """Make the changes, or show the setting when there are none."""
    from fscore.admin.setting import change_setting, show_setting

    if changes.asked():
        changed = change_setting(volume, changes, sure=sure)
        out.result(changed, lambda: differences(changed))
    else:
        setting = show_setting(volume)
        out.result(setting, lambda: shown(setting))


def size(text: str | None) -> int | None:
    """Bytes of a capacity; a bare number is GiB."""
    from fscore.admin.format import parse_size

    return None if text is None else parse_size(f"{text}G" if text.isdecimal() else text)


def seconds(text: str | None) -> int | None:
    """A length of time as people write it: 90, 90s, 30m, 2h."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    if not number.isdecimal():
        raise WrongUse(f"{text!r} is no time: write 2h, 30m or 90s")
    return int(number) * UNITS[unit]


def shown(setting: dict[str, Any]) -> list[str]:
    """The setting as `name  value` lines."""
    return fields([(key, value) for key, value in setting.items() if value not in (0, "")])


def differences(changed: Changed) -> list[str]:
    """What changed, one line each."""
    return [f"{key}: {was} -> {now}" for key, (was, now) in changed.changed.items()] or ["nothing changed"]
