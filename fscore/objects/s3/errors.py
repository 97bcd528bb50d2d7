"""obstore's errors to ours: the one seam of the S3 driver.

obstore tells the status and the server's XML code only in its message, and nothing of the headers; so a Retry-After
cannot be read, and the retry wrapper's own waits (up to 15 s, for more than a minute) stand in for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from obstore import exceptions as theirs

from fscore.domain.errors import (
    Denied,
    Exists,
    FsError,
    Invalid,
    NoSpace,
    NotFound,
    SettingError,
    StoreError,
    TransientError,
    UnavailableError,
)

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_WRONG_BUCKET: Final = frozenset(
    {
        "NoSuchBucket",
        "InvalidBucketName",
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"})
_PASSING: Final = frozenset(
    {
        "RequestTimeout",
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "OperationAborted",
        "ConditionalRequestConflict",
        "RequestTimeTooSkewed",
        "ThrottlingException",
        "Throttling",
    }
)


@contextmanager
def seam(verb: str, key: str, location: str) -> Iterator[None]:
    """Inside, whatever obstore raises comes out as an error of domain.errors."""
    try:
        yield
    except (FsError, StoreError, SettingError):
        raise
    except (theirs.BaseError, OSError, ValueError) as error:
        raise translate(error, f"{verb} of {key!r} in {location}") from error


def translate(error: Exception, what: str) -> Exception:
    """The error of ours that tells the caller what to do about theirs."""
    message = str(error).split("\n\nDebug source", 1)[0]
    found = _STATUS.search(message)
    status = int(found.group(1)) if found else 0
    coded = _CODE.search(message)
    code = coded.group(1) if coded else ""
    reason = f"{what}: {f'{status} {code}'.strip() if status else _first_line(message)}"
    if code in _WRONG_BUCKET:
        return SettingError(f"{reason}; check the bucket's name, address and region")
    if code in _FULL or status == 507:
        return NoSpace(reason)
    if code in _PASSING or status in {408, 425, 429} or (status >= 500 and status != 501):
        return TransientError(reason)
    by_class = _by_class(error, status, reason)
    if by_class is not None:
        return by_class
    if status == 0 and isinstance(error, theirs.GenericError):
        return TransientError(reason)  # refused, reset, timed out, cut off in the middle
    return UnavailableError(reason)


def _by_class(error: Exception, status: int, reason: str) -> Exception | None:
    if isinstance(error, FileNotFoundError | theirs.NotFoundError) or status == 404:
        return NotFound(reason)
    if isinstance(error, theirs.PermissionDeniedError | theirs.UnauthenticatedError | PermissionError):
        return Denied(f"{reason}; check the access key and its rights")
    if isinstance(error, theirs.AlreadyExistsError | theirs.PreconditionError):
        return Exists(reason)
    if isinstance(error, theirs.InvalidPathError):
        return Invalid(reason)
    if isinstance(error, theirs.UnknownConfigurationKeyError):
        return SettingError(reason)
    return None


def _first_line(message: str) -> str:
    return message.strip().split("\n", 1)[0][-300:]
