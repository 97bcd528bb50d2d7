"""`fscore cp`: copy into, out of and within a volume."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.copying import CopyReport, Options, download, upload
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output, human
from fscore.cli.paths import inside, is_inside, landing
from fscore.cli.progress import shown
from fscore.domain.errors import Exists, IsADir, NotADir
from fscore.files import paths

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem
    from fscore.runtime.progress import Progress

EXAMPLES: Final = """fscore cp VOLUME -r ./dir :/dir      (this machine to the volume)

fscore cp VOLUME :/dir ./out -r      (the volume to this machine)

fscore cp VOLUME :/a.bin :/b.bin     (within the volume: moves no bytes)"""


def command(
    volume: options.Volume,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... TARGET", help="A colon marks the volume's side.", show_default=False),
    ],
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Directories with all that is in them.")] = False,
    preserve: Annotated[bool, typer.Option("--preserve", "-p", help="Keep times too.")] = False,
    no_replace: Annotated[bool, typer.Option("--no-replace", "-n", help="Refuse to replace files.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Copy files and trees into, out of or within a volume.

    A colon marks the volume's side. A copy within the volume shares the blocks of its source: it takes no space and
    moves no bytes. Files appear under their name only when they are whole.
    """
    from fscore.volume import open_volume

    if len(arguments) < 2:
        raise WrongUse("cp needs a SOURCE and a TARGET; a colon marks the volume's side, as in :/dir")
    *sources, target = arguments
    if not is_inside(target) and not all(map(is_inside, sources)):
        raise WrongUse("cp copies to or from the volume: mark its side with a colon, as in :/dir")
    how = Options(recursive=recursive, preserve=preserve, no_replace=no_replace)
    with open_volume(volume, read_only=not is_inside(target)) as opened, shown(progress, quiet=quiet) as bars:
        many = len(sources) > 1
        if is_inside(target):
            if many and not opened.files.is_dir(inside(target)):
                raise NotADir("several sources need a directory", inside(target))
            reports = [into(opened.files, source, target, how, bars) for source in sources]
        else:
            local = Path(target)
            if many and not local.is_dir():
                raise NotADir("several sources need a directory", target)
            reports = [download(opened.files, inside(source), place(source, local), how, bars) for source in sources]
    total = CopyReport(*(sum(getattr(report, name) for report in reports) for name in CopyReport.__struct_fields__))
    Output(as_json=as_json, quiet=quiet).report(total, lambda: [sentence(total)])


def into(files: Filesystem, source: str, target: str, how: Options, bars: Progress) -> CopyReport:
    """One source into the volume: by its bytes from this machine, by reference from the volume itself."""
    if not is_inside(source):
        local = Path(source)
        return upload(files, local, landing(files, local.resolve().name, target), how, bars)
    origin = inside(source)
    new = landing(files, origin, target)
    found = files.stat(origin)
    if found.is_dir and not how.recursive:
        raise IsADir("add -r to copy it with all that is in it", origin)
    return clone(files, origin, new, how)


def clone(files: Filesystem, origin: str, new: str, how: Options) -> CopyReport:
    """Share the blocks of `origin`. An existing file is replaced in one step; a directory is never merged into."""
    if new == origin or new.startswith(f"{origin.rstrip('/')}/"):
        raise Exists("a copy cannot lie in or on its source", new)
    counted = (
        [(1, 0, files.stat(origin).size)]
        if not files.is_dir(origin)
        else [
            (len(regular), len(dirs), sum(entry.size for entry in regular if entry.is_file))
            for _, dirs, regular in files.walk(origin)
        ]
    )
    if files.exists(new):
        if how.no_replace or files.is_dir(new):
            raise Exists("", new)
        if files.is_dir(origin):
            raise NotADir("a directory does not replace a file", new)
        parent, name = paths.split(new)
        temporary = paths.join(parent, paths.beside(name))
        try:
            files.clone(origin, temporary)
            files.rename(temporary, new, replace=True)
        except BaseException:
            with contextlib.suppress(Exception):
                files.unlink(temporary, skip_trash=True)
            raise
    else:
        files.clone(origin, new)
    return CopyReport(sum(c[0] for c in counted), sum(c[1] for c in counted), 0, sum(c[2] for c in counted))


def place(source: str, target: Path) -> Path:
    """Where a source of the volume lands on this machine."""
    return target / paths.name_of(inside(source)) if target.is_dir() else target


def sentence(report: CopyReport) -> str:
    """What happened, in one line."""
    shared = f", {human(report.bytes_shared)} shared without copying" if report.bytes_shared else ""
    files = f"{report.files} file{'' if report.files == 1 else 's'}"
    folders = f"{report.directories} director{'y' if report.directories == 1 else 'ies'}"
    return f"{files}, {folders}, {human(report.bytes_copied)} copied{shared}"
