"""What arrived is what was meant: every file read back from the target and hashed."""

from __future__ import annotations

from fscore.domain.errors import CorruptError
from fscore.files.filesystem import Filesystem
from fscore.hub.formats.source import VolumeSource
from fscore.hub.manifest import Manifest
from fscore.hub.scan import sha256_files
from fscore.runtime.progress import Progress


def differences(files: Filesystem, where: str, manifest: Manifest, progress: Progress | None = None) -> list[str]:
    """The files at `where` that are not as the manifest says, in words; empty when all are."""
    found = sha256_files(VolumeSource(files, where), progress=progress)
    wanted = {file.path: file.sha256 for file in manifest.files}
    wrong = [f"{path} is missing" for path in sorted(wanted.keys() - found.keys())]
    wrong += [f"{path} does not belong there" for path in sorted(found.keys() - wanted.keys())]
    wrong += [f"{path} differs" for path in sorted(wanted.keys() & found.keys()) if wanted[path] != found[path]]
    return wrong


def verify(files: Filesystem, where: str, manifest: Manifest, progress: Progress | None = None) -> None:
    """Raises CorruptError that names the first file which is not as the manifest says."""
    wrong = differences(files, where, manifest, progress)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CorruptError(f"{where}: {wrong[0]}{more}; nothing was made visible")
