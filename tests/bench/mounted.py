"""The contenders of the mount bench: the disk itself, our mount on each transport, the official client."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Self

from fscore.admin.format import format_volume
from fscore.domain.caller import Caller
from fscore.volume import open_volume
from tests.bench.mount_work import forget_pages
from tests.kit import ceph
from tests.kit.redis_server import RedisServer

WAIT_S: Final = 60.0
ROOT: Final = Path(__file__).parents[2]
ROOM: Final = ("--free-space-ratio", "0.02")
"""For all alike: a disk that others have filled must not decide who caches."""


class Place:
    """Where volumes are made: a Redis or SQLite files for the tree, a folder or a gateway of Ceph's for the bytes."""

    def __init__(self, top: Path, *, meta: str, store: str) -> None:
        """`store` is file, s3 (a gateway is started) or the http URL of a server that runs, keys in AWS_* variables."""
        self.top = top
        self._endpoint = store if "://" in store else ""
        self._keys = (ceph.ACCESS, ceph.SECRET)
        if self._endpoint:
            self._keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        self._redis = RedisServer(top) if meta == "redis" else None
        self._ceph = ceph.Ceph(top / "ceph") if store == "s3" else None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        if self._redis is not None:
            self._redis.start()
        if self._ceph is not None:
            ceph.ensure_installed()
            (self.top / "ceph").mkdir()
            self._ceph.start()
            self._endpoint = self._ceph.endpoint
        return self

    def __exit__(self, *exc: object) -> None:
        if self._redis is not None:
            self._redis.stop()
        if self._ceph is not None:
            self._ceph.stop()

    def new_volume(self, label: str) -> str:
        """META-URL of a fresh volume: 4 MiB blocks, no compression, no trash."""
        url = self._redis.fresh_url() if self._redis is not None else f"sqlite3://{self.top / label}.db"
        if not self._endpoint:
            format_volume(url, f"bench-{label}", bucket=str(self.top / "objects") + "/", trash_days=0)
            return url
        bucket = self._new_bucket()
        format_volume(
            url,
            f"bench-{label}",
            storage="s3",
            bucket=bucket,
            access_key=self._keys[0],
            secret_key=self._keys[1],
            trash_days=0,
        )
        return url

    def _new_bucket(self) -> str:
        import boto3

        name = f"bench-{os.getpid()}-{next(self._numbers)}"
        client = boto3.client(
            "s3",
            endpoint_url=self._endpoint,
            aws_access_key_id=self._keys[0],
            aws_secret_access_key=self._keys[1],
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        return f"{self._endpoint}/{name}"


class Contender:
    """A directory to work in, and what can be done to its caches."""

    can_chill = False

    def __init__(self, label: str, base: Path) -> None:
        self.label = label
        self.base = base

    def warm(self, path: Path) -> None:
        """Read a file so often that every cache has it."""
        for _ in range(2):
            with path.open("rb", buffering=0) as file:
                while file.read(4 << 20):
                    pass

    def forget(self, path: Path) -> None:
        """Drop what the kernel holds of the file above the mount."""
        forget_pages(path)

    def chill(self) -> None:
        """Empty every cache, the kernel's too, where that can be done."""

    def make_whole(self, path: Path) -> bool:
        """Bring the file whole into the cache and make it immutable; whether that is known here."""
        return False

    def close(self) -> None:
        """Unmount."""


class Mounted(Contender):
    """What somebody else mounted."""

    def __init__(self, label: str, path: str) -> None:
        super().__init__(label, Path(path))


class Local(Contender):
    """A folder on the disk below all others."""

    def __init__(self, place: Place) -> None:
        super().__init__("local", place.top / "local")
        self.base.mkdir()

    def forget(self, path: Path) -> None:
        """Nothing: what it is compared with is the page cache."""

    def make_whole(self, path: Path) -> bool:
        """It is."""
        self.warm(path)
        return True


class Daemon(Contender, ABC):
    """A mount that this bench starts, in the foreground of a process of its own."""

    can_chill = True

    def __init__(self, place: Place, label: str) -> None:
        super().__init__(label, place.top / f"mnt-{label}")
        self.url = place.new_volume(label)
        self.cache = place.top / f"cache-{label}"
        self._log = place.top / f"{label}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.base.mkdir()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the mount."""

    def start(self) -> None:
        """Mount and wait until it is there."""
        self.cache.mkdir(exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=ROOT)
        deadline = time.monotonic() + WAIT_S
        while not os.path.ismount(self.base):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"{self.label} does not mount: {self._log.read_text()[-800:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Unmount and wait until the process is gone."""
        if self._process is None:
            return
        subprocess.run(["umount", str(self.base)], check=False, capture_output=self._process.poll() is not None)
        try:
            self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", str(self.base)], check=False)
            self._process.kill()
            self._process.wait()
        self._process = None

    def chill(self) -> None:
        """Mount anew with an empty cache directory and an empty page cache."""
        self.stop()
        shutil.rmtree(self.cache)
        drop_pages()
        self.start()

    def close(self) -> None:
        """Unmount."""
        self.stop()


class Ours(Daemon):
    """Our mount on one transport."""

    def __init__(self, place: Place, transport: str) -> None:
        self.transport = transport
        super().__init__(place, transport)

    def command(self) -> list[str]:
        """The command line of the mount."""
        program = [sys.executable, "-m", "fscore.cli.main", "mount", self.url, str(self.base)]
        return [*program, "--transport", self.transport, "--cache-dir", str(self.cache), *ROOM]

    def make_whole(self, path: Path) -> bool:
        """Make it immutable and read it until the cache holds it whole."""
        with open_volume(self.url) as volume:
            volume.as_caller(Caller.root()).set_immutable("/" + str(path.relative_to(self.base)), on=True)
        deadline = time.monotonic() + WAIT_S
        while not self._lies_whole(path.stat().st_size):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.label}: {path} is not whole in the cache after {WAIT_S:.0f} s of reading")
            self.forget(path)
            self.warm(path)
            time.sleep(0.5)
        self.warm(path)
        return True

    def _lies_whole(self, size: int) -> bool:
        return any(
            found.stat().st_size == size and found.with_suffix(".sums").exists()
            for found in self.cache.glob("*/whole/*/*.bytes")
        )


class Official(Daemon):
    """The official client, metadata backups off, everything else as it comes."""

    def __init__(self, place: Place, program: str) -> None:
        self.program = program
        super().__init__(place, "official")

    def command(self) -> list[str]:
        """The command line of the mount."""
        return [
            *(self.program, "mount", self.url, str(self.base), "--no-usage-report", "--backup-meta", "0"),
            *("--cache-dir", str(self.cache), *ROOM),
        ]


def drop_pages() -> None:
    """Empty the kernel's page, entry and inode caches; needs root, else nothing happens."""
    os.sync()
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3")
