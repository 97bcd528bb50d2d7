"""Directories, indexes, configs, torch archives, inert pickles and GGUF: what is read, what is refused."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pickle
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.errors import HubError
from fscore.hub.formats import gguf
from fscore.hub.formats.api import CutShort, FormatError, UnsafeError, check_relative, read_whole
from fscore.hub.formats.config import normalise, parse_config
from fscore.hub.formats.detect import kind_of, scan_model
from fscore.hub.formats.index import parse_index, shard_number
from fscore.hub.formats.inert import Inert, Made
from fscore.hub.formats.source import LocalSource
from fscore.hub.formats.torch_zip import check_sums, read_torch, suspicious, walk_tensors
from tests.kit import tampering

PLAIN = Path(__file__).resolve().parents[2] / "golden" / "checkpoints" / "plain"


@pytest.fixture
def model(mini: Callable[[str], Path], tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(mini("llama"), target)
    return target


def problems(folder: Path) -> list[tuple[str, str]]:
    return [(problem.kind, problem.where) for problem in scan_model(LocalSource(folder)).problems]


@pytest.mark.parametrize("rel", ["../x", "/x", "a/../x", "a//b", "./x", "", "a\\b", "a\0b", "a/", ".."])
def test_paths_that_escape(rel: str) -> None:
    with pytest.raises(UnsafeError):
        check_relative(rel)


def test_plain_paths() -> None:
    assert check_relative("a/b.c/..d") == "a/b.c/..d"


def test_links(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (model / "inside").symlink_to("config.json")
    source = LocalSource(model)
    assert dict(source.files())["inside"] == (model / "config.json").stat().st_size
    assert source.open("inside").pread(0, 1) == b"{"
    (model / "outside").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match="outside is a link that leaves the model directory"):
        source.files()
    with pytest.raises(UnsafeError, match="outside"):
        source.open("outside")
    (model / "outside").unlink()
    (model / "folder").symlink_to(model)
    with pytest.raises(UnsafeError, match="folder is a link to a directory"):
        source.files()
    (model / "folder").unlink()
    (model / "nowhere").symlink_to("missing")
    with pytest.raises(UnsafeError, match="nowhere is a link to nothing"):
        source.files()
    assert "nowhere" not in dict(LocalSource(model, skip_links=True).files())


def test_the_cache_of_the_hub_may_link_to_its_blobs(model: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    shutil.copy(model / "config.json", repo / "blobs" / "1")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert LocalSource(snapshot).files() == [("config.json", (model / "config.json").stat().st_size)]
    (snapshot / "evil").symlink_to("../../../secret")
    (tmp_path / "secret").write_text("x")
    with pytest.raises(UnsafeError):
        LocalSource(snapshot).files()


def test_pipes_and_missing_directories(model: Path, tmp_path: Path) -> None:
    os.mkfifo(model / "pipe")
    with pytest.raises(UnsafeError, match="pipe is neither a file nor a directory"):
        LocalSource(model).files()
    with pytest.raises(HubError, match="does not exist"):
        LocalSource(tmp_path / "none")
    with pytest.raises(HubError, match="is not a directory"):
        LocalSource(model / "config.json")
    with pytest.raises(HubError, match=r"gone\.json is missing"):
        LocalSource(model).open("gone.json")


def test_our_records_and_version_control_are_no_model(model: Path) -> None:
    for name in (".fscore", ".git", ".cache"):
        (model / name).mkdir()
        (model / name / "x").touch()
    assert not any(path.startswith(".") for path, _ in LocalSource(model).files())


def test_reads_at_any_offset(model: Path) -> None:
    reader = LocalSource(model).open("config.json")
    data = (model / "config.json").read_bytes()
    assert reader.pread(3, 10) == data[3:13]
    assert reader.pread(len(data) - 2, 10) == data[-2:]
    assert reader.pread(len(data), 10) == b""
    reader.close()
    reader.close()
    with pytest.raises(FormatError, match="too many"):
        read_whole(LocalSource(model), "config.json", limit=10)


def test_sound_models_have_no_problems(mini: Callable[[str], Path], minilm: Path) -> None:
    for folder in (mini("llama"), mini("qwen3_moe"), mini("bert"), minilm):
        scan = scan_model(LocalSource(folder))
        assert scan.problems == ()
        assert scan.format == "safetensors"


def test_index_problems(model: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    path, _, _ = tampering.find(model, name)
    other = next(file for file in sorted(model.glob("model-*.safetensors")) if file != path)
    tampering.edit_index(model, **{name.replace(".", "__"): other.name})
    assert problems(model) == [("missing_tensor", name), ("stray_tensor", name)]
    tampering.edit_index(model, **{name.replace(".", "__"): "model-00009-of-00009.safetensors"})
    found = problems(model)
    assert ("missing_shard", "model-00009-of-00009.safetensors") in found
    assert ("mixed_shards", "model.safetensors.index.json") in found


def test_a_variant_beside_the_shards_is_no_duplicate(model: Path) -> None:
    shutil.copy(min(model.glob("model-*.safetensors")), model / "model.fp16.safetensors")
    assert problems(model) == []
    (model / "model.safetensors.index.json").unlink()
    assert {kind for kind, _ in problems(model)} == {"duplicate_tensor"}


def test_two_sets_of_weights_in_one_folder(model: Path) -> None:
    """As Mistral publishes them: shards with their index, and consolidated shards with an index of their own."""
    whole = scan_model(LocalSource(model))
    body = json.loads((model / "model.safetensors.index.json").read_text())
    renamed = {name: file.replace("model-", "consolidated-") for name, file in body["weight_map"].items()}
    for file in sorted(model.glob("model-*.safetensors")):
        shutil.copy(file, model / file.name.replace("model-", "consolidated-"))
    (model / "consolidated.safetensors.index.json").write_text(json.dumps({**body, "weight_map": renamed}))
    scan = scan_model(LocalSource(model))
    assert scan.problems == ()
    assert scan.proper == whole.proper
    assert len(scan.tensors) == 2 * len(whole.tensors)


def test_a_whole_file_is_the_model_and_its_neighbours_stand_alone(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mini("llama"), folder, ignore=shutil.ignore_patterns("model*"))
    shard = min(mini("llama").glob("model-*.safetensors"))
    for name in ("model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"):
        shutil.copy(shard, folder / name)
    scan = scan_model(LocalSource(folder))
    assert scan.problems == ()
    assert {entry.file for entry in scan.proper} == {"model.safetensors"}


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/../../x"])
def test_an_index_that_leaves_the_directory(shard: str) -> None:
    body = json.dumps({"weight_map": {"a": shard}}).encode()
    with pytest.raises(UnsafeError, match="index: tensor a: path"):
        parse_index(body, "index")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"weight_map": [1]}', b'{"weight_map": {"a": 1}}', b"\xff"])
def test_what_is_no_index(body: bytes) -> None:
    with pytest.raises(FormatError, match=r"^index"):
        parse_index(body, "index")


def test_shard_names() -> None:
    assert shard_number("model-00002-of-00010.safetensors") == ("model", 2, 10)
    assert shard_number("model.safetensors") is None


def test_suspicious_files_are_told(model: Path) -> None:
    for name in ("pytorch_model.bin", "x.pkl", "a.ckpt", "run.so", "code.py", "half.tmp"):
        (model / name).write_bytes(b"x")
    tampering.edit_json(model / "config.json", auto_map={"AutoModel": "code.Model"})
    found = dict.fromkeys(kind for kind, _ in problems(model))
    assert set(found) == {"pickle", "executable", "remote_code", "leftover"}


def test_file_classes() -> None:
    kinds = {
        "model.safetensors": "weight", "a/tokenizer.json": "tokenizer", "vocab.txt": "tokenizer", "README.md": "doc",
        "LICENSE": "doc", "modeling.py": "code", "train.parquet": "dataset", "config.json": "weight.config",
        ".gitattributes": "doc",
    }  # fmt: skip
    assert {path: kind_of(path) for path in kinds} == kinds


def test_config_names() -> None:
    config = normalise({"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 3, "n_inner": None})
    assert (config.hidden, config.heads, config.kv_heads, config.head_dim, config.intermediate) == (8, 2, 2, 4, 32)
    assert config.tied
    nested = normalise({"architectures": ["X"], "text_config": {"model_type": "llama", "hidden_size": 4}})
    assert (nested.model_type, nested.hidden) == ("llama", 4)
    for wrong in ({"hidden_size": "8"}, {"hidden_size": -1}, {"num_hidden_layers": True}):
        with pytest.raises(FormatError, match="must be a whole number"):
            normalise(wrong)
    with pytest.raises(FormatError, match="names a twice"):
        parse_config(b'{"a": 1, "a": 2}')


def test_a_real_torch_file() -> None:
    reader = LocalSource(PLAIN).open("model.pt")
    archive = read_torch(reader, "model.pt")
    found = {entry.name: entry for entry in archive.tensors}
    assert {name: (entry.dtype, entry.shape) for name, entry in found.items()} == {
        "model.weight": ("BF16", (4, 8)),
        "model.tied": ("BF16", (4, 8)),
        "model.lower": ("BF16", (2, 8)),
        "model.turned": ("I64", (3, 2)),
        "model.parameter": ("F32", (2,)),
        "model.small": ("F8_E4M3", (3,)),
    }
    assert archive.strided == ("model.turned",)
    assert found["model.weight"].offset == found["model.tied"].offset
    assert found["model.lower"].offset == found["model.weight"].offset + 32
    raw = reader.pread(found["model.weight"].offset, 64)
    assert [value << 16 for value in struct.unpack("<32H", raw)] == [
        struct.unpack("<I", struct.pack("<f", float(value)))[0] for value in range(32)
    ]
    assert archive.value["steps"] == [1, {"loss": 2.5}]
    assert archive.value["args"].fields == {"lr": 0.1}
    assert suspicious(archive.names) == []
    assert check_sums(reader, archive, "model.pt") == []


def test_a_flipped_bit_in_a_torch_file(tmp_path: Path) -> None:
    shutil.copy(PLAIN / "model.pt", tmp_path)
    reader = LocalSource(PLAIN).open("model.pt")
    place = next(entry for entry in read_torch(reader, "x").tensors if entry.name == "model.weight").offset
    raw = bytearray((tmp_path / "model.pt").read_bytes())
    raw[place] ^= 1
    (tmp_path / "model.pt").write_bytes(raw)
    reader = LocalSource(tmp_path).open("model.pt")
    assert [p.kind for p in check_sums(reader, read_torch(reader, "model.pt"), "model.pt")] == ["checksum"]


def test_torch_files_that_are_not(tmp_path: Path) -> None:
    whole = (PLAIN / "model.pt").read_bytes()

    def refused(data: bytes) -> str:
        (tmp_path / "x.pt").write_bytes(data)
        with pytest.raises(FormatError) as error:
            read_torch(LocalSource(tmp_path).open("x.pt"), "x.pt")
        return str(error.value)

    assert "a bare pickle" in refused((PLAIN / "legacy.pt").read_bytes())
    assert "does not start as a torch archive" in refused(b"hello")
    assert "does not start as a torch archive" in refused(b"")
    for length in range(4, len(whole), 97):
        assert "cut short" in refused(whole[:length])
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"N." * 100)
    assert "is compressed" in refused((tmp_path / "x.pt").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/other", b"")
    assert "has no data.pkl" in refused((tmp_path / "x.pt").read_bytes())


class _Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_read_and_never_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        read = Inert(pickle.dumps({"a": [1, (2.5, None)], "evil": _Touch(proof)}, protocol))
        assert read.value["a"] == [1, (2.5, None)]
        assert isinstance(read.value["evil"], Made)
        assert read.value["evil"].args == (str(proof),)
        assert any(name.endswith(".mkdir") for name in suspicious(read.names))
    assert not proof.exists()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(plain, st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_plain_values_read_as_they_are(value: object, protocol: int) -> None:
    assert Inert(pickle.dumps(value, protocol)).value == value


@given(st.binary(max_size=60))
def test_rubbish_is_refused_and_not_run(data: bytes) -> None:
    with contextlib.suppress(HubError):
        Inert(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + b"(" * 200_000 + b".",
        b"\x80\x04K\x01" + b"\x85" * 200_000 + b"}\x94h\x00K\x01s.",
        b"\x80\x04]" + b"\x94h\x00a" * 50_000 + b".",
        b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        b"\x80\x04r\xff\xff\xff\xff.",
        b"\x80\x05\x97.",
        b"\x82\x01.",
    ],
    ids=["marks", "deep tuple", "list of itself", "huge bytes", "huge memo", "out of band", "extension"],
)
def test_bombs_do_not_go_off(data: bytes) -> None:
    begun = time.perf_counter()
    with contextlib.suppress(HubError):
        Inert(data)
    assert time.perf_counter() - begun < 10


def test_deep_nesting_is_walked_without_recursion() -> None:
    value: list[object] = []
    for _ in range(10_000):
        value = [value]
    assert list(walk_tensors(value)) == []


def gguf_file(*, alignment: int = 32, offset: int = 0, kind: int = 0, data: int = 64) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    out = b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    out += text("general.alignment") + struct.pack("<II", 4, alignment)
    out += text("names") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    out += text("count") + struct.pack("<IQ", 10, 7)
    out += text("w") + struct.pack("<IQQ", 2, 4, 2) + struct.pack("<IQ", kind, offset)
    return out + bytes(-len(out) % alignment) + bytes(data)


class Memory(io.BytesIO):
    """A file in memory behind the reader's interface."""

    @property
    def size(self) -> int:
        return len(self.getbuffer())

    def pread(self, offset: int, length: int) -> bytes:
        self.seek(offset)
        return self.read(length)


def test_gguf() -> None:
    whole = gguf_file()
    (entry,) = gguf.read_tensors(Memory(whole), "x.gguf")
    assert (entry.name, entry.dtype, entry.shape, entry.nbytes) == ("w", "F32", (2, 4), 32)
    assert entry.offset % 32 == 0
    for length in range(4, len(whole) - 33):
        with pytest.raises((CutShort, FormatError)):
            gguf.read_tensors(Memory(whole[:length]), "x.gguf")
    with pytest.raises(FormatError, match="not aligned"):
        gguf.read_tensors(Memory(gguf_file(offset=8)), "x.gguf")
    with pytest.raises(FormatError, match="unknown type 99"):
        gguf.read_tensors(Memory(gguf_file(kind=99)), "x.gguf")
    with pytest.raises(FormatError, match="not whole blocks of Q4_K"):
        gguf.read_tensors(Memory(gguf_file(kind=12)), "x.gguf")
    with pytest.raises(FormatError, match="does not start with GGUF"):
        gguf.read_tensors(Memory(b"GGML" + bytes(100)), "x.gguf")


def test_storages_of_a_torch_file_never_overlap() -> None:
    tensors = scan_model(LocalSource(PLAIN)).tensors
    assert [(t.name, t.dtype, t.shape, t.nbytes) for t in tensors] == [
        ("model.weight", "BF16", (4, 8), 64),
        ("storage 1", "I64", (6,), 48),
        ("model.parameter", "F32", (2,), 8),
        ("model.small", "F8_E4M3", (3,), 3),
    ]
    assert all(a.end <= b.offset for a, b in itertools.pairwise(tensors))


def test_pieces_of_a_distributed_checkpoint() -> None:
    folder = PLAIN.parent / "dcp" / "step-7"
    scan = scan_model(LocalSource(folder))
    assert scan.format == "dcp"
    found = {tensor.name: tensor for tensor in scan.tensors}
    assert found.keys() == {"model.weight [0, 0]", "model.weight [3, 0]", "model.bias [0]"}
    for start in (0, 3):
        entry = found[f"model.weight [{start}, 0]"]
        reader = LocalSource(folder).open(entry.file)
        values = struct.unpack("<12f", reader.pread(entry.offset, entry.nbytes))
        assert values == tuple(float(number) for number in range(start * 4, start * 4 + 12))
        reader.close()


def test_what_a_pickle_would_call_is_told(tmp_path: Path) -> None:
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(_Touch(tmp_path / "proof")))
    (tmp_path / "text.bin").write_bytes(b"no pickle at all")
    shutil.copy(PLAIN / "model.pt", tmp_path / "evil.pt")
    tampering.edit_pickle(tmp_path / "evil.pt", lambda _: pickle.dumps(_Touch(tmp_path / "proof")))
    told = {p.where: p.detail for p in scan_model(LocalSource(tmp_path)).problems if p.kind == "pickle_globals"}
    assert told.keys() == {"bare.pkl", "evil.pt"}
    assert all("would call posix.mkdir when it is loaded" in detail for detail in told.values())
    assert not (tmp_path / "proof").exists()
