"""Bringing a model within reach: selection, hub, S3-like listings, resume, refusals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fscore.domain.errors import FsError, HubError, SettingError, StoreError
from fscore.objects.registry import open_store
from fscore.runtime.progress import NoProgress
from fscore.volume import open_volume
from fscore_airflow.acquire.fetch import Request, acquire, fetch_file
from fscore_airflow.acquire.select import select_files
from fscore_airflow.acquire.source import opened
from tests.airflow.conftest import Clouds
from tests.kit.hub_server import Hub, hub_server
from tests.kit.s3_server import S3Server

LOG = logging.getLogger("acquire")
LISTING = [
    ("config.json", 10),
    ("model-00001-of-00002.safetensors", 1000),
    ("model-00002-of-00002.safetensors", 900),
    ("model.safetensors.index.json", 20),
    ("pytorch_model-00001-of-00001.bin", 1900),
    ("pytorch_model.bin.index.json", 20),
    ("onnx/model.onnx", 500),
    ("old/pytorch_model.bin", 77),
    ("README.md", 5),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with two formats of the same weights."""
    root = tmp_path / "model"
    root.mkdir()
    (root / "config.json").write_text("{}")
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 8192)
    (root / "pytorch_model.bin").write_bytes(b"\x80\x04pickle" * 1000)
    (root / "README.md").write_text("# small")
    return root


@pytest.fixture
def hub(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with that model, and HF_ENDPOINT pointing at it."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with hub_server({"org/small": model}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def request(uri: str, workspace: Path, **fields: object) -> Request:
    """A request into that workspace."""
    return Request(uri=uri, workspace=str(workspace), **fields)  # type: ignore[arg-type]


def test_safetensors_are_preferred_over_pickles_of_the_same_directory() -> None:
    """The pickle beside safetensors goes, the one that nothing replaces stays."""
    selection = select_files(LISTING)
    kept = {path for path, _ in selection.kept}
    assert "pytorch_model-00001-of-00001.bin" not in kept
    assert "pytorch_model.bin.index.json" not in kept
    assert "old/pytorch_model.bin" in kept
    assert {(path, why) for path, _, why in selection.dropped} == {
        ("pytorch_model-00001-of-00001.bin", "safetensors preferred"),
        ("pytorch_model.bin.index.json", "safetensors preferred"),
    }
    assert selection.bytes_kept + selection.bytes_dropped == sum(size for _, size in LISTING)


def test_allowed_pickles_are_kept() -> None:
    """With allow_pickle only the patterns decide."""
    assert select_files(LISTING, allow_pickle=True).kept == sorted(LISTING)


def test_excluded_beats_included() -> None:
    """Patterns as everywhere else in fscore."""
    selection = select_files(LISTING, include=["*.safetensors", "*.json"], exclude=["*index*"])
    assert [path for path, _ in selection.kept] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_local_directory_is_used_where_it_lies(model: Path, tmp_path: Path) -> None:
    """No copy, and what the selection drops cannot be opened."""
    report = acquire(request(str(model), tmp_path / "work"), LOG, NoProgress())
    assert report.source.path == str(model)
    assert report.bytes_fetched == 0
    assert report.files == 3
    assert not (tmp_path / "work").exists()
    with opened(report.source) as source:
        assert "pytorch_model.bin" not in [path for path, _ in source.files()]
        with pytest.raises(HubError, match="not among the selected"):
            source.open("pytorch_model.bin")


def test_a_hub_repository_is_pinned_to_its_commit(hub: Hub, model: Path, tmp_path: Path) -> None:
    """Only selected files travel, at the commit that the branch named."""
    report = acquire(request("hf://org/small@main", tmp_path), LOG, NoProgress())
    assert report.source.revision == hub.commit("org/small")
    assert (
        report.bytes_fetched
        == report.bytes_total
        == sum((model / name).stat().st_size for name in ("config.json", "model.safetensors", "README.md"))
    )
    assert hub.sent["pytorch_model.bin"] == 0
    with opened(report.source) as source:
        reader = source.open("model.safetensors")
        assert reader.pread(0, reader.size) == (model / "model.safetensors").read_bytes()
        reader.close()


def test_a_second_try_fetches_only_what_is_missing(hub: Hub, model: Path, tmp_path: Path) -> None:
    """The task was killed after some files: those are not fetched again."""
    acquire(request("hf://org/small", tmp_path, include=["*.json", "*.md"]), LOG, NoProgress())
    sent = dict(hub.sent)
    report = acquire(request("hf://org/small", tmp_path), LOG, NoProgress())
    assert report.bytes_fetched == (model / "model.safetensors").stat().st_size
    assert {name: hub.sent[name] for name in sent} == sent
    again = acquire(request("hf://org/small", tmp_path), LOG, NoProgress())
    assert again.bytes_fetched == 0


def test_a_cut_connection_is_gone_on_with(hub: Hub, model: Path, tmp_path: Path) -> None:
    """The transfer continues by range, not from the start."""
    size = (model / "model.safetensors").stat().st_size
    hub.cut["model.safetensors"] = size // 2

    def heal(_: object) -> float:
        hub.cut.clear()
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", heal)
        patch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
        acquire(request("hf://org/small", tmp_path), LOG, NoProgress())
    assert hub.sent["model.safetensors"] == size


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("hf://org/absent", "org/absent"),
        ("hf://org/small@deadbeef", "deadbeef"),
        ("gopher://x/y", "no known kind"),
        ("models/here", "relative path"),
        ("/nowhere/at/all", "does not exist"),
    ],
)
def test_a_wrong_source_is_refused_in_one_line(hub: Hub, tmp_path: Path, uri: str, says: str) -> None:
    """Every mistake names itself."""
    with pytest.raises(HubError, match=says) as refusal:
        acquire(request(uri, tmp_path), LOG, NoProgress())
    assert "\n" not in str(refusal.value)


def test_local_sources_may_be_confined(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With FSCORE_SOURCE_ROOTS a worker's other directories are no sources, not even through a link."""
    monkeypatch.setenv("FSCORE_SOURCE_ROOTS", f"/data:{tmp_path / 'inbox'}")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "link").symlink_to(model)
    for path in (model, tmp_path / "inbox" / "link", tmp_path / "inbox" / ".." / "model"):
        with pytest.raises(HubError, match="is not below") as refusal:
            acquire(request(str(path), tmp_path), LOG, NoProgress())
        assert refusal.value.kind == "denied"
    monkeypatch.setenv("FSCORE_SOURCE_ROOTS", str(tmp_path))
    assert acquire(request(str(model), tmp_path), LOG, NoProgress()).files == 3


def test_nothing_left_is_refused(model: Path, tmp_path: Path) -> None:
    """Patterns that match nothing are a mistake, not an empty model."""
    with pytest.raises(HubError, match="no file is left"):
        acquire(request(str(model), tmp_path, include=["*.gguf"]), LOG, NoProgress())


def test_a_file_is_fetched_by_ranges_and_gone_on_with(tmp_path: Path) -> None:
    """The bytes that are on disk are not asked for again."""
    data = bytes(range(256)) * 100_000
    asked: list[tuple[int, int]] = []

    def piece(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        if len(asked) == 2:
            raise ConnectionError("the network is gone")
        return data[offset : offset + length]

    with pytest.raises(ConnectionError):
        fetch_file(piece, tmp_path, "a/weights.bin", len(data))
    first = asked[0][1]
    assert fetch_file(piece, tmp_path, "a/weights.bin", len(data)) == len(data) - first
    assert (tmp_path / "a/weights.bin").read_bytes() == data
    assert asked[2][0] == first
    assert fetch_file(piece, tmp_path, "a/weights.bin", len(data)) == 0


def test_a_path_that_climbs_out_is_refused(tmp_path: Path) -> None:
    """A listing from outside is not trusted."""
    with pytest.raises(HubError, match="leaves the model directory"):
        fetch_file(lambda *_: b"x", tmp_path, "../evil", 1)


def test_a_directory_of_a_volume_is_used_where_it_lies(clouds: Clouds, model: Path, tmp_path: Path) -> None:
    """`fscore://connection/path`: no bytes move, and a wrong path is refused."""
    with open_volume(clouds.url(clouds.home)) as volume:
        volume.files.mkdir("/in/small", parents=True)
        for file in model.iterdir():
            volume.files.write_bytes(f"/in/small/{file.name}", file.read_bytes())
    report = acquire(request(f"fscore://{clouds.home}/in/small", tmp_path / "work"), LOG, NoProgress())
    assert (report.source.volume, report.source.path) == (clouds.home, "/in/small")
    assert report.bytes_fetched == 0
    with opened(msgspec.to_builtins(report.source)) as source:
        assert [path for path, _ in source.files()] == ["README.md", "config.json", "model.safetensors"]
        assert [path for path, _, _ in source.stats()] == ["README.md", "config.json", "model.safetensors"]
    with pytest.raises(HubError, match="not a directory"):
        acquire(request(f"fscore://{clouds.home}/in/absent", tmp_path), LOG, NoProgress())


@pytest.mark.s3
@pytest.mark.xdist_group("ceph")
def test_an_s3_prefix_is_downloaded_and_gone_on_with(
    s3_server: S3Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the selected keys below the prefix, each once; a wrong bucket says so."""
    bucket = s3_server.new_bucket()
    store = open_store("s3", bucket, access_key=s3_server.access_key, secret_key=s3_server.secret_key)
    for file in model.iterdir():
        store.put(f"models/small/{file.name}", file.read_bytes())
    store.put("models/smaller/other.json", b"{}")
    store.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    uri = f"s3://{bucket.rsplit('/', 1)[-1]}/models/small"
    report = acquire(request(uri, tmp_path), LOG, NoProgress())
    assert report.files == 3
    assert report.bytes_fetched == report.bytes_total
    with opened(report.source) as source:
        reader = source.open("model.safetensors")
        assert reader.pread(0, reader.size) == (model / "model.safetensors").read_bytes()
        reader.close()
    assert acquire(request(uri, tmp_path), LOG, NoProgress()).bytes_fetched == 0
    with pytest.raises((HubError, StoreError, SettingError, FsError)) as refusal:
        acquire(request("s3://no-such-bucket/x", tmp_path), LOG, NoProgress())
    assert "no-such-bucket" in str(refusal.value)
