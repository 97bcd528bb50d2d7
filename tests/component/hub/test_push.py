"""Push on real volumes: bytes arrive as they are, only new ones travel, broken ones stay out, resumes do not repeat."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from fscore.domain.errors import HubError, NoSpace
from fscore.hub import records
from fscore.hub.formats.source import LocalSource
from fscore.hub.index import ContentIndex, rebuild_index
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.scan import hash_source
from fscore.volume import Volume
from tests.kit.releases import content_of, local_content, model_dir, noise, release, safetensors, stored
from tests.kit.volumes import MakeVolume, assert_sound

Make = Callable[..., Path]


def test_a_release_on_every_engine(sound_volume: Volume, small_model: Make) -> None:
    source = small_model(README__md=b"# made")
    pushed, info = release(sound_volume, source, "nlp/made", alias="prod")
    assert (pushed.version, pushed.state, pushed.bytes_new) == (1, "staged", pushed.bytes_total)
    assert (info.state, info.path, info.aliases) == ("published", "/models/nlp/made/1", ("prod",))
    assert content_of(sound_volume, "/models/nlp/made/prod") == local_content(source)
    for here, dirs, others in sound_volume.files.walk("/models/nlp/made/1"):
        assert sound_volume.files.stat(here).immutable
        assert all(stat.immutable for stat in [*dirs, *others])
    with pytest.raises(PermissionError):
        sound_volume.files.write_bytes("/models/nlp/made/1/config.json", b"{}")
    with pytest.raises(PermissionError):
        sound_volume.files.rename("/models/nlp/made/1", "/models/nlp/made/9")


def test_the_records_prove_the_files(hub_volume: Volume, small_model: Make) -> None:
    source = small_model()
    pushed = push(
        hub_volume, source, "nlp/made", user="ann", purpose="search", base="nlp/other@2", licenses=["apache-2.0"],
        origin={"kind": "hf", "uri": "hf://a/b"},
    )  # fmt: skip
    manifest = records.read_manifest(hub_volume.files, pushed.path)
    assert manifest.version_digest == pushed.digest
    assert (manifest.purpose, manifest.licenses, manifest.source["uri"]) == ("search", ("apache-2.0",), "hf://a/b")
    assert manifest.base_model == ({"ref": "nlp/other@2", "digest": ""},)
    assert manifest.arch["dtype_hist"] == {"U8": 10}
    assert manifest.totals.tensors == 10
    tensors = records.read_tensors(hub_volume.files, manifest, pushed.path)
    hashed = {file.path: file for file in hash_source(LocalSource(source), tensors)}
    assert {(f.path, f.size, f.md5, f.sha256) for f in manifest.files} == {
        (f.path, f.size, f.digest.md5, f.digest.sha256) for f in hashed.values()
    }
    assert [t.sha256 for t in tensors] == [s.sha256 for s in hashed["model.safetensors"].segments if s.tensor]


def test_the_same_content_is_one_version(hub_volume: Volume, small_model: Make) -> None:
    first = push(hub_volume, small_model(), "nlp/made", user="ann")
    again = push(hub_volume, small_model("copy"), "nlp/made", user="bob")
    assert (again.version, again.digest, again.deduplicated, again.bytes_new) == (1, first.digest, True, 0)
    assert not first.deduplicated
    with pytest.raises(HubError, match="already nlp/made@1"):
        push(hub_volume, small_model(), "nlp/made@2", user="ann")
    assert [event.action for event in Registry(hub_volume).log("nlp/made")] == ["upload", "stage"]


def test_numbers_are_the_next_ones(hub_volume: Volume, small_model: Make) -> None:
    assert push(hub_volume, small_model(), "nlp/made@v1", user="ann").version == 1
    with pytest.raises(HubError, match="next version of nlp/made is 2"):
        push(hub_volume, small_model("b", changed=1), "nlp/made@5", user="ann")
    with pytest.raises(HubError, match="another content") as refused:
        push(hub_volume, small_model("b", changed=1), "nlp/made@1", user="ann")
    assert refused.value.kind == "exists"
    assert push(hub_volume, small_model("b", changed=1), "nlp/made@2", user="ann").version == 2


def test_ten_percent_changed_grows_the_store_by_eleven_at_most(hub_volume: Volume, small_model: Make) -> None:
    first = push(hub_volume, small_model(), "nlp/made", user="ann")
    before = stored(hub_volume)
    second = push(hub_volume, small_model("v2", changed=1), "nlp/made", user="ann")
    grown = stored(hub_volume) - before
    assert second.bytes_new < 0.11 * second.bytes_total
    assert grown < 0.11 * first.bytes_total + (1 << 20)
    assert second.bytes_new + second.bytes_shared == second.bytes_total
    assert content_of(hub_volume, second.path) == local_content(small_model("v2", changed=1))


def test_other_files_of_the_same_tensors_share_them(hub_volume: Volume, tmp_path: Path) -> None:
    tensors = {f"t{n}": noise(100_000, n) for n in range(6)}
    push(hub_volume, model_dir(tmp_path / "a", tensors), "nlp/one", user="ann")
    renamed = {f"model.{name}": data for name, data in reversed(tensors.items())}
    moved = push(hub_volume, model_dir(tmp_path / "b", renamed), "nlp/two", user="ann")
    assert moved.bytes_new < 2000
    assert content_of(hub_volume, moved.path) == local_content(tmp_path / "b")
    elsewhere = push(hub_volume, model_dir(tmp_path / "b", renamed), "vision/two", user="ann")
    assert elsewhere.bytes_new == elsewhere.bytes_total, "another team's bytes cannot be had by their hash"


def test_twins_inside_one_push_are_stored_once(hub_volume: Volume, tmp_path: Path) -> None:
    twin = noise(300_000, 1)
    source = model_dir(tmp_path / "m", {"a": twin, "b": twin, "c": noise(1000, 2)})
    (source / "extra").mkdir()
    (source / "extra" / "twin.dat").write_bytes(twin)
    pushed = push(hub_volume, source, "nlp/twins", user="ann")
    assert pushed.bytes_new < 310_000
    assert content_of(hub_volume, pushed.path) == local_content(source)
    assert hub_volume.files.listdir("/.fscore/staging/nlp/twins") == []


def test_shared_bytes_outlive_the_version_they_came_from(hub_volume: Volume, small_model: Make) -> None:
    first = push(hub_volume, small_model(), "nlp/made", user="ann")
    second = push(hub_volume, small_model("v2", changed=1), "nlp/made", user="ann")
    hub_volume.files.set_immutable(first.path, False, recursive=True)
    hub_volume.files.rmtree(first.path, skip_trash=True)
    hub_volume.collect()
    assert content_of(hub_volume, second.path) == local_content(small_model("v2", changed=1))


def test_the_index_can_be_thrown_away(hub_volume: Volume, small_model: Make) -> None:
    push(hub_volume, small_model(), "nlp/made", user="ann")
    hub_volume.files.rmtree("/.fscore/index", skip_trash=True)
    blind = push(hub_volume, small_model("b", changed=1), "nlp/b", user="ann")
    assert blind.bytes_new == blind.bytes_total
    hub_volume.files.rmtree("/.fscore/index", skip_trash=True)
    report = rebuild_index(hub_volume.files)
    assert (report.teams, report.versions) == (1, 2)
    seeing = push(hub_volume, small_model("c", changed=2), "nlp/c", user="ann")
    assert seeing.bytes_new < 0.11 * seeing.bytes_total


def test_stale_and_broken_index_entries_are_ignored(hub_volume: Volume, small_model: Make) -> None:
    first = push(hub_volume, small_model(), "nlp/made", user="ann")
    fs = hub_volume.files
    fs.write_bytes("/.fscore/index/nlp/junk.idx", b"not an index")
    fs.set_immutable(first.path, False, recursive=True)
    fs.write_bytes(f"{first.path}/model.safetensors", noise(stat_size(small_model()), 99))
    fs.utime(f"{first.path}/model.safetensors", mtime_ns=1)
    hashed = hash_source(LocalSource(small_model()), ())
    known = ContentIndex(fs, "nlp").lookup(hashed)
    assert {digest.size for digest in known.files} == {(small_model() / "config.json").stat().st_size}
    pushed = push(hub_volume, small_model(), "nlp/other", user="ann")
    assert content_of(hub_volume, pushed.path) == local_content(small_model())


def stat_size(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def test_an_equal_md5_alone_shares_nothing(hub_volume: Volume, tmp_path: Path) -> None:
    # the two 128-byte blocks of Wang, Feng, Lai and Yu (2004): one MD5, two contents
    one = bytes.fromhex(
        "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b"
        "d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
    )
    two = bytearray(one)
    for position in (19, 45, 59, 83, 109, 123):
        two[position] ^= 0x80
    source = model_dir(tmp_path / "m", {"a": b"x"}, one__dat=one, two__dat=bytes(two))
    hashed = {file.path: file.digest for file in hash_source(LocalSource(source), ())}
    assert hashed["one.dat"].md5 == hashed["two.dat"].md5
    first = push(hub_volume, model_dir(tmp_path / "f", {"a": b"x"}, one__dat=one), "nlp/first", user="ann")
    second = push(hub_volume, model_dir(tmp_path / "s", {"a": b"x"}, one__dat=bytes(two)), "nlp/second", user="ann")
    assert second.bytes_new == 128
    assert first.digest != second.digest
    assert content_of(hub_volume, second.path)["one.dat"] == bytes(two)


def test_many_versions_keep_the_index_small_and_right(hub_volume: Volume, tmp_path: Path) -> None:
    base = {f"t{n}": noise(20_000, n) for n in range(4)}
    for number in range(27):
        tensors = {**base, "own": noise(30_000, 100 + number)}
        pushed = push(hub_volume, model_dir(tmp_path / str(number), tensors), "nlp/many", user="ann")
        assert pushed.version == number + 1
        if number:
            assert pushed.bytes_new < 32_000
    assert len(hub_volume.files.listdir("/.fscore/index/nlp")) < 10


class Refused:
    """Bad inputs, each a change to a sound directory and what the one line must say."""

    @staticmethod
    def truncated(folder: Path) -> str:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        return "model.safetensors"

    @staticmethod
    def lying(folder: Path) -> str:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes() + b"more")
        return "model.safetensors"

    @staticmethod
    def missing_shard(folder: Path) -> str:
        index = {"metadata": {}, "weight_map": {"t0": "model.safetensors", "x": "model-00002-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return "model-00002-of-00002.safetensors"

    @staticmethod
    def twice(folder: Path) -> str:
        (folder / "model-2.safetensors").write_bytes(safetensors({"t0": b"again"}))
        return "t0"

    @staticmethod
    def pickle(folder: Path) -> str:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"step": 1}, protocol=2))
        return "pickle"

    @staticmethod
    def escape(folder: Path) -> str:
        (folder / "secret").symlink_to("/etc/passwd")
        return "secret"

    @staticmethod
    def nothing(folder: Path) -> str:
        for path in folder.iterdir():
            path.unlink()
        return "empty"


@pytest.mark.parametrize("name", [name for name in vars(Refused) if not name.startswith("_")])
def test_bad_input_is_refused_in_one_line(hub_volume: Volume, small_model: Make, name: str) -> None:
    folder = small_model()
    said = getattr(Refused, name)(folder)
    with pytest.raises(HubError) as refused:
        push(hub_volume, folder, "nlp/bad", user="ann")
    message = str(refused.value)
    assert said in message
    assert "\n" not in message
    assert not hub_volume.files.exists("/.fscore/drafts"), "nothing comes in"
    assert not hub_volume.files.exists("/.fscore/log")


def test_a_missing_directory_and_a_bad_name(hub_volume: Volume, tmp_path: Path, small_model: Make) -> None:
    with pytest.raises(HubError, match="does not exist"):
        push(hub_volume, tmp_path / "nowhere", "nlp/m", user="ann")
    with pytest.raises(HubError, match="team/model"):
        push(hub_volume, small_model(), "no-team", user="ann")
    with pytest.raises(HubError, match="nobody"):
        push(hub_volume, small_model(), "nlp/m", user="")


def test_pickles_come_in_only_when_asked(hub_volume: Volume, small_model: Make) -> None:
    folder = small_model()
    Refused.pickle(folder)
    assert push(hub_volume, folder, "nlp/old", user="ann", allow_pickle=True).files == 3


class Changing(LocalSource):
    """A source whose weights somebody overwrites after the scan."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path)
        self._path, self._left = path, after

    def open(self, rel: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
        if rel == "model.safetensors":
            self._left -= 1
            if self._left == 0:
                data = bytearray((self._path / rel).read_bytes())
                data[-1] ^= 1
                (self._path / rel).write_bytes(data)
        return super().open(rel)


def test_a_source_that_changes_meanwhile_is_refused(hub_volume: Volume, small_model: Make) -> None:
    folder = small_model()
    with pytest.raises(HubError, match=r"model.safetensors changed while it was read"):
        push(hub_volume, Changing(folder, after=3), "nlp/made", user="ann")
    assert not hub_volume.files.exists("/.fscore/drafts/nlp/made/1")
    pushed = push(hub_volume, folder, "nlp/made", user="ann")
    assert content_of(hub_volume, pushed.path) == local_content(folder)


def test_a_full_disk_leaves_what_can_be_resumed(open_at: MakeVolume, tmp_path: Path) -> None:
    volume = open_at(f"memory://{tmp_path.name}-full", setting={"capacity": 1_500_000})
    volume.files.write_bytes("/ballast", noise(900_000, 77))
    folder = model_dir(tmp_path / "m", {"a": noise(1000, 1)})
    for number in range(8):
        (folder / f"part{number}.dat").write_bytes(noise(100_000, number))
    with pytest.raises(NoSpace):
        push(volume, folder, "nlp/big", user="ann")
    assert not volume.files.exists("/.fscore/drafts/nlp/big/1")
    (staging,) = volume.files.listdir("/.fscore/staging/nlp/big")
    done = content_of(volume, f"/.fscore/staging/nlp/big/{staging}/files")
    assert done
    assert done.items() < local_content(folder).items()
    volume.files.unlink("/ballast")
    volume.collect()
    pushed = push(volume, folder, "nlp/big", user="ann")
    assert pushed.bytes_new == pushed.bytes_total - sum(map(len, done.values())), "what was there did not travel again"
    assert content_of(volume, pushed.path) == local_content(folder)
    assert volume.files.listdir("/.fscore/staging/nlp/big") == []
    assert_sound(volume)


def test_without_resume_everything_travels_again(hub_volume: Volume, small_model: Make) -> None:
    folder = small_model()
    with pytest.raises(HubError, match="changed"):
        push(hub_volume, Changing(folder, after=3), "nlp/made", user="ann")
    pushed = push(hub_volume, small_model(), "nlp/made", user="ann", resume=False)
    assert pushed.bytes_new == pushed.bytes_total
    assert pushed.version == 1
