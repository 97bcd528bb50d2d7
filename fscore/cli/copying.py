"""Files and trees between this machine and a volume: streamed, a few at a time, each visible only when it is whole."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fscore.domain.errors import Exists, Invalid, IsADir, NotADir
from fscore.files import paths
from fscore.runtime.progress import Progress
from fscore.runtime.threads import Pool

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem

PIECE: Final = 4 << 20
WORKERS: Final = 4
UMASK: Final = 0o022
"""What opening a file takes from its mode, so that one call gives most files theirs."""


class CopyReport(msgspec.Struct, frozen=True):
    """What a copy did. `bytes_shared` moved no data: the new file refers to the blocks of the old one."""

    files: int
    directories: int
    bytes_copied: int
    bytes_shared: int = 0


class Options(msgspec.Struct, frozen=True):
    """How to copy."""

    recursive: bool = False
    preserve: bool = False
    no_replace: bool = False


class Step(msgspec.Struct, frozen=True):
    """One thing to make at `target`, from `source`."""

    source: str
    target: str
    kind: str
    size: int = 0
    mode: int = 0o644


Copy = Callable[[Step], None]


def upload(files: Filesystem, source: Path, target: str, options: Options, progress: Progress) -> CopyReport:
    """A local file or tree to `target` in the volume."""
    steps = list(local_steps(source, target, recursive=options.recursive))

    def make(step: Step) -> None:
        if step.kind == "directory":
            files.mkdir(step.target, mode=step.mode, exist_ok=True)
        elif step.kind == "symlink":
            files.symlink(str(Path(step.source).readlink()), step.target)
        else:
            upload_file(files, step, options, lambda n: progress.advance(task, n))

    task = progress.start(f"copying {source.name}", sum(step.size for step in steps), "B")
    return run(steps, make, progress, task)


def download(files: Filesystem, source: str, target: Path, options: Options, progress: Progress) -> CopyReport:
    """A file or tree of the volume to this machine."""
    steps = list(volume_steps(files, source, target, recursive=options.recursive))

    def make(step: Step) -> None:
        local = Path(step.target)
        if step.kind == "directory":
            local.mkdir(mode=step.mode | stat.S_IWUSR | stat.S_IXUSR, exist_ok=True)
        elif step.kind == "symlink":
            local.symlink_to(files.readlink(step.source))
        else:
            download_file(files, step, options, lambda n: progress.advance(task, n))

    task = progress.start(f"copying {source}", sum(step.size for step in steps), "B")
    return run(steps, make, progress, task)


def run(steps: list[Step], make: Copy, progress: Progress, task: int) -> CopyReport:
    """Directories first and in order, then files a few at a time; the first error stops what has not begun."""
    folders = [step for step in steps if step.kind == "directory"]
    others = [step for step in steps if step.kind != "directory"]
    for step in folders:
        make(step)
    with Pool("copy", WORKERS) as pool:
        for _ in pool.map_bounded(make, others):
            pass
    progress.finish(task)
    return CopyReport(len(others), len(folders), sum(step.size for step in others))


def local_steps(source: Path, target: str, *, recursive: bool) -> Iterator[Step]:
    """What a local file or tree asks for. Devices, sockets and pipes are refused: they hold no bytes."""
    info = source.lstat()
    if stat.S_ISDIR(info.st_mode):
        if not recursive:
            raise IsADir("add -r to copy it with all that is in it", str(source))
        yield Step(str(source), target, "directory", mode=stat.S_IMODE(info.st_mode))
        for child in sorted(source.iterdir()):
            yield from local_steps(child, f"{target.rstrip('/')}/{child.name}", recursive=True)
    elif stat.S_ISLNK(info.st_mode) and recursive:
        yield Step(str(source), target, "symlink")
    else:
        info = source.stat()
        if not stat.S_ISREG(info.st_mode):
            raise Invalid("only files, directories and symbolic links are copied", str(source))
        yield Step(str(source), target, "file", info.st_size, stat.S_IMODE(info.st_mode))


def volume_steps(files: Filesystem, source: str, target: Path, *, recursive: bool) -> Iterator[Step]:
    """What a file or tree of the volume asks for on this machine."""
    top = files.stat(source)
    if not top.is_dir:
        yield Step(source, str(target), "file", top.size, top.mode)
        return
    if not recursive:
        raise IsADir("add -r to copy it with all that is in it", source)
    yield Step(source, str(target), "directory", mode=top.mode)
    prefix = source.rstrip("/")
    for _, folders, others in files.walk(source):
        for entry in [*folders, *others]:
            kind = "directory" if entry.is_dir else "symlink" if entry.is_symlink else "file"
            local = target / entry.path.removeprefix(prefix).lstrip("/")
            yield Step(entry.path, str(local), kind, entry.size if kind == "file" else 0, entry.mode)


def upload_file(files: Filesystem, step: Step, options: Options, advance: Callable[[int], None]) -> None:
    """Stream one file under a name of its own, then give it its place by one rename."""
    if options.no_replace and files.exists(step.target):
        raise Exists("", step.target)
    parent, name = paths.split(step.target)
    temporary = paths.normal(f"{parent}/{paths.beside(name)}")
    try:
        with Path(step.source).open("rb", buffering=0) as local, files.open(temporary, "wb", perm=step.mode) as remote:
            while data := local.read(PIECE):
                remote.write(data)
                advance(len(data))
        if step.mode & UMASK:
            files.chmod(temporary, step.mode)
        if options.preserve:
            info = Path(step.source).stat()
            files.utime(temporary, atime_ns=info.st_atime_ns, mtime_ns=info.st_mtime_ns)
        files.rename(temporary, step.target, replace=not options.no_replace)
    except BaseException:
        with contextlib.suppress(Exception):
            files.unlink(temporary, skip_trash=True)
        raise


def download_file(files: Filesystem, step: Step, options: Options, advance: Callable[[int], None]) -> None:
    """Stream one file into a temporary neighbour, then rename it over the target."""
    target = Path(step.target)
    if options.no_replace and target.exists():
        raise Exists("", step.target)
    if not target.parent.is_dir():
        raise NotADir("no such directory on this machine", str(target.parent))
    temporary = target.with_name(paths.beside(target.name))
    try:
        with files.open(step.source, "rb") as remote, temporary.open("wb", buffering=0) as local:
            while data := remote.read(PIECE):
                local.write(data)
                advance(len(data))
        temporary.chmod(step.mode)
        if options.preserve:
            found = files.stat(step.source)
            os.utime(temporary, ns=(found.attr.atime_ns, found.mtime_ns))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
