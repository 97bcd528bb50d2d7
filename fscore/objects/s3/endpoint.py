"""What a `--bucket` of an S3 store means, in the forms that JuiceFS users paste. Pure.

https://models.s3.eu-west-1.amazonaws.com      virtual host at AWS, region from the name
https://s3.eu-west-1.amazonaws.com/models      path style at AWS
http://127.0.0.1:9000/models                   path style anywhere: the first part of the path is the bucket
https://models.oss.example.com                 virtual host anywhere: the first label is the bucket
models, s3://models                            a bucket at AWS, or where AWS_ENDPOINT_URL points
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fscore.domain.errors import SettingError

_AWS: Final = re.compile(
    r"(?:^|\.)s3[.-](?:dualstack\.|fips\.)?(?:([a-z]{2}(?:-[a-z]+)+-\d)\.)?(?:vpce\.)?amazonaws\.com(?:\.cn)?$"
)
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}")


class Endpoint(NamedTuple):
    """Where a bucket is. `url` is None for AWS's own address; with `virtual_host` it names the bucket already."""

    bucket: str
    url: str | None
    region: str | None
    virtual_host: bool


def parse_bucket(text: str, *, path_style: bool = False) -> Endpoint:
    """Read a bucket URL; with `path_style` (MinIO) the bucket must be in the path. SettingError."""
    bare = text.strip().rstrip("/")
    if bare.startswith("s3://"):
        bare = bare.removeprefix("s3://")
        if "/" in bare:
            raise SettingError(f"bucket {text!r} may not have a path after the bucket's name")
        return Endpoint(_name(bare, text), None, None, virtual_host=False)
    if "://" not in bare and not re.search(r"[./:]", bare):
        return Endpoint(_name(bare, text), None, None, virtual_host=False)
    if "://" not in bare:
        bare = ("https://" if ".amazonaws.com" in bare else "http://") + bare
    parts = urlsplit(bare)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.username:
        raise SettingError(f"bucket {text!r} is no address of an S3 bucket, such as https://host:port/bucket")
    aws = _AWS.search(host)
    region = (aws.group(1) or "us-east-1") if aws else None
    address = f"{parts.scheme}://{parts.netloc}"
    path = parts.path.strip("/")
    if path:
        if "/" in path:
            raise SettingError(f"bucket {text!r} may have one path part, the bucket's name")
        return Endpoint(_name(path, text), address, region, virtual_host=False)
    if path_style or _is_address(host) or "." not in host or (aws and aws.start() == 0):
        raise SettingError(f"bucket {text!r} names no bucket; write {address}/BUCKET")
    bucket = host[: aws.start()] if aws else host.split(".", 1)[0]
    return Endpoint(_name(bucket, text), address, region, virtual_host=True)


def _name(name: str, text: str) -> str:
    if not _NAME.fullmatch(name):
        raise SettingError(f"bucket {text!r}: {name!r} cannot be the name of a bucket")
    return name


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
