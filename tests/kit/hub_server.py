"""A small Hugging Face hub: enough of its HTTP API for `huggingface_hub` to list and download one repository.

Serves directories as repositories at one commit each. Can cut a file's transfer once, as a failing network does,
and counts what it sent, so that a test can prove that a second try did not start again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_LFS = (".safetensors", ".bin", ".pt")
_PIECE = 1 << 18


@dataclass
class Hub:
    """Repositories by name (`org/name`), and what was asked of them."""

    repositories: dict[str, Path]
    url: str = ""
    cut: dict[str, int] = field(default_factory=dict)
    """File -> bytes after which its connection is dropped, while it stands here."""
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)

    def commit(self, repository: str) -> str:
        """The one commit of a repository: a digest of its files."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path in self.files(repository):
            digest.update(f"{path}\0".encode())
            digest.update((self.repositories[repository] / path).read_bytes())
        return digest.hexdigest()

    def files(self, repository: str) -> list[str]:
        """Relative paths of a repository's files."""
        root = self.repositories[repository]
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def entry(self, repository: str, path: str) -> dict[str, Any]:
        """One file as the tree API describes it."""
        data = (self.repositories[repository] / path).read_bytes()
        found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
        if path.endswith(_LFS):
            found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return found


@contextmanager
def hub_server(repositories: dict[str, Path]) -> Iterator[Hub]:
    """The hub, listening on a free port of the loopback until the block ends."""
    hub = Hub(dict(repositories))
    server = _Server(hub)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """Knows its hub, so that handlers do."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server  # type: ignore[mutable-override]  # the server class below makes no other handlers
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a listing or send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with headers only."""
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean; `requests` remembers instead."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.hub.requests.append(f"{self.command} {path}")
        parts = path.split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.server.hub.repositories:
            self._api("/".join(parts[2:4]), parts[4:])
        elif "/".join(parts[:2]) in self.server.hub.repositories and parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)
        else:
            self._error(404, "RepoNotFound")

    def _api(self, repository: str, rest: list[str]) -> None:
        commit = self.server.hub.commit(repository)
        if len(rest) == 2 and rest[1] not in {"main", commit}:
            self._error(404, "RevisionNotFound")
            return
        entries = [self.server.hub.entry(repository, path) for path in self.server.hub.files(repository)]
        if rest[:1] == ["tree"]:
            self._json(entries)
            return
        siblings = [
            {
                "rfilename": e["path"],
                "size": e["size"],
                "blobId": e["oid"],
                **({"lfs": _lfs(e)} if "lfs" in e else {}),
            }
            for e in entries
        ]
        self._json({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": []})

    def _file(self, repository: str, revision: str, path: str, *, body: bool) -> None:
        commit = self.server.hub.commit(repository)
        if revision not in {"main", commit} or path not in self.server.hub.files(repository):
            self._error(404, "EntryNotFound" if revision in {"main", commit} else "RevisionNotFound")
            return
        entry = self.server.hub.entry(repository, path)
        data = (self.server.hub.repositories[repository] / path).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"')
        self.send_header("Accept-Ranges", "bytes")
        if self.headers.get("Range"):
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            self._send(path, memoryview(data)[start:], start)

    def _send(self, path: str, data: memoryview, start: int) -> None:
        for offset in range(0, len(data), _PIECE):
            limit = self.server.hub.cut.get(path)
            if limit is not None and start + offset >= limit:
                self.close_connection = True
                self.connection.close()
                return
            piece = data[offset : offset + _PIECE]
            self.wfile.write(piece)
            self.server.hub.sent[path] += len(piece)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _lfs(entry: dict[str, Any]) -> dict[str, Any]:
    return {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 134}


def _blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
