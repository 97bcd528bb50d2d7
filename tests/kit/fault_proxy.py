"""An HTTP proxy in front of a server that says 503 when told to, cuts answers short, or lies about their bytes."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SLOW = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>"
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class FaultProxy:
    """What the proxy does to the requests to come. Counts all it saw and all it refused."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (str(parts.hostname), int(parts.port or 80))
        self.refuse = 0
        """Answer this many requests with 503 SlowDown."""
        self.cut = 0
        """End this many answers in the middle."""
        self.flip = 0
        """Turn a bit in this many answers."""
        self.seen = 0
        self.refused = 0
        self.lock = threading.Lock()
        self.url = ""

    def take(self, fault: str) -> bool:
        """Use up one of a fault, if there is one left."""
        with self.lock:
            left: int = getattr(self, fault)
            if left:
                setattr(self, fault, left - 1)
            return left > 0


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.proxy.lock:
            self.proxy.seen += 1
        if self.proxy.take("refuse"):
            with self.proxy.lock:
                self.proxy.refused += 1
            self._answer(503, [("Retry-After", "1")], _SLOW)
            return
        upstream = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            data = answer.read()
            self._answer(answer.status, answer.getheaders(), data, head_length=answer.getheader("content-length"))
        finally:
            upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, head_length: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = head_length if self.command == "HEAD" and head_length else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if data and status < 300 and self.proxy.take("cut"):
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        if data and status < 300 and self.proxy.take("flip"):
            data = bytes([data[0] ^ 1]) + data[1:]
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A running proxy in front of `upstream`."""
    proxy = FaultProxy(upstream)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
