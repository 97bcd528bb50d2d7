"""From what a user types to an open volume, and every way it can be wrong: one line, and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fscore
from fscore.admin.format import format_volume, parse_size
from fscore.domain.errors import SettingError, StoreError
from fscore.meta.engines.registry import open_engine
from fscore.objects.memory import MemoryStore
from fscore.volume import Options, Volume, locate, open_volume
from tests.kit.volumes import MakeVolume, assert_sound


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite3://{tmp_path / 'meta.db'}"
    format_volume(url, "myvol", bucket=str(tmp_path / "objects"), block_size="64K", trash_days=0)
    return url


def refused(target: str, **options: object) -> str:
    with pytest.raises((SettingError, StoreError)) as caught:
        open_volume(target, **options).close()  # type: ignore[arg-type]  # wrong on purpose in some tests
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_package_is_the_way_in(url: str) -> None:
    with fscore.open_volume(url) as volume:
        assert isinstance(volume, fscore.Volume)
        volume.files.write_bytes("/f", b"x")
        assert volume.name == "myvol"
    with pytest.raises(AttributeError):
        fscore.nothing  # noqa: B018  the attribute access is the test


def test_importing_fscore_loads_nothing_heavy() -> None:
    code = (
        "import sys, fscore; "
        "heavy = {'redis', 'sqlalchemy', 'obstore', 'numpy', 'airflow', 'fsspec', 'huggingface_hub', 'fscore.volume'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_come_from_volumes_toml(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = tmp_path / "volumes.toml"
    book.write_text(f'[prod]\nmeta = "{url}"\nmemory_cache = 1048576\n[broken]\nbucket = "x"\n')
    monkeypatch.setenv("FSCORE_VOLUMES", str(book))
    with open_volume("prod") as volume:
        assert volume.url == url
        assert volume.options.memory_cache == 1 << 20
    assert "prod" in refused("prodd")
    assert "broken" in refused("broken")
    book.write_text(f'[prod]\nmeta = "{url}"\nmemory_cach = 1\n')
    assert "memory_cach" in refused("prod")
    book.write_text(f'[prod]\nmeta = "{url}"\nmemory_cache = "much"\n')
    assert "memory_cache" in refused("prod")
    book.write_text("[prod\n")
    assert "volumes.toml" in refused("prod")
    monkeypatch.setenv("FSCORE_VOLUMES", str(tmp_path / "absent.toml"))
    assert "absent.toml" in refused("prod")


def test_an_address_without_a_scheme() -> None:
    assert locate("localhost:6379/1") == ("redis://localhost:6379/1", {})
    assert locate(":secret@10.0.0.1:6379/1") == ("redis://:secret@10.0.0.1:6379/1", {})
    assert locate("10.0.0.1/3")[0] == "redis://10.0.0.1/3"


def test_no_volume_there(tmp_path: Path) -> None:
    assert "format" in refused(f"sqlite3://{tmp_path / 'none.db'}")
    assert "format" in refused("memory://no-such-volume")


def test_urls_that_lead_nowhere(tmp_path: Path) -> None:
    assert "ftp" in refused("ftp://host/1")
    assert str(tmp_path) in refused(f"sqlite3://{tmp_path}/no/such/directory/meta.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    assert "x.db" in refused(f"sqlite3://{tmp_path / 'x.db'}")


def test_unknown_features_are_refused_or_read_only(url: str) -> None:
    engine = open_engine(url)
    stored = engine.load_setting()
    assert stored is not None
    engine.store_setting(stored.replace(b'"MetaVersion": 1', b'"MetaVersion": 2'))
    assert "version 2" in refused(url)
    assert "version 2" in refused(url, read_only=True)
    engine.store_setting(stored.replace(b'"Compression": "none"', b'"Compression": "brotli"'))
    assert "brotli" in refused(url)
    engine.store_setting(stored[:-2] + b',\n"NewFeature": true\n}')
    assert "NewFeature" in refused(url)
    open_volume(url, read_only=True).close()
    engine.store_setting(stored.replace(b'"MinClientVersion": "1.1.0-A"', b'"MinClientVersion": "9.0.0"'))
    assert "9.0.0" in refused(url, read_only=True)
    engine.store_setting(stored)
    open_volume(url).close()
    engine.close()


def test_options_are_checked(url: str) -> None:
    assert "buffer_size" in refused(url, buffer_size="many")
    with pytest.raises(SettingError, match="no_such_option"):
        open_volume(url, no_such_option=1)  # type: ignore[call-arg]  # wrong on purpose


def test_an_override_stands_in_for_the_store(url: str) -> None:
    store = MemoryStore("override")
    with open_volume(url, object_store=store) as volume:
        volume.files.write_bytes("/f", b"x" * 100)
    assert [info.key.split("/")[:2] for info in store.scan()] == [["myvol", "chunks"]]


def test_a_second_format_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="already"):
        format_volume(url, "myvol", bucket=str(tmp_path / "objects"))
    with pytest.raises(SettingError, match="not empty"):
        format_volume(f"sqlite3://{tmp_path / 'other.db'}", "myvol", bucket=str(tmp_path / "objects"))
    assert open_engine(f"sqlite3://{tmp_path / 'other.db'}").load_setting() is None


def test_format_leaves_what_the_format_says(url: str, tmp_path: Path) -> None:
    with open_volume(url) as volume:
        uuid = volume.setting.uuid
        assert (volume.setting.block_size, volume.setting.trash_days) == (65536, 0)
    assert (tmp_path / "objects" / "myvol" / "juicefs_uuid").read_text() == uuid
    assert not list((tmp_path / "objects" / "myvol" / "testing").glob("*"))


@pytest.mark.parametrize("name", ["ab", "-ab", "ab-", "Abc", "a_b", "a" * 64, ""])
def test_names_that_no_volume_has(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="name"):
        format_volume("memory://never", name, bucket=str(tmp_path))


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage": "tape", "bucket": "x"},
        {"storage": "s3"},
        {"compression": "gzip"},
        {"block_size": "huge"},
        {"block_size": "0"},
        {"trash_days": -1},
        {"capacity": "-5"},
        {"inodes": -1},
        {"bucket": "/proc/nowhere"},
    ],
)
def test_values_that_no_volume_has(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        format_volume("memory://never-either", "vol", **({"bucket": str(tmp_path)} | wrong))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "stored"), [("4M", 4096), ("4096", 4096), ("100K", 64), ("1K", 64), ("64MiB", 16384), (1 << 20, 1024)]
)
def test_block_sizes_become_powers_of_two(typed: str | int, stored: int, open_at: MakeVolume) -> None:
    assert open_at(setting={"block_size": typed}).setting.block_size_kib == stored


def test_sizes() -> None:
    assert [parse_size(text) for text in ("0", "10", "1k", "4M", "2GiB", "1tb", 7)] == [
        0, 10, 1 << 10, 4 << 20, 2 << 30, 1 << 40, 7,
    ]  # fmt: skip
    with pytest.raises(SettingError):
        parse_size("1.5G")


def test_secrets_are_wrapped_and_hidden(tmp_path: Path) -> None:
    setting = format_volume(
        f"sqlite3://{tmp_path / 'm.db'}", "vol", bucket=str(tmp_path / "o"), access_key="me", secret_key="open sesame"
    )
    assert setting.key_encrypted
    assert b"open sesame" not in setting.render()
    with open_volume(f"sqlite3://{tmp_path / 'm.db'}") as volume:
        assert volume.setting.with_plain_secrets().secret_key == "open sesame"


def test_close_commits_open_files_and_joins(url: str) -> None:
    volume = open_volume(url)
    file = volume.files.open("/f", "wb")
    file.write(b"left open")
    volume.close()
    volume.close()
    with open_volume(url) as again:
        assert again.files.read_bytes("/f") == b"left open"
        assert_sound(again)


def test_background_flush_commits_idle_files(tmp_path: Path) -> None:
    url = f"sqlite3://{tmp_path / 'b.db'}"
    format_volume(url, "bvol", bucket=str(tmp_path / "ob"))
    with open_volume(url) as writer, open_volume(url, session=False, background=False) as reader:
        file = writer.files.open("/f", "wb")
        file.write(b"idle")
        writer.vfs.flush_idle(0.0)
        assert reader.files.read_bytes("/f") == b"idle"
        file.close()


def test_a_session_is_registered_and_ended(url: str) -> None:
    with open_volume(url) as volume:
        assert len(volume.meta.engine.sessions()) == 1
        with open_volume(url, session=False) as other:
            assert len(other.meta.engine.sessions()) == 1
    with open_volume(url, read_only=True) as volume:
        assert volume.meta.engine.sessions() == []


def test_disk_cache_serves_the_next_process(url: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    with open_volume(url) as volume:
        volume.files.write_bytes("/f", content)
    with open_volume(url, cache_dir=str(tmp_path / "cache")) as volume:
        volume.files.warm(["/"])
    with open_volume(url, cache_dir=str(tmp_path / "cache"), object_store=MemoryStore("empty")) as volume:
        assert volume.files.read_bytes("/f") == content
        assert volume.files.cached_bytes(["/f"]) == len(content)


def test_defaults_are_plain() -> None:
    assert Options().read_only is False
    assert isinstance(Volume.__doc__, str)


def test_reading_moves_the_access_time_of_who_asked_for_it(url: str) -> None:
    with open_volume(url) as volume:
        volume.files.write_bytes("/f", b"content")
        volume.files.utime("/f", atime_ns=0)
        volume.files.read_bytes("/f")
        assert volume.files.stat("/f").attr.atime_ns == 0
    with open_volume(url, atime_mode="relatime") as volume:
        assert volume.files.read_bytes("/f") == b"content"
        attr = volume.files.stat("/f").attr
        assert attr.atime_ns > attr.mtime_ns
    with pytest.raises(SettingError, match=r"atime_mode|sometimes"):
        open_volume(url, atime_mode="sometimes")  # type: ignore[arg-type]


def test_an_empty_cache_dir_is_none_whatever_the_environment_says(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSCORE_CACHE_DIR", str(tmp_path / "cache"))
    for asked, expected in (("", False), (None, True)):
        with open_volume(url, cache_dir=asked) as volume:
            volume.files.write_bytes("/f", b"x" * 100)
            assert volume.files.read_bytes("/f") == b"x" * 100
        assert (tmp_path / "cache").exists() is expected
