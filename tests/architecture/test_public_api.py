"""What others build on: names, parameters and report fields change only together with this list, on purpose."""

from __future__ import annotations

import importlib
import inspect

import msgspec
import pytest

import fscore

FUNCTIONS = {
    "fscore.volume:open_volume": "target object_store meta_engine clock options changes",
    "fscore.admin.format:format_volume": (
        "meta_url name storage bucket block_size compression trash_days capacity inodes hash_prefix enable_acl "
        "access_key secret_key session_token object_store clock"
    ),
    "fscore.hub.push:push": (
        "volume source ref user purpose alias base description licenses origin validation allow_pickle resume progress "
        "request_id clock"
    ),
    "fscore.hub.pull:pull": "volume ref target_dir rank layout resume verify user progress clock",
    "fscore.hub.split_version:split_version": "volume ref tp pp ep actor progress clock",
    "fscore.hub.approval:decide": "volume ref decision by reason digest dag_run_id clock",
    "fscore.hub.approval:request": "volume ref actor digest approvers dag_run_id clock",
    "fscore.hub.warm:warm": "volume ref rank layout progress clock",
}

FIELDS = {
    "fscore.hub.reports:PushReport": (
        "team model version ref path state digest files tensors bytes_total bytes_new bytes_shared deduplicated seconds"
    ),
    "fscore.hub.reports:PullReport": (
        "ref version digest rank files bytes_total bytes_fetched bytes_kept seconds path warnings"
    ),
    "fscore.hub.reports:LayoutReport": (
        "ref layout ranks path digest files bytes_total bytes_new bytes_shared zero_copy deduplicated seconds"
    ),
    "fscore.hub.reports:WarmReport": (
        "ref version rank files bytes_total bytes_cached bytes_fetched bytes_failed coverage seconds"
    ),
    "fscore.hub.reports:Decision": "ref version digest decision by reason at layouts",
    "fscore.files.compose:ComposeReport": "bytes_new bytes_shared records",
}

METHODS = {
    "fscore.files.filesystem:Filesystem": (
        "chmod chown clone compose copy_range create exists getxattr info is_dir is_file link listdir listxattr mkdir "
        "open read_bytes readlink removexattr rename rmdir rmtree scandir set_immutable setxattr stat statfs symlink "
        "sync truncate unlink utime walk write_atomic write_bytes"
    ),
    "fscore.hub.registry:Registry": (
        "deprecate log models publish record_validation remove_alias resolve revoke set_alias show verify_log versions"
    ),
    "fscore.objects.api:ObjectStore": "close delete get head put scan",
}


def named(where: str) -> object:
    """The thing at `module:name`."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def test_the_face_of_the_package() -> None:
    assert fscore.__all__ == ["Options", "Volume", "errors", "open_volume"]
    assert all(hasattr(fscore, name) for name in [*fscore.__all__, "hub", "sync", "__version__"])


@pytest.mark.parametrize("where", FUNCTIONS)
def test_functions_keep_their_parameters(where: str) -> None:
    function = named(where)
    assert callable(function)
    assert list(inspect.signature(function).parameters) == FUNCTIONS[where].split()


@pytest.mark.parametrize("where", FIELDS)
def test_reports_keep_their_fields(where: str) -> None:
    """These are the keys of `--json` and of XCom."""
    report = named(where)
    assert inspect.isclass(report)
    assert issubclass(report, msgspec.Struct)
    assert list(report.__struct_fields__) == FIELDS[where].split()


@pytest.mark.parametrize("where", METHODS)
def test_classes_keep_their_methods(where: str) -> None:
    """More may come; none may go."""
    missing = [name for name in METHODS[where].split() if not callable(getattr(named(where), name, None))]
    assert missing == []
