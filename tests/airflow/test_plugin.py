"""The plugin as Airflow sees it: registered once, light, with a connection type, a form and a filesystem."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from fscore.domain.errors import SettingError
from fscore_airflow.hooks.volume import VolumeHook
from fscore_airflow.provider_info import get_provider_info
from tests.airflow.conftest import ROOT, Clouds

PLUGIN_FILE = ROOT / "plugins" / "fscore_plugin.py"


def with_entry_points(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> dict[str, object]:
    """What the scanned file defines when these are the installed `airflow.plugins`."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: EntryPoints(points))
    return runpy.run_path(str(PLUGIN_FILE))


def test_a_copied_folder_registers_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the distribution the scanned file is the only one who can."""
    from fscore_airflow.plugin import FscorePlugin

    other = EntryPoint("somebody", "else:Plugin", "airflow.plugins")
    assert with_entry_points(monkeypatch, other)["FscorePlugin"] is FscorePlugin


def test_an_installed_distribution_silences_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plugins of one name would lose every later plugin in task processes."""
    own = EntryPoint("fscore", "fscore_airflow.plugin:FscorePlugin", "airflow.plugins")
    assert "FscorePlugin" not in with_entry_points(monkeypatch, own)


def test_only_one_file_is_scanned() -> None:
    """The ignore file hides the package, and nothing else lies in the folder."""
    patterns = [
        line for line in (ROOT / "plugins" / ".airflowignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert patterns == ["fscore_airflow/"]
    assert [path.name for path in (ROOT / "plugins").glob("*.py")] == ["fscore_plugin.py"]


def test_the_provider_description_is_what_airflow_accepts() -> None:
    """Airflow's own schema, and a hook and a module that exist."""
    import jsonschema  # type: ignore[import-untyped]
    from airflow import __file__ as airflow_file

    schema = json.loads((Path(airflow_file).parent / "provider_info.schema.json").read_text())
    info = get_provider_info()
    jsonschema.validate(info, schema)
    assert info["connection-types"][0]["hook-class-name"] == f"{VolumeHook.__module__}.{VolumeHook.__qualname__}"


def test_what_airflow_imports_loads_no_core() -> None:
    """Plugin, operators, sensors, triggers and hook are imported by every process: the core is not."""
    modules = [
        "fscore_airflow." + str(path.relative_to(ROOT / "plugins/fscore_airflow").with_suffix("")).replace("/", ".")
        for folder in ("operators", "sensors", "triggers", "hooks")
        for path in sorted((ROOT / "plugins/fscore_airflow" / folder).glob("[a-z]*.py"))
    ]
    code = "\n".join(
        [
            "import json, sys",
            *(f"import {name}" for name in [*modules, "fscore_airflow.plugin", "fscore_airflow.provider_info"]),
            "heavy = {'fscore', 'great_expectations', 'pandas', 'numpy', 'huggingface_hub', 'obstore', 'kubernetes'}",
            "print(json.dumps(sorted(heavy & {name.split('.')[0] for name in sys.modules})))",
        ]
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**env, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "AIRFLOW_HOME": os.environ["AIRFLOW_HOME"]},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_hook_opens_the_volume_of_a_connection(clouds: Clouds) -> None:
    """META-URL in Host, options and regions in Extra."""
    hook = VolumeHook(clouds.home)
    assert hook.regions() == [clouds.region]
    with hook.open() as volume:
        assert volume.name == "cloud-a"
        assert volume.options.cache_dir == str(clouds.root / "cloud_a-cache")
        volume.files.write_bytes("/hello", b"world")
    with VolumeHook(clouds.url(clouds.home)).open(read_only=True) as volume:
        assert volume.files.read_bytes("/hello") == b"world"
    good, says = hook.test_connection()
    assert good, says
    assert "cloud-a" in says


def test_a_wrong_connection_says_what_is_wrong(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, for a missing URL, an unknown option and a volume that is not there."""
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "fscore"}))
    with pytest.raises(SettingError, match="no META-URL in its Host"):
        VolumeHook("empty").get_conn()
    absent = f"sqlite3://{clouds.root / 'absent.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_ABSENT", json.dumps({"conn_type": "fscore", "host": absent}))
    good, says = VolumeHook("absent").test_connection()
    assert not good
    assert "\n" not in says
    extra = {"conn_type": "fscore", "host": clouds.url(clouds.home), "extra": {"cache_size": "much"}}
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(extra))
    with pytest.raises(SettingError, match="cache_size"):
        VolumeHook("odd").get_conn()


@pytest.mark.parametrize(
    ("host", "password", "url"),
    [
        ("redis://meta:6379/1", "s3 cret", "redis://:s3%20cret@meta:6379/1"),
        ("redis://user@meta:6379/1", "pw", "redis://user:pw@meta:6379/1"),
        ("redis://user:own@meta:6379/1", "pw", "redis://user:own@meta:6379/1"),
        ("redis://meta:6379/1", None, "redis://meta:6379/1"),
        ("sqlite3:///var/meta.db", "pw", "sqlite3:///var/meta.db"),
    ],
)
def test_the_password_goes_where_the_url_has_none(
    monkeypatch: pytest.MonkeyPatch, host: str, password: str | None, url: str
) -> None:
    """Kept encrypted in the connection, not readable in the Host field."""
    monkeypatch.setenv("AIRFLOW_CONN_M", json.dumps({"conn_type": "fscore", "host": host, "password": password}))
    assert VolumeHook("m").meta_url() == url


def test_the_filesystem_of_a_connection(clouds: Clouds) -> None:
    """`ObjectStoragePath("fscore://cloud_a@/...")` reads through the connection."""
    from fscore_airflow.filesystem import get_fs, schemes

    assert schemes == ["fscore"]
    with VolumeHook(clouds.home).open() as volume:
        volume.files.mkdir("/models", exist_ok=True)
        volume.files.write_bytes("/models/x", b"bytes")
    assert get_fs(clouds.home, {"conn_id": clouds.home}).cat_file("/models/x") == b"bytes"
