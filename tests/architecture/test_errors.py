"""The error tree keeps its shape: drawn in the docstring, picklable, each errno with its builtin class."""

from __future__ import annotations

import errno
import inspect
import pickle
from typing import TypeVar

import pytest

from fscore.domain import errors

Kind = TypeVar("Kind", bound=BaseException)


def tree(root: type[Kind]) -> set[type[Kind]]:
    """This class and all below it that fscore itself defines."""
    found = {root}
    for child in root.__subclasses__():
        if child.__module__.startswith("fscore."):
            found |= tree(child)
    return found


FS_ERRORS = sorted(
    (kind for kind in tree(errors.FsError) if kind.__module__ == errors.__name__), key=lambda kind: kind.__name__
)
OTHERS = [
    errors.StoreError,
    errors.TransientError,
    errors.ConflictError,
    errors.CorruptError,
    errors.UnavailableError,
    errors.SettingError,
    errors.HubError,
]


def test_every_error_of_the_module_hangs_in_the_tree() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    roots = (errors.FsError, errors.StoreError, errors.SettingError, errors.HubError)
    assert defined == {kind for root in roots for kind in tree(root) if kind.__module__ == errors.__name__}


def test_the_docstring_draws_the_tree() -> None:
    text = errors.__doc__ or ""
    for kind in (errors.FsError, *OTHERS):
        assert kind.__name__ in text


@pytest.mark.parametrize("kind", FS_ERRORS, ids=lambda kind: kind.__name__)
def test_an_errno_comes_with_the_class_that_python_gives_it(kind: type[errors.FsError]) -> None:
    error = kind("detail", "/a/b")
    assert error.errno == kind.code
    assert error.filename == "/a/b"
    assert "detail" in str(error)
    builtin = type(OSError(kind.code, ""))
    assert isinstance(error, builtin), f"OSError({errno.errorcode[kind.code]}) is a {builtin.__name__}: so must this be"


def test_no_two_errors_share_an_errno() -> None:
    codes = [kind.code for kind in FS_ERRORS if kind is not errors.FsError]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", FS_ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("path", [None, "/a/b", b"/a/\xff"])
def test_fs_errors_travel_between_processes(kind: type[errors.FsError], path: str | bytes | None) -> None:
    error = kind("detail", path)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, again.filename, again.detail) == (kind, error.args, path, "detail")


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_other_errors_travel_between_processes(kind: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(kind("what happened")))
    assert type(again) is kind
    assert str(again) == "what happened"


def test_a_hub_error_keeps_its_hint_and_kind() -> None:
    again = pickle.loads(pickle.dumps(errors.HubError("no such version", hint="see fscore versions", kind="not_found")))
    assert (again.hint, again.kind) == ("see fscore versions", "not_found")
    assert str(again) == "no such version (see fscore versions)"


def test_a_transient_error_keeps_when_to_retry() -> None:
    again = pickle.loads(pickle.dumps(errors.TransientError("slow down", 2.5)))
    assert (str(again), again.retry_after) == ("slow down", 2.5)


def test_hub_errors_below_the_root_travel_too() -> None:
    for kind in tree(errors.HubError):
        again = pickle.loads(pickle.dumps(kind("said", hint="do", kind="denied")))
        assert (type(again), str(again)) == (kind, "said (do)")
