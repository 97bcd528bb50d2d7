"""fsspec on a volume: URLs, listings, ranges, copies, and the libraries that read through it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fscore.admin.format import format_volume
from fscore.client.fsspec_fs import FscoreFileSystem
from fscore.domain.errors import Exists, NotFound, SettingError
from fscore.volume import open_volume
from tests.kit.volumes import assert_sound


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite3://{tmp_path / 'meta.db'}"
    format_volume(url, "spec", bucket=str(tmp_path / "objects"), block_size="64K", trash_days=0)
    return url


@pytest.fixture
def fs(url: str) -> Iterator[FscoreFileSystem]:
    fsspec.register_implementation("fscore", FscoreFileSystem, clobber=True)
    with open_volume(url, background=False) as volume:
        fs = FscoreFileSystem(volume=volume, skip_instance_cache=True)
        yield fs
        assert_sound(volume)


def test_the_entry_point_is_declared() -> None:
    assert fsspec.get_filesystem_class("fscore") is FscoreFileSystem


def test_urls_name_the_volume(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = tmp_path / "volumes.toml"
    book.write_text(f'[models]\nmeta = "{url}"\nbackground = false\n')
    monkeypatch.setenv("FSCORE_VOLUMES", str(book))
    with fsspec.open("fscore://models/dir/f.txt", "wb") as file:
        file.write(b"by name")
    quoted = urllib.parse.quote(url, safe="")
    with fsspec.open(f"fscore://{quoted}/dir/f.txt", "rb") as file:
        assert file.read() == b"by name"
    with fsspec.open("fscore://models/dir/f.txt", "r") as text:
        assert text.read() == "by name"
    fs, path = fsspec.core.url_to_fs("fscore://models/dir/f.txt")
    assert path == "/dir/f.txt"
    assert fs is fsspec.filesystem("fscore", volume="models")
    assert fsspec.open(fs.unstrip_protocol(path), "rb").fs.volume.setting.uuid == fs.volume.setting.uuid
    with pytest.raises(SettingError):
        fsspec.filesystem("fscore")
    with pytest.raises(SettingError):
        fsspec.open("fscore://unknown/f", "rb").open()
    for one in list(FscoreFileSystem._cache.values()):
        one.volume.close()
    FscoreFileSystem.clear_instance_cache()


def test_tree(fs: FscoreFileSystem) -> None:
    fs.makedirs("/a/b", exist_ok=True)
    fs.makedirs("/a/b", exist_ok=True)
    with pytest.raises(Exists):
        fs.makedirs("/a/b")
    fs.pipe({"/a/one": b"1" * 10, "/a/b/two": b"2" * 20})
    assert fs.ls("/a", detail=False) == ["/a/b", "/a/one"]
    assert [(entry["name"], entry["type"], entry["size"]) for entry in fs.ls("/a")] == [
        ("/a/b", "directory", 0),
        ("/a/one", "file", 10),
    ]
    assert fs.find("/a") == ["/a/b/two", "/a/one"]
    assert fs.glob("/a/**/t*") == ["/a/b/two"]
    assert fs.du("/a") == 30
    assert fs.isdir("/a")
    assert fs.isfile("/a/one")
    assert not fs.exists("/absent")
    with pytest.raises(NotFound):
        fs.info("/absent")
    assert [(top, sorted(dirs), sorted(files)) for top, dirs, files in fs.walk("/a")] == [
        ("/a", ["b"], ["one"]),
        ("/a/b", [], ["two"]),
    ]
    fs.mv("/a/one", "/a/b")
    fs.mv("/a/b/one", "/a/uno")
    fs.rm("/a/b", recursive=True)
    assert fs.find("/") == ["/a/uno"]
    assert fs.created("/a/uno").tzinfo is not None
    assert fs.modified("/a/uno") <= fs.created("/a/uno")


def test_content(fs: FscoreFileSystem) -> None:
    content = bytes(range(256)) * 1000
    with fs.open("/f", "wb") as file:
        file.write(content)
    with fs.open("/f", "ab") as file:
        file.write(b"end")
    assert fs.cat_file("/f") == content + b"end"
    assert fs.cat_file("/f", 10, 20) == content[10:20]
    assert fs.cat_file("/f", -3) == b"end"
    assert fs.cat_file("/f", 255_990, -1) == content[255_990:] + b"en"
    assert fs.cat_ranges(["/f", "/f"], [0, 100], [5, 103]) == [content[:5], content[100:103]]
    assert fs.head("/f", 4) == content[:4]
    assert fs.tail("/f", 4) == content[-1:] + b"end"
    before = fs.ukey("/f")
    fs.pipe_file("/f", b"other")
    assert fs.ukey("/f") != before
    with pytest.raises(Exists):
        fs.pipe_file("/f", b"again", mode="create")


def test_copies_share_bytes(fs: FscoreFileSystem) -> None:
    fs.makedirs("/src/sub")
    fs.pipe_file("/src/sub/f", b"x" * 100_000)
    before = sum(1 for _ in fs.volume.objects.scan("chunks/"))
    fs.copy("/src/sub/f", "/copy")
    fs.copy("/src/", "/all/", recursive=True)
    fs.copy("/copy", "/all/sub/f")
    assert fs.cat_file("/all/sub/f") == fs.cat_file("/copy") == b"x" * 100_000
    assert sum(1 for _ in fs.volume.objects.scan("chunks/")) == before


def test_up_and_down(fs: FscoreFileSystem, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "f").write_bytes(b"local bytes")
    fs.put(str(tmp_path / "local"), "/up", recursive=True)
    assert fs.cat_file("/up/f") == b"local bytes"
    fs.get("/up", str(tmp_path / "down"), recursive=True)
    assert (tmp_path / "down" / "f").read_bytes() == b"local bytes"


def test_pandas_reads_through_it(fs: FscoreFileSystem) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": range(1000), "b": [f"row {n}" for n in range(1000)]})
    with fs.open("/t.csv", "w") as file:
        frame.to_csv(file, index=False)
    with fs.open("/t.csv", "rb") as file:
        pd.testing.assert_frame_equal(pd.read_csv(file), frame)


def test_safetensors_reads_through_it(fs: FscoreFileSystem) -> None:
    from safetensors.numpy import load, save

    tensors: dict[str, np.ndarray] = {
        "w": np.arange(30_000, dtype=np.float32).reshape(300, 100),
        "b": np.ones(7, dtype=np.int64),
    }
    fs.pipe_file("/m.safetensors", save(tensors))
    loaded = load(fs.cat_file("/m.safetensors"))
    assert all(np.array_equal(loaded[name], tensors[name]) for name in tensors)
