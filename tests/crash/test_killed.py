"""A process that is killed while it writes: what it had acknowledged is there, whole; nothing else is half there."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.volume import open_volume
from tests.kit.crash import contents

WRITER = """
import hashlib, random, sys
from fscore import open_volume
from fscore.files.compose import Range, data
volume = open_volume(sys.argv[1])
fs = volume.files
rng = random.Random(int(sys.argv[2]))
number = 0
while True:
    number += 1
    content = rng.randbytes(rng.choice([10, 70_000, 300_000]))
    path = f"/{number}"
    if number % 3 == 0:
        fs.compose(path, [Range(last, 0, size), data(content)])
        content = fs.read_bytes(path)
    elif number % 3 == 1:
        fs.write_atomic(path, content, replace=False)
    else:
        with fs.open(path, "xb") as file:
            for start in range(0, len(content), 50_000):
                file.write(content[start : start + 50_000])
    print(path, hashlib.sha256(content).hexdigest(), number % 3, flush=True)
    last, size = path, len(content)
    if number % 4 == 0:
        fs.unlink(last)
        print(path, "gone", 0, flush=True)
        last, size = f"/{number - 1}", 5
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_acknowledged_survives_a_kill(seed: int, tmp_path: Path) -> None:
    url = f"sqlite3://{tmp_path / 'meta.db'}"
    format_volume(url, "killed", bucket=str(tmp_path / "objects"), block_size="64K", trash_days=0)
    said: dict[str, str] = {}
    wanted = random.Random(seed).randrange(15, 60)
    command = [sys.executable, "-c", WRITER, url, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            path, digest, _ = line.split()
            said[path] = digest
            wanted -= 1
            if wanted == 0:
                writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    with open_volume(url) as volume:
        assert fsck(volume).problems == []
        found = {path: hashlib.sha256(content).hexdigest() for path, content in contents(volume.files).items()}
        last = len(said)
        for path, digest in said.items():
            if digest == "gone":
                assert path not in found
            elif path in found or int(path[1:]) < last - 1:  # the newest may have been on its way out
                assert found[path] == digest
        assert len(found.keys() - said.keys()) <= 1
        volume.collect()
        assert fsck(volume).problems == []
