"""A process is killed in the middle of putting: what can be seen is whole, and what was acknowledged is there."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fscore.objects.file import FileStore

PROGRAM = textwrap.dedent("""
    import hashlib, os, sys
    from concurrent.futures import ThreadPoolExecutor
    from fscore.objects.file import FileStore
    store = FileStore(sys.argv[1])
    def put(number):
        data = os.urandom(300_000 + number)
        key = f"chunks/0/{number % 3}/{hashlib.sha256(data).hexdigest()}"
        store.put(key, data)
        sys.stdout.write(key + "\\n")
        sys.stdout.flush()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(100_000)))
""")


@pytest.mark.parametrize("after", [3, 40])
def test_kill_in_the_middle_of_puts(tmp_path: Path, after: int) -> None:
    root = f"{tmp_path}/bucket/"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, root], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(after)]
    time.sleep(0.003 * (after % 7))
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    acknowledged += [line for line in rest.split("\n")[:-1] if line]
    process.stdout.close()
    process.wait(10)
    store = FileStore(root)
    found = {info.key for info in store.scan()}
    assert found >= set(acknowledged)
    for key in found:
        assert hashlib.sha256(store.get(key)).hexdigest() == key.rsplit("/", 1)[1]
    temps = list(Path(root).rglob(".jfs.*.tmp.*"))
    assert len(temps) <= 4  # what the kill interrupted; never listed as objects
