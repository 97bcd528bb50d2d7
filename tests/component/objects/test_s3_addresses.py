"""What the S3 driver really asks for, seen by an HTTP proxy: virtual hosts, paths, regions, session tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fscore.objects.registry import open_store


class Recorder(BaseHTTPRequestHandler):
    """Answers every GET with `hello` and remembers what was asked."""

    seen: list[tuple[str, str, str]]

    def do_GET(self) -> None:
        authorization = self.headers.get("authorization", "")
        self.seen.append((self.path, authorization, self.headers.get("x-amz-security-token", "")))
        self.send_response(200)
        for name, value in (
            ("Content-Length", "5"),
            ("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
            ("ETag", '"e"'),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, str]]]:
    """Requests that went to any host, through a proxy of the environment."""
    seen: list[tuple[str, str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Recorder,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    for name in ("NO_PROXY", "no_proxy", "AWS_REGION", "AWS_DEFAULT_REGION", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("storage", "bucket", "url", "region"),
    [
        ("s3", "http://models.oss.example.com", "http://models.oss.example.com/a/k", "us-east-1"),
        ("s3", "http://oss.example.com/models", "http://oss.example.com/models/a/k", "us-east-1"),
        ("minio", "http://minio.example.com:9000/models", "http://minio.example.com:9000/models/a/k", "us-east-1"),
        (
            "s3",
            "http://models.s3.eu-west-1.amazonaws.com",
            "http://models.s3.eu-west-1.amazonaws.com/a/k",
            "eu-west-1",
        ),
        (
            "s3",
            "http://s3.eu-central-1.amazonaws.com/models",
            "http://s3.eu-central-1.amazonaws.com/models/a/k",
            "eu-central-1",
        ),
    ],
)
def test_addresses(seen: list[tuple[str, str, str]], storage: str, bucket: str, url: str, region: str) -> None:
    store = open_store(storage, bucket, access_key="AK", secret_key="SK", session_token="TOKEN")
    assert store.get("a/k") == b"hello"
    path, authorization, token = seen[-1]
    assert path == url
    assert "Credential=AK/" in authorization
    assert f"/{region}/s3/aws4_request" in authorization
    assert token == "TOKEN"


def test_the_region_comes_from_the_environment(
    seen: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    open_store("s3", "http://oss.example.com/models", access_key="AK", secret_key="SK").get("k")
    assert "/ap-south-1/s3/" in seen[-1][1]
