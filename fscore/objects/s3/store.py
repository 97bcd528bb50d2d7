"""Objects in an S3 bucket. Retries are not made here: that is `wrap.retry`'s one concern."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore import exceptions as theirs
from obstore.store import S3Store as Client

from fscore.domain.errors import Exists, NotFound, TransientError
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore, as_view, check_key, filled
from fscore.objects.s3.endpoint import Endpoint, parse_bucket
from fscore.objects.s3.errors import seam
from fscore.objects.s3.straight import straight_for

if TYPE_CHECKING:  # obstore has these for type checkers only
    from obstore import ObjectMeta
    from obstore.store import ClientConfig

_PAGE: Final = 1000
_BEYOND: Final = re.compile(r"status code: 416|Wanted range starting at \d+, but object was only")
_CLIENT: Final[ClientConfig] = {
    "connect_timeout": "5s",
    "read_timeout": "30s",  # between two pieces of an answer
    "timeout": "300s",  # for a whole call: 16 MiB over a slow line
    "pool_max_idle_per_host": "64",
    "user_agent": "fscore",
    "allow_http": True,
}


class S3Store(ObjectStore):
    """One bucket. Credentials: those given, else AWS_* variables, a profile, a web identity or the machine's role."""

    def __init__(
        self,
        bucket: str,
        *,
        access_key: str = "",
        secret_key: str = "",
        session_token: str = "",
        path_style: bool = False,
        storage_class: str = "",
        tag: str = "",
    ) -> None:
        place = parse_bucket(bucket, path_style=path_style)
        self._attributes = {"Storage-Class": storage_class} if storage_class else {}
        self._tags = _tags(tag)
        self.location = f"s3://{place.bucket}" if place.url is None else f"{place.url}/{place.bucket}"
        if place.virtual_host:
            self.location = str(place.url)
        with seam("opening", place.bucket, self.location):
            self._client = Client(
                place.bucket,
                client_options=_CLIENT,
                retry_config={"max_retries": 0},
                **_settings(place, access_key, secret_key, session_token),
            )
        self._straight = None if access_key == "anonymous" else straight_for(self._client, place.url)

    @property
    def fills(self) -> bool:
        """Over plain HTTP."""
        return self._straight is not None and self._straight.useful

    def put(self, key: str, data: Buffer) -> None:
        """One PUT, never multipart, so it is whole or absent."""
        self.put_with(key, data, {})

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """One PUT with user metadata."""
        with seam("put", key, self.location):
            obstore.put(
                self._client,
                check_key(key),
                as_view(data),
                attributes=(self._attributes | metadata) or None,
                tags=self._tags,
                use_multipart=False,
            )

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """One PUT with `If-None-Match: *`."""
        try:
            with seam("put", key, self.location):
                obstore.put(
                    self._client,
                    check_key(key),
                    as_view(data),
                    attributes=self._attributes or None,
                    tags=self._tags,
                    mode="create",
                    use_multipart=False,
                )
        except Exists:
            return False
        return True

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """One GET, with a range unless the whole object is meant; the bytes stay where the client laid them."""
        return self._fetch(key, offset, length)

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """One ranged GET into `buffer`."""
        data = self._fetch(key, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """One GET and the user metadata that came with it."""
        with seam("get", key, self.location):
            result = obstore.get(self._client, check_key(key))
            metadata = {str(name).lower(): str(value) for name, value in result.attributes.items()}
            return memoryview(result.bytes()), metadata

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """One GET, whose bytes are not laid anywhere else first where that can be."""
        if self._straight is not None:
            try:
                found = self._straight.fill(check_key(key), buffer)
            except TransientError as error:
                raise TransientError(f"get of {key!r} in {self.location}: {error}") from error
            if found is not None:
                return found
        data, metadata = self.get_with(key)
        return filled(buffer, data), metadata

    def close(self) -> None:
        """Close idle connections."""
        if self._straight is not None:
            self._straight.close()

    def head(self, key: str) -> ObjectInfo:
        """One HEAD."""
        with seam("head", key, self.location):
            return _info(obstore.head(self._client, check_key(key)))

    def delete(self, key: str) -> None:
        """One DELETE; a missing object is fine."""
        try:
            with seam("delete", key, self.location):
                obstore.delete(self._client, check_key(key))
        except NotFound:
            return

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Pages of a listing. obstore matches prefixes by whole folders, so a part of a name is filtered here."""
        folder = prefix[: prefix.rfind("/") + 1]
        partial = len(prefix) > len(folder)
        after = start_after
        if partial and after < prefix:
            after = _just_before(prefix)
        with seam("scan", prefix, self.location):
            pages = iter(obstore.list(self._client, folder or None, offset=after or None, chunk_size=_PAGE))
        while True:
            with seam("scan", prefix, self.location):
                page = next(pages, None)
            if page is None:
                return
            for item in page:
                info = _info(item)
                if partial and not info.key.startswith(prefix):
                    if info.key.encode() > prefix.encode():
                        return
                    continue
                if info.key > start_after or not start_after:
                    yield info

    def _fetch(self, key: str, offset: int, length: int | None) -> memoryview:
        if length == 0:
            self.head(key)
            return memoryview(b"")
        with seam("get", key, self.location):
            if offset == 0 and length is None:
                return memoryview(obstore.get(self._client, check_key(key)).bytes())
            wanted: Any = {"offset": offset} if length is None else (offset, offset + length)
            try:
                result = obstore.get(self._client, check_key(key), options={"range": wanted})
                return memoryview(result.bytes())
            except theirs.BaseError as error:
                if _BEYOND.search(str(error)):
                    return memoryview(b"")  # begins at or after the end
                raise


def _tags(tag: str) -> dict[str, str] | None:
    """The tag of a tier, `key=value`, as the client takes it."""
    key, equals, value = tag.partition("=")
    return {key: value} if equals and key else None


def _just_before(prefix: str) -> str:
    """A key that sorts before every key with `prefix`, close to it."""
    last = ord(prefix[-1])
    return prefix[:-1] + (chr(last - 1) + "~" if last > 0x20 and not 0xD800 <= last - 1 <= 0xDFFF else "")


def _info(item: ObjectMeta) -> ObjectInfo:
    stamp = item["last_modified"]
    seconds = int(stamp.timestamp())
    etag = (item["e_tag"] or "").strip('"')
    return ObjectInfo(item["path"], item["size"], seconds * 1_000_000_000 + stamp.microsecond * 1000, etag)


def _settings(place: Endpoint, access: str, secret: str, token: str) -> dict[str, Any]:
    """The client's options; what is not said here it takes from AWS_* variables."""
    options: dict[str, Any] = {"virtual_hosted_style_request": place.virtual_host, "conditional_put": "etag"}
    if place.url is not None:
        options["endpoint"] = place.url
    options["region"] = (
        place.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    )
    if access == "anonymous":
        options["skip_signature"] = True
    elif access:
        options["access_key_id"] = access
        options["secret_access_key"] = secret
        if token:
            options["session_token"] = token
    elif _wants_profile():
        from obstore.auth.boto3 import Boto3CredentialProvider

        options["credential_provider"] = Boto3CredentialProvider()
    return options


def _wants_profile() -> bool:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return False
    shared = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    return bool(os.environ.get("AWS_PROFILE")) or Path(shared).expanduser().exists()
