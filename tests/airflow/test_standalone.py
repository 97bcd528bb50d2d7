"""The supervisor's home and command line; the processes themselves are in tests/system."""

from __future__ import annotations

import configparser
import json
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fscore_airflow.standalone.cli import main
from fscore_airflow.standalone.home import Home, free_port, port_is_free
from fscore_airflow.standalone.supervisor import StartError, Supervisor
from tests.airflow.conftest import ROOT


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that was never started."""
    return Home(tmp_path / "air%flow", ROOT / "dags", ROOT / "plugins")


def read(home: Home) -> configparser.ConfigParser:
    """The rendered configuration, as Airflow reads it."""
    parser = configparser.ConfigParser()
    parser.read(home.config)
    return parser


def test_secrets_are_made_once_and_kept_private(home: Home) -> None:
    """A second start keeps tokens valid; nobody else can read them."""
    home.prepare(8123)
    first = read(home)
    home.prepare(8124)
    second = read(home)
    for section, key in (("core", "fernet_key"), ("api_auth", "jwt_secret"), ("api", "secret_key")):
        assert first[section][key] == second[section][key] != ""
    for path in (home.config, home.passwords_file, home.path / "secrets.json"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_port_stands_everywhere_it_must(home: Home) -> None:
    """Workers call the execution API where the API server listens."""
    home.prepare(8123)
    config = read(home)
    assert config["api"]["port"] == "8123"
    assert config["api"]["base_url"] == "http://127.0.0.1:8123"
    assert config["core"]["execution_api_server_url"] == "http://127.0.0.1:8123/execution/"
    assert config["database"]["sql_alchemy_conn"] == f"sqlite:///{home.path / 'airflow.db'}"


def test_the_environment_carries_nothing_of_the_caller(home: Home) -> None:
    """A start from inside a task must not inherit the task's database or home."""
    env = home.environment(
        {
            "AIRFLOW_HOME": "/other",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": "/mine",
            "AIRFLOW__CORE__PARALLELISM": "2",
        }
    )
    assert env["AIRFLOW_HOME"] == str(home.path)
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in env
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert env["PYTHONPATH"].split(":")[-1] == "/mine"
    assert env["AIRFLOW__CORE__PARALLELISM"] == "2", "what the operator sets stays"


def test_a_taken_port_is_refused_before_anything_starts(home: Home) -> None:
    """One line that says what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not port_is_free(port)
        with pytest.raises(StartError, match="is taken"):
            Supervisor(home, say=lambda _: None).start(port=port)
    assert not home.state_file.exists()
    assert port_is_free(free_port())


@pytest.mark.parametrize("boot", ["an-earlier-one", None])
def test_a_recycled_process_id_is_not_ours(home: Home, boot: str | None) -> None:
    """Ids in an old state file belong to others by now: they are neither running, nor stopped, nor left over."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        home.prepare(8123)
        now = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        created = psutil.Process(other.pid).create_time()
        when = created if boot else created - 3600
        state = {"port": 8123, "boot": boot or now, "mains": {"scheduler": [other.pid, when]}}
        home.state_file.write_text(json.dumps(state))
        supervisor = Supervisor(home, say=lambda _: None)
        assert supervisor.running() == {}
        assert supervisor.leftovers() == []
        assert supervisor.stop() is False
        assert set(supervisor.health().values()) == {"down"}
        assert other.poll() is None
        other.communicate(b"\n")
    assert other.returncode == 0


def test_what_a_dead_main_left_behind_is_found(home: Home) -> None:
    """Its session outlives it, and so its children are known."""
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()']).pid, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as main_process:
        created = psutil.Process(main_process.pid).create_time()
        assert main_process.stdout is not None
        child = int(main_process.stdout.readline())
        main_process.wait()
        home.prepare(8123)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        home.state_file.write_text(
            json.dumps({"port": 8123, "boot": boot, "mains": {"scheduler": [main_process.pid, created]}})
        )
        supervisor = Supervisor(home, say=lambda _: None, grace=0.3)
        assert [process.pid for process in supervisor.leftovers()] == [child]
        supervisor.stop()
        assert supervisor.leftovers() == []


def test_commands_on_a_home_that_does_not_run(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and a plain sentence; wrong use is 2."""
    assert main(["status", "--home", str(home.path)]) == 1
    assert main(["stop", "--home", str(home.path)]) == 1
    assert capsys.readouterr().err.count("no Airflow runs in") == 2
    with pytest.raises(SystemExit) as wrong:
        main(["dance"])
    assert wrong.value.code == 2
