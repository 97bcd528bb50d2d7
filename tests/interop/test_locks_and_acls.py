"""Locks and ACLs between fscore and the official client: each obeys what the other one has stored."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from pathlib import Path

import pytest

import fscore
from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.domain.acl import ACCESS, DEFAULT, Rule
from fscore.domain.caller import Caller
from fscore.domain.errors import Denied, NotFound
from fscore.domain.locks import EOF, LockKind, LockRange
from fscore.meta.ops.change import AttrChange
from fscore.volume import Volume
from tests.interop import official
from tests.kit.locker import locker
from tests.kit.mounts import Mount

pytestmark = official.NEEDED

ME = 0xF5C07E0000000001
READ, WRITE, UNLOCK = LockKind.READ, LockKind.WRITE, LockKind.UNLOCK
PATIENCE_S = 20.0


def writer(url: str) -> Volume:
    """An open volume with a session."""
    return fscore.open_volume(url, session=True, background=False)


def until(done: object, patience_s: float = PATIENCE_S) -> None:
    """Ask every 10 ms until the answer is true."""
    assert callable(done)
    deadline = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_locks_hold_between_the_clients(shared_url: str, tmp_path: Path) -> None:
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/")
    with official.mounted(shared_url, tmp_path / "mnt") as mount, writer(shared_url) as volume:
        (mount / "f").write_bytes(b"x" * 1000)
        meta = volume.meta
        ino, _ = meta.resolve(Caller.root(), b"f")
        with locker(mount / "f") as theirs:
            assert theirs("flock sh") == "ok"
            assert meta.flock(ino, ME, READ)
            assert theirs("flock un") == "ok"
            assert meta.flock(ino, ME, WRITE)
            assert theirs("flock sh") == "busy"
            theirs.tell("flock ex wait")
            time.sleep(0.3)
            assert meta.flock(ino, ME, UNLOCK)
            assert theirs.answer() == "ok", "who waits gets it"
            assert not meta.flock(ino, ME, READ)
        until(lambda: meta.flock(ino, ME, WRITE))
        assert meta.flock(ino, ME, UNLOCK)
        with locker(mount / "f") as theirs:
            assert theirs("lockf ex 50 100") == "ok"
            assert theirs("lockf sh 500 10") == "ok"
            with meta.engine.view() as view:
                ((owner, ranges),) = view.plocks(ino).items()
            assert owner.sid != meta.sid
            pid = theirs.process.pid
            assert ranges == (LockRange(WRITE, pid, 50, 149), LockRange(READ, pid, 500, 509))
            assert meta.getlk(ino, ME, READ, 0, EOF) == LockRange(WRITE, 0, 50, 149)
            assert not meta.setlk(ino, ME, READ, 149, 149, 1)
            assert meta.setlk(ino, ME, READ, 150, 600, 1)
            assert theirs("lockf ex 500 10") == "busy"
            assert theirs("lockf sh 505 200") == "ok"
            theirs.tell("lockf ex 550 1 wait")
            time.sleep(0.3)
            meta.release_locks(ino, ME)
            assert theirs.answer() == "ok"
        until(lambda: meta.setlk(ino, ME, WRITE, 0, EOF, 1))
        meta.release_locks(ino, ME)
    with fscore.open_volume(shared_url) as volume:
        assert fsck(volume).problems == []
        assert volume.meta.engine.used_features() == frozenset()


def test_a_killed_client_is_buried_by_the_other(shared_url: str, tmp_path: Path) -> None:
    """kill -9 of a real mount that holds a deleted file and locks: we let all of it go once its session is over."""
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/", trash_days=0)
    with official.mounted(shared_url, tmp_path / "mnt", "--heartbeat", "1s") as mount, writer(shared_url) as volume:
        meta = volume.meta
        for name in ("held", "locked"):
            (mount / name).write_bytes(b"x" * 100_000)
        held, locked = (meta.resolve(Caller.root(), name)[0] for name in (b"held", b"locked"))
        kept = os.open(mount / "held", os.O_RDONLY)
        with locker(mount / "locked") as theirs:
            assert theirs("flock ex") == "ok"
            assert theirs("lockf ex 5 5") == "ok"
            (mount / "held").unlink()
            assert len(os.read(kept, 200_000)) == 100_000
            (session,) = [one for one in meta.engine.sessions() if one.sid != meta.sid]
            assert meta.engine.sustained(session.sid) == [held]
            until(lambda: meta.statfs().used == 2 * 102_400)  # in SQL they count up to a second later
            for deadly in (signal.SIGSTOP, signal.SIGKILL):
                for pid in official.processes():
                    os.kill(pid, deadly)
            until(lambda: not official.processes())
        with contextlib.suppress(OSError):
            os.close(kept)
        assert not meta.flock(locked, ME, WRITE)

        def buried() -> bool:
            meta.beat()
            return {one.sid for one in meta.engine.sessions()} == {meta.sid}

        until(buried, 60)
        assert meta.flock(locked, ME, WRITE)
        assert meta.setlk(locked, ME, WRITE, 0, EOF, 1)
        with pytest.raises(NotFound):
            meta.getattr(held, fresh=True)
        assert meta.statfs().used == 102_400
    with fscore.open_volume(shared_url) as volume:
        assert fsck(volume).problems == []


def _wire(rule: Rule) -> bytes:
    return rule.to_xattr()


def test_acls_between_the_clients(shared_url: str, tmp_path: Path) -> None:
    """Each sets, both see the same, children inherit alike, chmod masks alike, and equal rules have one number."""
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/", enable_acl=True)
    default = Rule(7, 5, 7, 5, ((1000, 7), (2000, 4)), ((50, 5),))
    with official.mounted(shared_url, tmp_path / "mnt") as mount, writer(shared_url) as volume:
        meta, root = volume.meta, Caller(uid=0, gid=0, umask=0o022)
        (mount / "theirs").mkdir()
        os.setxattr(mount / "theirs", DEFAULT, _wire(default))
        ours, _ = meta.mkdir(root, 1, b"ours", 0o755)
        meta.setxattr(root, ours, DEFAULT, _wire(default))
        numbers = {meta.getattr(meta.resolve(root, name)[0], fresh=True).default_acl for name in (b"theirs", b"ours")}
        assert len(numbers) == 1
        for above in ("theirs", "ours"):
            old = os.umask(0o022)
            try:
                (mount / above / "by-them").touch(0o640)
                (mount / above / "dir-by-them").mkdir(0o750)
            finally:
                os.umask(old)
            parent, _ = meta.resolve(root, above.encode())
            meta.create(root, parent, b"by-us", 0o640)
            meta.mkdir(root, parent, b"dir-by-us", 0o750)
            for kind in ("", "dir-"):
                mine, other = (meta.resolve(root, f"{above}/{kind}by-{who}".encode())[1] for who in ("us", "them"))
                assert (mine.mode, mine.access_acl, mine.default_acl) == (
                    other.mode,
                    other.access_acl,
                    other.default_acl,
                )
                paths = [mount / above / f"{kind}by-{who}" for who in ("us", "them")]
                assert os.getxattr(paths[0], ACCESS) == os.getxattr(paths[1], ACCESS)
        ino, _ = meta.resolve(root, b"ours/by-them")
        (mount / "ours/by-us").chmod(0o604)
        assert meta.setattr(root, ino, AttrChange(mode=0o604)).mode == 0o604
        time.sleep(1.1)
        assert os.getxattr(mount / "ours/by-us", ACCESS) == os.getxattr(mount / "ours/by-them", ACCESS)
        same = [meta.getattr(meta.resolve(root, name)[0], fresh=True) for name in (b"ours/by-us", b"ours/by-them")]
        assert same[0].access_acl == same[1].access_acl
        _masks_of_other_callers(volume, mount)
    official.fsck(shared_url)
    with fscore.open_volume(shared_url) as volume:
        assert fsck(volume).problems == []


def _masks_of_other_callers(volume: Volume, mount: Path) -> None:
    """A rule set by us decides what a program of another user may do on their mount, and the other way round."""
    meta, root = volume.meta, Caller.root()
    ino, _ = meta.create(root, 1, b"judged", 0o600)
    meta.setxattr(root, ino, ACCESS, _wire(Rule(6, 0, 6, 0, ((1000, 6), (2000, 4)), ())))
    time.sleep(1.1)
    path = mount / "judged"
    for uid, mask in ((1000, 6), (2000, 4), (3000, 0)):
        for bit in (4, 2):
            granted = bool(mask & bit)
            assert _may(path, uid, bit) is granted, (uid, bit)
            if granted:
                meta.access(Caller(uid=uid, gid=uid), ino, bit)
            else:
                with pytest.raises(Denied):
                    meta.access(Caller(uid=uid, gid=uid), ino, bit)
    os.setxattr(path, ACCESS, _wire(Rule(6, 0, 4, 0, ((1000, 6),), ())))
    meta.getattr(ino, fresh=True)
    with pytest.raises(Denied):
        meta.access(Caller(uid=1000, gid=1000), ino, 2)
    os.removexattr(path, ACCESS)
    assert meta.getattr(ino, fresh=True).access_acl == 0
    os.setxattr(
        path,
        ACCESS,
        struct.pack("<I", 2)
        + b"".join(
            struct.pack("<HHI", *entry) for entry in ((1, 6, 0xFFFFFFFF), (4, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF))
        ),
    )
    assert (meta.getattr(ino, fresh=True).access_acl, meta.getattr(ino).mode) == (0, 0o644)


def _may(path: Path, uid: int, bit: int) -> bool:
    """Whether a process of another user may open a file for reading (4) or writing (2); what is above is no matter."""
    above = os.open(path.parent, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        opened = False
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.close(os.open(path.name, os.O_RDONLY if bit == 4 else os.O_WRONLY, dir_fd=above))
            opened = True
        except PermissionError:
            os._exit(1)
        finally:
            os._exit(0 if opened else 2)
    os.close(above)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, 1}
    return status == 0


def test_mounts_of_both_clients_beside_each_other(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Programs on our mount and programs on theirs: one locks, the other waits; one sets an ACL, the other obeys."""
    url = f"sqlite3://{tmp_path}/meta.db"
    format_volume(url, "shared", storage="file", bucket=f"{tmp_path}/blocks/", enable_acl=True, trash_days=0)
    ours = Mount(url, tmp_path / "ours", "kernel")
    request.addfinalizer(ours.stop)
    ours.start()
    with official.mounted(url, tmp_path / "theirs") as theirs:
        (ours.base / "f").write_bytes(b"x" * 100)
        with locker(ours.base / "f") as mine, locker(theirs / "f") as other:
            for command in ("flock ex", "lockf ex 10 20"):
                assert mine(command) == "ok"
                assert other(command) == "busy"
                other.tell(f"{command} wait")
                time.sleep(0.3)
                assert mine(command.replace("ex", "un")) == "ok"
                assert other.answer() == "ok"
                assert mine(command) == "busy"
                mine.tell(f"{command} wait")
                time.sleep(0.3)
                assert other(command.replace("ex", "un")) == "ok"
                assert mine.answer() == "ok"
        with locker(theirs / "f") as other:
            until(lambda: other("flock ex") == "ok")
            until(lambda: other("lockf ex 0 100") == "ok")
        rule = Rule(7, 5, 5, 0, ((1000, 7),), ())
        for here, there, name in ((ours.base, theirs, "1"), (theirs, ours.base, "2")):
            (here / name).mkdir(0o700)
            os.setxattr(here / name, DEFAULT, _wire(rule))
            time.sleep(1.1)
            old = os.umask(0o077)
            (there / name / "sub").mkdir(0o777)
            (there / name / "file").touch(0o666)
            os.umask(old)
            time.sleep(1.1)
            for path in ("sub", "file"):
                assert os.getxattr(here / name / path, ACCESS) == os.getxattr(there / name / path, ACCESS)
            assert (here / name / "sub").stat().st_mode & 0o777 == 0o750, "the umask does not count"
            assert (here / name / "file").stat().st_mode & 0o777 == 0o640
    assert ours.stop() == 0
    with fscore.open_volume(url) as volume:
        assert fsck(volume).problems == []
        assert volume.meta.engine.used_features() == {"acl"}
