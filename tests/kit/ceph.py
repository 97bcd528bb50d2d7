"""A real Ceph for tests: monitor, manager, one in-memory OSD and the RADOS gateway, all on loopback, stopped by pid.

Debian's packages are installed when they are missing and we are root (102 packages, about 75 s, once a machine).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph-common")
PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool")
ACCESS, SECRET = "AKTEST", "SKTEST"

_CONF = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {dir}/keyring
run dir = {dir}/run
log file = {dir}/log/$name.log
log to stderr = false
admin socket = {dir}/run/$name.asok
pid file = {dir}/run/$name.pid
crash dir = {dir}/log
ms bind ipv4 = true
ms bind ipv6 = false
ms bind msgr1 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd memory target = 939524096
paxos propose interval = 0.1
paxos min wait = 0.01
mon tick interval = 1
mgr tick period = 1
osd mon report interval = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 2000
auth allow insecure global id reclaim = false
[mon]
mon data avail warn = 5
mon data = {dir}/mon
[mgr]
mgr data = {dir}/mgr
mgr initial modules =
[osd]
osd data = {dir}/osd$id
osd objectstore = memstore
memstore device bytes = 2147483648
osd class load list = *
osd class default list = *
[client.admin]
admin socket =
[client.rgw]
rgw data = {dir}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw_port} tcp_nodelay=1
rgw enable usage log = false
rgw gc max objs = 4
"""

_KEYS = {
    "mon.": "mon 'allow *'",
    "client.admin": "mon 'allow *' osd 'allow *' mgr 'allow *'",
    "mgr.x": "mon 'allow *' osd 'allow *' mds 'allow *'",
    "client.rgw": "mon 'allow rw' osd 'allow *' mgr 'allow rw'",
    "osd.0": "mon 'allow profile osd' osd 'allow *' mgr 'allow profile osd'",
}


class Missing(Exception):
    """Ceph is not here and cannot be installed; says why."""


def ensure_installed() -> None:
    """Install the packages if a program is missing. Missing when that cannot be done."""
    if all(shutil.which(program) for program in PROGRAMS):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing("ceph is not installed and only root on Debian can install it")
    with Path("/tmp/fscore-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(shutil.which(program) for program in PROGRAMS):
            return
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        for command in (["apt-get", "update", "-qq"], install):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Missing(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-300:]}")


class Ceph:
    """One cluster with one gateway below a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._conf = directory / "ceph.conf"
        self._rgw_port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self._rgw_port}"

    def start(self) -> None:
        """Bring everything up, to an S3 user that may make buckets. About 4 s."""
        for name in ("mon", "mgr", "rgw", "run", "log", "osd0"):
            (self._dir / name).mkdir(parents=True, exist_ok=True)
        fsid, mon_port = str(uuid.uuid4()), _free_port()
        self._conf.write_text(_CONF.format(fsid=fsid, dir=self._dir, mon_port=mon_port, rgw_port=self._rgw_port))
        keyring, monmap = self._dir / "keyring", self._dir / "monmap"
        keyring.write_text("")
        for name, caps in _KEYS.items():
            pieces = [piece.strip() for piece in caps.split("'")]
            flags = [
                flag for kind, what in zip(pieces[::2], pieces[1::2], strict=False) for flag in ("--cap", kind, what)
            ]
            self._run("ceph-authtool", str(keyring), "--gen-key", "-n", name, *flags)
        self._run(
            "monmaptool",
            "--create",
            "--clobber",
            "--fsid",
            fsid,
            "--addv",
            "a",
            f"[v2:127.0.0.1:{mon_port}]",
            str(monmap),
        )
        self._ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap), "--keyring", str(keyring))
        self._ceph("ceph-mon", "-i", "a")
        self._ceph("ceph-mgr", "-i", "x")
        osd = str(uuid.uuid4())
        self._ceph("ceph", "osd", "new", osd, "0")
        self._ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._ceph("ceph-osd", "-i", "0")
        _until("the OSD is up", self._osd_up)
        self._ceph("radosgw", "-n", "client.rgw")
        _until("the gateway answers", self._answers)
        self._ceph(
            "radosgw-admin",
            "user",
            "create",
            "--uid",
            "t",
            "--display-name",
            "t",
            "--access-key",
            ACCESS,
            "--secret-key",
            SECRET,
        )

    def stop(self) -> None:
        """End every daemon by its pid file and wait until it is gone."""
        pids = []
        for file in (self._dir / "run").glob("*.pid"):
            with contextlib.suppress(ValueError, OSError):
                pids.append(int(file.read_text()))
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            deadline = time.monotonic() + 1  # the gateway takes its time, and nothing here is kept
            while pids and time.monotonic() < deadline:
                pids = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
                time.sleep(0.02)
            if not pids:
                return

    def _osd_up(self) -> bool:
        found = json.loads(self._ceph("ceph", "osd", "stat", "-f", "json"))
        return bool(found.get("num_up_osds") == 1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint, timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _ceph(self, program: str, *arguments: str) -> str:
        return self._run(program, "-c", str(self._conf), *arguments)

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "CEPH_CONF": str(self._conf)}
        log = self._dir / "log" / "commands.log"
        with log.open("a") as errors:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=60,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {log.read_text()[-600:]}")
        return done.stdout


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _until(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(0.05)
