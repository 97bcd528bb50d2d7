"""A volume against a dict of bytes: random operations by two clients, content and errors compared, fsck at the end.

The model knows names, nodes and bytes. The first client also keeps files open, with writes that are not committed yet;
it commits before the second one acts, which is when POSIX would show them. After every step the names agree, at the
end of a history both clients agree about everything.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fscore.admin.format import format_volume
from fscore.domain.errors import FsError
from fscore.files.compose import Piece, Range, Zeros, data
from fscore.files.file import VolumeFile
from fscore.files.filesystem import Filesystem
from fscore.meta.engines.registry import forget_memory
from fscore.volume import Volume, open_volume
from tests.kit.crash import contents
from tests.kit.redis_server import RedisServer
from tests.kit.volumes import assert_sound

BLOCK = 64 << 10
NAMES = st.sampled_from(["a", "b"])
DIRS = st.sampled_from(["", "/d", "/d/e"])
PATHS = st.builds(lambda top, name: f"{top}/{name}", DIRS, NAMES)
CLIENTS = st.integers(0, 1)
OFFSETS = st.one_of(st.integers(0, 60), st.integers(0, 4 * BLOCK), st.sampled_from([BLOCK - 1, BLOCK, 3 * BLOCK]))
CONTENTS = st.builds(
    lambda seed, size: bytes((seed + index) % 251 for index in range(size)) if size < 500 else bytes([seed]) * size,
    st.integers(1, 250),
    st.one_of(st.integers(0, 60), st.sampled_from([BLOCK, BLOCK + 1, 3 * BLOCK])),
)

ACTS = st.tuples(
    st.sampled_from(["write", "write", "write", "read", "read", "cut", "flush", "punch"]), OFFSETS, CONTENTS
)


class Node:
    """A file of the model, whatever its names are."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def write(self, offset: int, part: bytes) -> None:
        if part:
            grown = self.content + bytes(max(0, offset - len(self.content)))
            self.content = grown[:offset] + part + grown[offset + len(part) :]

    def punch(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self.content))
        if offset < end:
            self.content = self.content[:offset] + bytes(end - offset) + self.content[end:]

    def truncate(self, length: int) -> None:
        self.content = self.content[:length] + bytes(max(0, length - len(self.content)))


class FilesMachine(RuleBasedStateMachine):
    """Rules are the operations of `files`; each is applied to the model and to one of two clients."""

    kind: ClassVar[str] = "memory"
    server: ClassVar[RedisServer | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        name = uuid.uuid4().hex
        self.at = f"memory://{name}" if self.kind == "memory" else f"sqlite3://{self.place / 'meta.db'}"
        if self.server is not None:
            self.at = self.server.fresh_url()
        format_volume(self.at, "model", storage="memory", bucket=name, block_size="64K", trash_days=0)
        self.clients = [self._client(), self._client()]
        self.tree: dict[str, Node] = {}
        self.held: list[tuple[VolumeFile, Node]] = []
        self.clients[0].files.mkdir("/d/e", parents=True)

    def _client(self) -> Volume:
        return open_volume(self.at, background=False, cache_s=0.0, patience_s=(0.0, 0.01))

    def _both(self, client: int, expected: Callable[[], None], act: Callable[[Filesystem], object]) -> None:
        """Do it in the model and in the volume; both must work, or both refuse."""
        fs = self._files(client)
        try:
            expected()
        except KeyError:
            with pytest.raises(FsError):
                act(fs)
        else:
            act(fs)

    def _files(self, client: int) -> Filesystem:
        """The client's tree; what the first one holds back is committed before the other acts."""
        if client == 1:
            self.clients[0].sync()
        return self.clients[client].files

    def _lets_go(self, client: int, *paths: str) -> None:
        """Nothing protects a file that this client holds open from being removed by another one: close it before."""
        if client == 1:
            doomed = [self.tree.get(path) for path in paths]
            for file, node in [held for held in self.held if held[1] in doomed]:
                file.close()
                self.held.remove((file, node))

    @rule(client=CLIENTS, path=PATHS, content=CONTENTS)
    def write_whole(self, client: int, path: str, content: bytes) -> None:
        """Replace a file's bytes."""
        self.tree.setdefault(path, Node()).content = content
        self._files(client).write_bytes(path, content)

    @rule(client=CLIENTS, path=PATHS, content=CONTENTS, replace=st.booleans())
    def write_atomic(self, client: int, path: str, content: bytes, replace: bool) -> None:
        """Put a file in place."""
        self._lets_go(client, path)

        def expected() -> None:
            if not replace and path in self.tree:
                raise KeyError(path)
            self.tree[path] = Node(content)

        self._both(client, expected, lambda fs: fs.write_atomic(path, content, replace=replace))

    @rule(client=CLIENTS, path=PATHS, writes=st.lists(st.tuples(OFFSETS, CONTENTS), min_size=1, max_size=6))
    def patch(self, client: int, path: str, writes: list[tuple[int, bytes]]) -> None:
        """Several writes through one handle, read back before it is closed."""

        def expected() -> None:
            for offset, part in writes:
                self.tree[path].write(offset, part)

        def act(fs: Filesystem) -> None:
            with fs.open(path, "r+b") as file:
                for offset, part in writes:
                    file.pwrite(offset, part)
                assert file.size == len(self.tree[path].content)
                offset, part = writes[-1]
                assert file.pread(offset, len(part)) == part

        self._both(client, expected, act)

    @rule(path=PATHS)
    @precondition(lambda self: len(self.held) < 3)
    def hold(self, path: str) -> None:
        """The first client opens a file, or makes it, and keeps it open."""
        file = self.clients[0].files.open(path, "r+b" if path in self.tree else "x+b")
        self.held.append((file, self.tree.setdefault(path, Node())))

    @rule(which=st.integers(0, 2), acts=st.lists(ACTS, min_size=1, max_size=10))
    @precondition(lambda self: self.held)
    def use_held(self, which: int, acts: list[tuple[str, int, bytes]]) -> None:
        """Writes, reads and cuts through an open handle; what is not read may stay uncommitted."""
        file, node = self.held[which % len(self.held)]
        for verb, offset, part in acts:
            if verb == "write":
                file.pwrite(offset, part)
                node.write(offset, part)
            elif verb == "read":
                assert file.pread(offset, len(part)) == node.content[offset : offset + len(part)]
            elif verb == "cut":
                file.truncate(offset)
                node.truncate(offset)
            elif verb == "punch":
                if part:
                    self.clients[0].vfs.fallocate(file._fh, 3, offset, len(part))
                node.punch(offset, len(part))
            else:
                file.flush()
            assert file.size == len(node.content)

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: self.held)
    def let_go(self, which: int) -> None:
        """Close one."""
        self.held.pop(which % len(self.held))[0].close()

    @rule(client=CLIENTS, path=PATHS, content=CONTENTS)
    def append(self, client: int, path: str, content: bytes) -> None:
        """Write at the end, made if absent."""
        self.tree.setdefault(path, Node()).content += content
        with self._files(client).open(path, "ab") as file:
            file.write(content)

    @rule(client=CLIENTS, path=PATHS, length=OFFSETS)
    def truncate(self, client: int, path: str, length: int) -> None:
        """Cut or extend."""
        self._both(client, lambda: self.tree[path].truncate(length), lambda fs: fs.truncate(path, length))

    @rule(client=CLIENTS, source=PATHS, goal=PATHS, replace=st.booleans())
    def rename(self, client: int, source: str, goal: str, replace: bool) -> None:
        """Move a file."""
        if source == goal or self._same(source, goal):
            return  # POSIX leaves open whether a name collides with itself
        self._lets_go(client, goal)

        def expected() -> None:
            node = self.tree[source]
            if not replace and goal in self.tree:
                raise KeyError(goal)
            del self.tree[source]
            self.tree[goal] = node

        self._both(client, expected, lambda fs: fs.rename(source, goal, replace=replace))

    @rule(client=CLIENTS, one=PATHS, two=PATHS)
    def exchange(self, client: int, one: str, two: str) -> None:
        """Swap two files."""
        if one == two or self._same(one, two):
            return

        def expected() -> None:
            self.tree[one], self.tree[two] = self.tree[two], self.tree[one]

        self._both(client, expected, lambda fs: fs.rename(one, two, exchange=True))

    def _same(self, one: str, two: str) -> bool:
        return one in self.tree and self.tree[one] is self.tree.get(two)

    @rule(client=CLIENTS, source=PATHS, goal=PATHS)
    def link(self, client: int, source: str, goal: str) -> None:
        """Another name."""

        def expected() -> None:
            node = self.tree[source]
            if goal in self.tree:
                raise KeyError(goal)
            self.tree[goal] = node

        self._both(client, expected, lambda fs: fs.link(source, goal))

    @rule(client=CLIENTS, path=PATHS)
    def unlink(self, client: int, path: str) -> None:
        """Remove."""
        self._lets_go(client, path)
        self._both(client, lambda: self.tree.__delitem__(path), lambda fs: fs.unlink(path))

    @rule(client=CLIENTS, source=PATHS, goal=PATHS)
    def clone(self, client: int, source: str, goal: str) -> None:
        """A copy that shares bytes."""

        def expected() -> None:
            content = self.tree[source].content
            if goal in self.tree:
                raise KeyError(goal)
            self.tree[goal] = Node(content)

        self._both(client, expected, lambda fs: fs.clone(source, goal))

    @rule(
        client=CLIENTS,
        goal=PATHS,
        parts=st.lists(st.one_of(st.tuples(PATHS, OFFSETS, OFFSETS), CONTENTS, st.integers(0, BLOCK)), max_size=5),
    )
    def compose(self, client: int, goal: str, parts: list[tuple[str, int, int] | bytes | int]) -> None:
        """A file of ranges, new bytes and zeros."""
        pieces: list[Piece] = []
        made = b""
        known = True
        for part in parts:
            if isinstance(part, tuple):
                path, offset, length = part
                content = self.tree[path].content if path in self.tree else b""
                length = length if length % 3 else min(length, max(0, len(content) - offset))
                known = known and (length == 0 or (path in self.tree and offset + length <= len(content)))
                pieces.append(Range(path, offset, length))
                made += content[offset : offset + length]
            elif isinstance(part, bytes):
                pieces.append(data(part))
                made += part
            else:
                pieces.append(Zeros(part))
                made += bytes(part)

        def expected() -> None:
            if goal in self.tree or not known:
                raise KeyError(goal)
            self.tree[goal] = Node(made)

        self._both(client, expected, lambda fs: fs.compose(goal, pieces))

    @rule(client=CLIENTS, source=PATHS, goal=PATHS, soff=OFFSETS, doff=OFFSETS, length=OFFSETS)
    def copy_range(self, client: int, source: str, goal: str, soff: int, doff: int, length: int) -> None:
        """Share a range in place."""
        if source == goal or self._same(source, goal):
            return

        def expected() -> None:
            part = self.tree[source].content[soff : soff + length]
            self.tree[goal].write(doff, part)

        self._both(client, expected, lambda fs: fs.copy_range(source, soff, goal, doff, length))

    @rule(client=CLIENTS, path=PATHS)
    def compact(self, client: int, path: str) -> None:
        """Make one slice of many; nobody sees it, not even who has the file open."""
        fs = self._files(client)
        if path in self.tree:
            self.clients[client].vfs.compact(fs.stat(path).ino, 0)

    @rule(client=CLIENTS)
    def collect(self, client: int) -> None:
        """Delete what nobody needs."""
        self.clients[client].collect()

    @rule(client=CLIENTS)
    def reopen(self, client: int) -> None:
        """A client goes and comes back; what it holds open is committed and gone."""
        if client == 0:
            self.held.clear()
        self.clients[client].close()
        self.clients[client] = self._client()

    @rule(client=CLIENTS, path=PATHS)
    def read(self, client: int, path: str) -> None:
        """One client reads what any wrote."""
        fs = self._files(client)
        if path in self.tree:
            assert fs.read_bytes(path) == self.tree[path].content
            assert fs.stat(path).size == len(self.tree[path].content)
        else:
            assert not fs.exists(path)

    @invariant()
    def names_agree(self) -> None:
        """The tree has the model's names."""
        fs = self.clients[0].files
        found = [f"{top}/{name}" for top in ("", "/d", "/d/e") for name in fs.listdir(top)]
        assert sorted(found) == sorted([*self.tree, "/d", "/d/e"])

    def teardown(self) -> None:
        """Everything agrees, and the volume is sound."""
        try:
            for file, _ in self.held:
                file.close()
            for client in self.clients:
                assert contents(client.files) == {path: node.content for path, node in self.tree.items()}
            self.clients[1].sync()
            self.clients[1].collect()
            assert_sound(self.clients[0])
        finally:
            for client in self.clients:
                with suppress(FsError):
                    client.close()
            forget_memory(self.at.removeprefix("memory://"))
            shutil.rmtree(self.place)


def run(kind: str, examples: int, server: RedisServer | None = None) -> None:
    """So many histories on a kind of engine."""
    machine: type[FilesMachine] = type("Machine", (FilesMachine,), {"kind": kind, "server": server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


@pytest.mark.parametrize(("kind", "examples"), [("memory", 80), ("sqlite", 15)])
def test_volume_is_a_dict_of_bytes(kind: str, examples: int) -> None:
    run(kind, examples)


@pytest.mark.redis
def test_volume_on_redis_is_a_dict_of_bytes(redis_server: RedisServer) -> None:
    run("redis", 10, redis_server)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_long_histories(kind: str) -> None:
    run(kind, 1500)
