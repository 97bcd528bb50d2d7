"""From a volume's setting to its object store. Knows every driver, and loads only the one that is asked for."""

from __future__ import annotations

import os

from fscore.domain.errors import SettingError
from fscore.objects.api import Durable, ObjectStore
from fscore.objects.wrap.prefixed import Prefixed
from fscore.objects.wrap.sharded import Sharded

STORAGES = ("file", "s3", "minio", "memory")


def open_store(
    setting_storage: str,
    bucket: str,
    *,
    access_key: str = "",
    secret_key: str = "",
    session_token: str = "",
    prefix: str = "",
    shards: int = 0,
    durable: Durable = True,
    storage_class: str = "",
    tag: str = "",
) -> ObjectStore:
    """The store of that kind at `bucket`, seen from below `prefix`. SettingError for what cannot be one.

    What is put gets the storage class and the tag (`key=value`), where the store has such a thing.

    With `shards` above 1 `bucket` holds a `%d` and the keys, which must carry the volume's name by then, are spread.
    `durable` is for the `file` store: without it, or before the next `sync`, a power cut may take what was put.
    """

    def driver(place: str) -> ObjectStore:
        return _driver(
            setting_storage.lower(), place, (access_key, secret_key, session_token), durable, storage_class, tag
        )

    store = Sharded([driver(place) for place in _shards(bucket, shards)]) if shards > 1 else driver(bucket)
    return Prefixed(store, prefix) if prefix else store


def _shards(bucket: str, shards: int) -> list[str]:
    """The buckets of a sharded volume: its address with one printf verb for the number (format 5.1)."""
    try:
        places = [bucket % number for number in range(shards)]
    except (TypeError, ValueError) as error:
        raise SettingError(f"bucket {bucket!r} of a volume with {shards} shards needs one %d") from error
    return places


def _driver(
    storage: str, bucket: str, secrets: tuple[str, str, str], durable: Durable, storage_class: str, tag: str
) -> ObjectStore:
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

        access, secret, token = secrets
        return S3Store(
            bucket,
            access_key=access,
            secret_key=secret,
            session_token=token,
            path_style=storage == "minio",
            storage_class=storage_class,
            tag=tag,
        )
    raise SettingError(f"storage {storage!r} is not one of {', '.join(STORAGES)}")
