"""Every error that fscore raises on purpose, grouped by what the one who catches it does.

    FsError(OSError)            the caller or the tree; carries errno and the builtin's class
    StoreError(Exception)       the world below
      TransientError            try the same call again
      ConflictError             run the transaction again (never escapes meta)
      CorruptError              never retried: EIO, counted, block quarantined
      UnavailableError          out of tries
    SettingError(ValueError)    the operator's mistake: one line, exit code 2
    HubError(Exception)         a model, version, approval or policy says no; tells what to do next

Each edge maps this tree once; foreign exceptions are translated at one seam per driver.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class FsError(OSError):
    """A refusal that POSIX has a number for. `detail` says what, `path` where."""

    code: ClassVar[int] = errno.EIO
    says: ClassVar[str] = "input/output error"

    def __init__(self, detail: str = "", path: str | bytes | None = None) -> None:
        self.detail = detail
        message = f"{self.says}: {detail}" if detail else self.says
        if path is None:
            super().__init__(self.code, message)
        else:
            super().__init__(self.code, message, path)

    def __reduce__(self) -> tuple[type[FsError], tuple[str, str | bytes | None]]:
        return type(self), (self.detail, self.filename)


class NotFound(FsError, FileNotFoundError):
    """ENOENT."""

    code = errno.ENOENT
    says = "no such file or directory"


class Exists(FsError, FileExistsError):
    """EEXIST."""

    code = errno.EEXIST
    says = "already exists"


class NotADir(FsError, NotADirectoryError):
    """ENOTDIR."""

    code = errno.ENOTDIR
    says = "not a directory"


class IsADir(FsError, IsADirectoryError):
    """EISDIR."""

    code = errno.EISDIR
    says = "is a directory"


class NotEmpty(FsError):
    """ENOTEMPTY."""

    code = errno.ENOTEMPTY
    says = "directory not empty"


class Denied(FsError, PermissionError):
    """EACCES: mode bits, sticky bit or ACL."""

    code = errno.EACCES
    says = "permission denied"


class NotPermitted(FsError, PermissionError):
    """EPERM: immutable or append-only inodes, not the owner, unlink of a directory."""

    code = errno.EPERM
    says = "operation not permitted"


class NoSpace(FsError):
    """ENOSPC: the volume's capacity or inode limit."""

    code = errno.ENOSPC
    says = "no space left"


class OverQuota(FsError):
    """EDQUOT: a directory, user or group quota."""

    code = errno.EDQUOT
    says = "quota exceeded"


class BadHandle(FsError):
    """EBADF."""

    code = errno.EBADF
    says = "bad file handle"


class Invalid(FsError):
    """EINVAL."""

    code = errno.EINVAL
    says = "invalid argument"


class TooLong(FsError):
    """ENAMETOOLONG."""

    code = errno.ENAMETOOLONG
    says = "name too long"


class TooLarge(FsError):
    """EFBIG."""

    code = errno.EFBIG
    says = "file too large"


class PastEnd(FsError):
    """ENXIO: a seek for data or a hole where there is none any more."""

    code = errno.ENXIO
    says = "nothing from there to the end of the file"


class TextBusy(FsError):
    """ETXTBSY: the file is in use in a way that a writer would break."""

    code = errno.ETXTBSY
    says = "file busy"


class TooManyLinks(FsError):
    """ELOOP: more symbolic links than a path may have."""

    code = errno.ELOOP
    says = "too many symbolic links"


class CrossVolume(FsError):
    """EXDEV."""

    code = errno.EXDEV
    says = "not on the same volume"


class ReadOnly(FsError):
    """EROFS: the volume or this client is read-only."""

    code = errno.EROFS
    says = "read-only"


class Stale(FsError):
    """ESTALE: the volume under this client was replaced or destroyed, or a lock that it held was lost."""

    code = errno.ESTALE
    says = "stale"


class NoAttribute(FsError):
    """ENODATA: no such extended attribute."""

    code = errno.ENODATA
    says = "no such attribute"


class Unsupported(FsError):
    """ENOTSUP."""

    code = errno.ENOTSUP
    says = "not supported"


class Interrupted(FsError, InterruptedError):
    """EINTR: a signal ended the wait."""

    code = errno.EINTR
    says = "interrupted"


class WouldBlock(FsError, BlockingIOError):
    """EAGAIN: somebody else holds the lock."""

    code = errno.EAGAIN
    says = "would have to wait"


class OutOfRange(FsError):
    """ERANGE: the buffer is too small for the answer."""

    code = errno.ERANGE
    says = "buffer too small"


class NotImplementedHere(FsError):
    """ENOSYS: a call that this mount does not answer, now or later."""

    code = errno.ENOSYS
    says = "not implemented"


class StoreError(Exception):
    """The world below: an object store, a metadata server, a disk."""


class TransientError(StoreError):
    """Trying the same call again may succeed. `retry_after` is in seconds, if the server said."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[TransientError], tuple[str, float | None]]:
        return type(self), (str(self), self.retry_after)


class ConflictError(StoreError):
    """A record that the transaction read has changed: run it again. Never escapes meta."""


class CorruptError(StoreError):
    """Bytes or records that cannot be what was written. Never retried."""


class UnavailableError(StoreError):
    """The tries are used up; names the endpoint and the last cause."""


class SettingError(ValueError):
    """The operator's mistake (a URL, an option, a volume this client must not touch)."""


class HubError(Exception):
    """A model, version, approval or policy says no. `hint` tells what to do next.

    `kind` is a stable word for scripts: not_found, exists, conflict, denied, invalid, unsafe, state.
    """

    def __init__(self, message: str, *, hint: str = "", kind: str = "invalid") -> None:
        super().__init__(message)
        self.hint = hint
        self.kind = kind

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message

    def __reduce__(self) -> tuple[object, ...]:
        return _hub_error, (type(self), self.args[0], self.hint, self.kind)


def _hub_error(cls: type[HubError], message: str, hint: str, kind: str) -> HubError:
    return cls(message, hint=hint, kind=kind)
