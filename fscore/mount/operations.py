"""One synchronous method per FUSE request, over inodes and handles; knows vfs, and no transport.

Beside a method whose answer may lie in memory stands `peek_<method>` with the same arguments: it never waits, and
answers None when it would have to. A transport that has one thread calls that first, and hops to another only for None.
"""

from __future__ import annotations

from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, NotADir
from fscore.meta.service import MetaService
from fscore.mount.operations_dirs import DirOperations
from fscore.mount.options import MountOptions
from fscore.vfs.internal import Internal
from fscore.vfs.vfs import Vfs


class Operations(DirOperations):
    """Every request of one mount. Thread-safe; `number` turns what a method raises into an errno."""

    @classmethod
    def at(cls, vfs: Vfs, options: MountOptions, internal: Internal | None = None) -> Operations:
        """The operations of a mount whose root is the directory that the options name.

        Raises FsError when that is no directory.
        """
        return cls(vfs, options, internal, root=root_of(vfs.meta, options))

    def destroy(self) -> None:
        """The mount is gone: everything that is open is committed and closed by the volume's own end."""
        self._dirs.clear()
        self._seen.clear()
        if self.passthrough is not None:
            self.passthrough.close()


def root_of(meta: MetaService, options: MountOptions) -> int:
    """The inode of the directory that the mount shows as its root. Raises FsError when there is none."""
    path = options.subdir.strip("/").encode("utf-8", "surrogateescape")
    if not path:
        return 1
    try:
        ino, attr = meta.resolve(Caller.root(), path)
    except FsError as error:
        raise type(error)("no root for the mount", b"/" + path) from error
    if not attr.is_dir:
        raise NotADir("no root for the mount", b"/" + path)
    return ino
