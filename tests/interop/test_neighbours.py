"""fscore and the official JuiceFS client on one volume: each reads, and keeps sound, what the other wrote."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

import fscore
from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.files.compose import Range
from tests.interop import official

pytestmark = official.NEEDED


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sound(url: str) -> None:
    with fscore.open_volume(url) as volume:
        report = fsck(volume)
        assert not report.problems, report.problems


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_the_official_client_reads_what_we_wrote(shared_url: str, tmp_path: Path, compression: str) -> None:
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/", compression=compression)
    big = os.urandom(9 << 20) + bytes(3 << 20)
    with fscore.open_volume(shared_url) as volume:
        files = volume.files
        files.mkdir("/d/e", parents=True)
        files.write_bytes("/d/big", big)
        files.write_bytes("/d/e/small", b"hello")
        files.link("/d/e/small", "/d/linked")
        files.symlink("e/small", "/d/sym")
        files.setxattr("/d/big", "user.k", b"v")
        files.compose("/d/composed", [Range("/d/big", 5, 1 << 20), Range("/d/e/small", 1, 3)])
        files.clone("/d/e", "/d/cloned")
        with files.open("/d/cut", "wb") as cut:
            cut.write(os.urandom(5000))
            cut.flush()
            cut.truncate(100)
        files.write_bytes("/d/gone", b"x" * 10)
        files.unlink("/d/gone")
        files.rename("/d/cloned", "/d/renamed")
        tree = [found.path for _, dirs, plain in files.walk("/") for found in (*dirs, *plain)]
        kept = {
            path: hashlib.sha256(files.read_bytes(path)).hexdigest() for path in ("/d/big", "/d/composed", "/d/cut")
        }
        usage = files.statfs()
    with official.mounted(shared_url, tmp_path / "mnt") as mount:
        for path in tree:
            os.lstat(f"{mount}{path}")
        assert {path: _digest(Path(f"{mount}{path}")) for path in kept} == kept
        assert (mount / "d/sym").read_bytes() == b"hello"
        assert (mount / "d/renamed/small").read_bytes() == b"hello"
        assert (mount / "d/linked").stat().st_nlink == 2
        assert os.getxattr(mount / "d/big", "user.k") == b"v"
        assert len(list((mount / ".trash").iterdir())) == 1
        (mount / "d/e/from-juicefs").write_bytes(b"theirs")
        (mount / "d/big").unlink()
        (mount / "d/renamed/more").mkdir()
    official.fsck(shared_url)
    with fscore.open_volume(shared_url) as volume:
        assert volume.files.read_bytes("/d/e/from-juicefs") == b"theirs"
        assert volume.files.is_dir("/d/renamed/more")
        assert not volume.files.exists("/d/big")
        assert hashlib.sha256(volume.files.read_bytes("/d/composed")).hexdigest() == kept["/d/composed"]
        assert volume.files.statfs().inodes_used >= usage.inodes_used
    _sound(shared_url)


def test_we_read_and_write_what_the_official_client_formatted(shared_url: str, tmp_path: Path) -> None:
    official.juicefs("format", "--storage", "file", "--bucket", f"{tmp_path}/blocks/", shared_url, "theirs")
    data = os.urandom(6 << 20)
    with official.mounted(shared_url, tmp_path / "mnt") as mount:
        (mount / "x/y").mkdir(parents=True)
        (mount / "x/data").write_bytes(data)
        with fscore.open_volume(shared_url) as volume:
            assert volume.files.read_bytes("/x/data") == data
            volume.files.write_bytes("/x/y/ours", data[::-1])
            for number in range(200):
                volume.files.write_bytes(f"/x/f{number}", str(number).encode())
        assert (mount / "x/y/ours").read_bytes() == data[::-1]
        for number in range(0, 200, 7):
            assert (mount / f"x/f{number}").read_bytes() == str(number).encode()
        subprocess.run(["rm", "-r", str(mount / "x/y")], check=True)
        with fscore.open_volume(shared_url) as volume:
            assert not volume.files.exists("/x/y")
    official.fsck(shared_url)
    _sound(shared_url)


def test_both_create_in_one_directory_at_once(shared_url: str, tmp_path: Path) -> None:
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/")
    with official.mounted(shared_url, tmp_path / "mnt") as mount:
        (mount / "both").mkdir()
        theirs = subprocess.Popen(["bash", "-c", f"for i in $(seq 300); do mkdir {mount}/both/j$i; done"])
        with fscore.open_volume(shared_url) as volume:
            for number in range(300):
                volume.files.mkdir(f"/both/f{number}")
            assert theirs.wait(120) == 0
            names = set(volume.files.listdir("/both"))
            assert names == {f"j{i}" for i in range(1, 301)} | {f"f{i}" for i in range(300)}
            time.sleep(1.1)  # what one client knows of another's change is at most a second old
            assert volume.files.stat("/both").attr.nlink == 602
    _sound(shared_url)


def test_immutable_holds_for_the_official_client(shared_url: str, tmp_path: Path) -> None:
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/")
    with fscore.open_volume(shared_url) as volume:
        volume.files.mkdir("/models/v", parents=True)
        volume.files.write_bytes("/models/v/w", b"weights")
        volume.files.set_immutable("/models/v", True, recursive=True)
    with official.mounted(shared_url, tmp_path / "mnt") as mount:
        weights = mount / "models/v/w"
        assert weights.read_bytes() == b"weights"
        for deed in (
            lambda: weights.write_bytes(b"other"),
            weights.unlink,
            lambda: weights.rename(mount / "models/v/z"),
            (mount / "models/v/new").touch,
        ):
            with pytest.raises(PermissionError):
                deed()
        assert weights.read_bytes() == b"weights"
    _sound(shared_url)
