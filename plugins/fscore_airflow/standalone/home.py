"""The private Airflow home: folders, secrets made once, airflow.cfg rendered from the template."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

USERS = {"admin": "admin", "releaser": "op", "viewer": "viewer"}
LOOPBACK = "127.0.0.1"
# What a task's or a test's own environment must not carry over into a new Airflow.
_FOREIGN = ("AIRFLOW_HOME", "AIRFLOW_CONFIG", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "PYTHONDONTWRITEBYTECODE")


def project_root() -> Path:
    """The folder that holds `plugins/` and `dags/` of this checkout."""
    return Path(__file__).resolve().parents[3]


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could bind `port` right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Home:
    """Paths inside one home, and the few files that make it an Airflow."""

    path: Path
    dags: Path
    plugins: Path
    parallelism: int = 4

    @property
    def config(self) -> Path:
        """The rendered airflow.cfg."""
        return self.path / "airflow.cfg"

    @property
    def logs(self) -> Path:
        """Where each main writes its log, and tasks below `tasks/`."""
        return self.path / "logs"

    @property
    def passwords_file(self) -> Path:
        """User name -> password, as SimpleAuthManager reads it."""
        return self.path / "passwords.json"

    @property
    def state_file(self) -> Path:
        """Port and process ids of what runs here."""
        return self.path / "standalone.json"

    @property
    def seed_stamp(self) -> Path:
        """Digest of what the database was last filled with."""
        return self.path / "seed.stamp"

    def passwords(self) -> dict[str, str]:
        """User name -> password."""
        return dict(json.loads(self.passwords_file.read_text()))

    def prepare(self, port: int) -> None:
        """Make the folders, the secrets (once) and airflow.cfg (each time)."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.logs.mkdir(exist_ok=True)
        if not self.passwords_file.exists():
            passwords = {name: secrets.token_urlsafe(12) for name in USERS}
            write_private(self.passwords_file, json.dumps(passwords) + "\n")
        template = files(__package__).joinpath("airflow.cfg.template").read_text()
        write_private(self.config, Template(template).substitute(self._values(port)))

    def environment(self, base: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of every process of this Airflow."""
        env = dict(os.environ if base is None else base)
        for name in _FOREIGN:
            env.pop(name, None)
        env["AIRFLOW_HOME"] = str(self.path)
        env["AIRFLOW_CONFIG"] = str(self.config)
        env["GX_ANALYTICS_ENABLED"] = "false"
        roots = [str(project_root()), str(self.plugins), *env.get("PYTHONPATH", "").split(os.pathsep)]
        env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(root for root in roots if root))
        return env

    def _values(self, port: int) -> dict[str, str]:
        values = {
            "dags": str(self.dags),
            "plugins": str(self.plugins),
            "parallelism": str(self.parallelism),
            "host": LOOPBACK,
            "port": str(port),
            "url": f"http://{LOOPBACK}:{port}",
            "users": ",".join(f"{name}:{role}" for name, role in USERS.items()),
            "passwords_file": str(self.passwords_file),
            "logs": str(self.logs),
            "database": str(self.path / "airflow.db"),
        }
        # ConfigParser would read a lone % as interpolation.
        return {key: value.replace("%", "%%") for key, value in {**values, **self._secrets()}.items()}

    def _secrets(self) -> dict[str, str]:
        store = self.path / "secrets.json"
        if not store.exists():
            made = {
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "jwt_secret": secrets.token_urlsafe(48),
                "secret_key": secrets.token_urlsafe(32),
            }
            write_private(store, json.dumps(made) + "\n")
        return dict(json.loads(store.read_text()))


def write_private(path: Path, text: str) -> None:
    """Replace `path` whole, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(path)
