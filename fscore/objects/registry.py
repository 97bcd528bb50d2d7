"""From a volume's setting to its object store. Knows every driver, and loads only the one that is asked for."""

from __future__ import annotations

import os

from fscore.domain.errors import SettingError
from fscore.objects.api import ObjectStore
from fscore.objects.wrap.prefixed import Prefixed

STORAGES = ("file", "s3", "minio", "memory")


def open_store(
    setting_storage: str,
    bucket: str,
    *,
    access_key: str = "",
    secret_key: str = "",
    session_token: str = "",
    prefix: str = "",
    durable: bool = True,
) -> ObjectStore:
    """The store of that kind at `bucket`, seen from below `prefix`. SettingError for what cannot be one.

    `durable=False` lets the `file` store skip fsync: faster, and a power cut may lose what was acknowledged.
    """
    store = _driver(setting_storage.lower(), bucket, access_key, secret_key, session_token, durable)
    return Prefixed(store, prefix) if prefix else store


def _driver(storage: str, bucket: str, access: str, secret: str, token: str, durable: bool) -> ObjectStore:
    if storage == "file":
        from fscore.objects.file import FileStore

        path = bucket.removeprefix("file://")
        if not os.path.isabs(path):  # noqa: PTH117
            raise SettingError(f"bucket {bucket!r} of a file store must be an absolute path")
        return FileStore(path, durable=durable)
    if storage == "memory":
        from fscore.objects.memory import shared

        return shared(bucket.removeprefix("memory://").strip("/"))
    if storage in {"s3", "minio"}:
        from fscore.objects.s3.store import S3Store

        return S3Store(bucket, access_key=access, secret_key=secret, session_token=token, path_style=storage == "minio")
    raise SettingError(f"storage {storage!r} is not one of {', '.join(STORAGES)}")
