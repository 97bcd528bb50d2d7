"""`fscore format`: make a volume."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output

EXAMPLES: Final = """fscore format sqlite3:///srv/meta.db models --bucket /srv/blocks

fscore format postgres://fscore@db.example.com/models models --bucket /srv/blocks

fscore format "mysql://fscore@(db.example.com:3306)/models" models --bucket /srv/blocks

fscore format redis://cache:6379/1 models --storage s3 --bucket https://s3.example.com/models --compress lz4"""

WHERE: Final = (
    "Where the tree lives: sqlite3:///abs/meta.db, redis://host:6379/1, postgres://user@host:5432/database, "
    "mysql://user@(host:3306)/database, or another form that the README lists. A database must exist; the password is "
    "better left to META_PASSWORD."
)


def _of_storage(envvar: str) -> Any:  # noqa: ANN401 - what typer.Option gives
    return typer.Option(envvar=envvar, help="Of the object storage.", show_default=False)


def command(
    meta_url: Annotated[str, typer.Argument(metavar="META-URL", help=WHERE)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The volume's name, and its prefix in the storage.")],
    *,
    storage: Annotated[str, typer.Option(help="Kind of object storage: file, s3, minio, memory.")] = "file",
    bucket: Annotated[
        str, typer.Option(help="Where the blocks live: a directory, or the URL of a bucket.", show_default=False)
    ] = "",
    block_size: Annotated[str, typer.Option(metavar="SIZE", help="Largest object: 64K to 16M.")] = "4M",
    compress: Annotated[str, typer.Option(help="none, lz4 or zstd.")] = "none",
    trash_days: Annotated[int, typer.Option(min=0, help="Days that removed files are kept; 0 keeps none.")] = 1,
    capacity: Annotated[
        str, typer.Option(metavar="SIZE", help="Limit of all bytes: 500G, 2T; a bare number is GiB; 0 is none.")
    ] = "0",
    inodes: Annotated[int, typer.Option(min=0, help="Limit of files and directories; 0 is none.")] = 0,
    hash_prefix: Annotated[bool, typer.Option("--hash-prefix", help="Spread object keys over prefixes.")] = False,
    enable_acl: Annotated[bool, typer.Option("--enable-acl", help="Keep POSIX ACLs; needs clients from 1.2.")] = False,
    access_key: Annotated[str, _of_storage("ACCESS_KEY")] = "",
    secret_key: Annotated[str, _of_storage("SECRET_KEY")] = "",
    session_token: Annotated[str, _of_storage("SESSION_TOKEN")] = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a volume.

    Its tree lives at META-URL, its blocks in an object storage. The volume has the format of JuiceFS 1.x: the
    official client and CSI driver can mount it. A storage that already holds objects of another volume under NAME
    is refused.
    """
    from fscore.admin.format import format_volume

    setting = format_volume(
        meta_url,
        name,
        storage=storage,
        bucket=bucket,
        block_size=block_size,
        compression=compress,
        trash_days=trash_days,
        capacity=f"{capacity}G" if capacity.isdecimal() else capacity,
        inodes=inodes,
        hash_prefix=hash_prefix,
        enable_acl=enable_acl,
        access_key=access_key,
        secret_key=secret_key,
        session_token=session_token,
    )
    report = {name: getattr(setting, name) for name in ("name", "uuid", "storage", "bucket")}
    text = "volume {name} ({uuid}) is ready: {storage} at {bucket}".format(**report)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: [text])
