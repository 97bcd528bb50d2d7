"""`ObjectStoragePath("fscore://CONNECTION@/models/...")`: the volume behind a connection, as fsspec sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fscore.client.fsspec_fs import FscoreFileSystem

schemes = ["fscore"]


def get_fs(conn_id: str | None, storage_options: dict[str, Any] | None = None) -> FscoreFileSystem:
    """The fsspec filesystem of one volume; called by Airflow's object storage."""
    from fscore.client.fsspec_fs import FscoreFileSystem
    from fscore_airflow.hooks.volume import VolumeHook

    options = dict(storage_options or {})
    options.pop("conn_id", None)
    return FscoreFileSystem(volume=VolumeHook(conn_id or VolumeHook.default_conn_name).meta_url(), **options)
