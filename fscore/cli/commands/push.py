"""`fscore push`: a local directory becomes a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output, fields, human, share
from fscore.cli.progress import shown
from fscore.cli.refs import named
from fscore.cli.texts import pushed
from fscore.domain.errors import HubError

if TYPE_CHECKING:
    from fscore.hub.names import Ref
    from fscore.runtime.progress import Progress
    from fscore.volume import Volume

EXAMPLES: Final = """fscore push VOLUME ./minilm nlp/minilm --purpose "search in the help centre"

fscore push VOLUME ./llama-ft llm/llama --base llm/llama@1 --alias candidate"""


def command(
    volume: options.Volume,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="The model's files, as they are to lie in the version.")
    ],
    model: options.Model,
    *,
    alias: Annotated[str, typer.Option(help="A name for this version, moved when it is published: prod.")] = "",
    purpose: Annotated[str, typer.Option(help="What it is for; kept in the manifest.")] = "",
    base: Annotated[str, typer.Option(metavar="MODEL", help="The version or model it came from.")] = "",
    description: Annotated[str, typer.Option(help="What people should know.")] = "",
    license_: Annotated[
        list[str] | None, typer.Option("--license", metavar="SPDX", help="Its licence: apache-2.0. May be repeated.")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Run the release checks first; their result stays with it.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept pickle files; nothing in them is executed.")
    ] = False,
    dry_run: options.DryRun = False,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Bring a model into the volume as a new version.

    Readers do not see it yet. Files and tensors that the team already has are shared, not sent again. An
    interrupted push goes on where it stopped. `fscore publish` makes the version visible.
    """
    from fscore.hub.push import push
    from fscore.volume import open_volume

    ref = named(model, team)
    if not Path(directory).is_dir():
        raise WrongUse(f"{directory} is no directory on this machine")
    out = Output(as_json=as_json, quiet=quiet)
    with open_volume(volume, read_only=dry_run) as opened, shown(progress, quiet=quiet) as bars:
        if dry_run:
            planned = preview(opened, directory, ref, allow_pickle=allow_pickle, progress=bars)
            out.result(planned, lambda: foreseen(planned))
            return
        report = push(
            opened,
            directory,
            ref,
            user=user,
            purpose=purpose,
            alias=alias,
            base=base,
            description=description,
            licenses=license_ or (),
            validation=checked(directory, allow_pickle=allow_pickle, progress=bars) if validate else None,
            allow_pickle=allow_pickle,
            progress=bars,
        )
    out.report(report, lambda: pushed(report))


class Preview(msgspec.Struct, frozen=True):
    """What a push would do. `version` is set when the model has this very content already."""

    ref: str
    digest: str
    version: int
    files: int
    tensors: int
    bytes_total: int
    bytes_new: int
    bytes_shared: int


def preview(volume: Volume, directory: str, ref: Ref, *, allow_pickle: bool, progress: Progress) -> Preview:
    """Scan, hash and plan as `push` does, and write nothing."""
    from fscore.domain.digest import version_digest
    from fscore.hub.formats.detect import scan_model
    from fscore.hub.formats.source import LocalSource
    from fscore.hub.index import ContentIndex
    from fscore.hub.ledger import Ledger
    from fscore.hub.plan import plan_push
    from fscore.hub.push import refuse_broken
    from fscore.hub.scan import hash_source

    source = LocalSource(directory)
    scan = scan_model(source)
    refuse_broken(scan, allow_pickle=allow_pickle)
    hashed = hash_source(source, scan.tensors, progress=progress)
    digest = version_digest((file.path, file.digest.sha256) for file in hashed)
    known = Ledger(volume.files).history(ref).with_digest(digest)
    total = sum(file.size for file in hashed)
    plan = plan_push(hashed, ContentIndex(volume.files, ref.team).lookup(hashed), "")
    new = 0 if known else plan.bytes_new
    number = known.number if known else 0
    return Preview(str(ref), digest, number, len(hashed), len(scan.tensors), total, new, total - new)


def foreseen(planned: Preview) -> list[str]:
    """A preview for people."""
    return fields(
        [
            ("model", planned.ref),
            ("digest", planned.digest),
            ("known as", f"version {planned.version}" if planned.version else ""),
            ("content", f"{human(planned.bytes_total)} in {planned.files} files, {planned.tensors} tensors"),
            ("would send", human(planned.bytes_new)),
            ("would share", f"{human(planned.bytes_shared)} ({share(planned.bytes_shared, planned.bytes_total)})"),
        ]
    )


def checked(directory: str, *, allow_pickle: bool, progress: Progress) -> object:
    """The release checks over a local directory. Raises HubError when one that matters fails."""
    from fscore.hub.formats.source import LocalSource
    from fscore.hub.validate.run import validate

    result = validate(LocalSource(directory), allow_pickle=allow_pickle, progress=progress)
    if not result.success:
        first = result.failed[0]
        raise HubError(f"the release checks fail: {first.name}: {first.detail}", hint="see fscore validate")
    return result
