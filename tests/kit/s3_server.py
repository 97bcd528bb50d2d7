"""The S3 server that tests talk to: a real Ceph gateway, one a session, one bucket a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit import ceph

on_s3 = [pytest.mark.s3, pytest.mark.xdist_group("ceph")]
"""Marks of a test that needs the server: all of them run on one worker, so one cluster starts."""


class S3Server:
    """Where the gateway is and how to get in."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str) -> None:
        import boto3

        self.endpoint = endpoint
        self.access_key = access_key
        self.secret_key = secret_key
        self._names = itertools.count(1)
        self._admin: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name="us-east-1",
        )

    def new_bucket(self) -> str:
        """Make an empty bucket; its URL in path style."""
        name = f"bucket-{next(self._names)}"
        self._admin.create_bucket(Bucket=name)
        return f"{self.endpoint}/{name}"

    def tags_of(self, bucket: str, key: str) -> dict[str, str]:
        """Tags of an object, as the server tells them."""
        name = bucket.rpartition("/")[2]
        answer = self._admin.get_object_tagging(Bucket=name, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running gateway. Without Ceph the test is skipped, or fails where REQUIRE_SERVICES=1."""
    try:
        ceph.ensure_installed()
    except ceph.Missing as missing:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    cluster = ceph.Ceph(tmp_path_factory.mktemp("ceph"))
    try:
        cluster.start()
        yield S3Server(cluster.endpoint, ceph.ACCESS, ceph.SECRET)
    finally:
        cluster.stop()
