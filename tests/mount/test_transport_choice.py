"""`--transport auto`: our own where it works, else pyfuse3, and the better of two reasons where neither does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.domain.errors import SettingError
from fscore.mount import run
from fscore.mount.mounts import detach, mount_at
from fscore.mount.transports.kernel import session
from tests.kit.mounts import assert_volume_sound, fresh_volume, need_fuse

pytestmark = pytest.mark.mount


@pytest.fixture
def plan(request: pytest.FixtureRequest) -> Iterator[run.Plan]:
    """A fresh volume, to be mounted by this process."""
    need_fuse("pyfuse3")
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        url = fresh_volume("sqlite", place, request)
        try:
            yield run.Plan(volume=url, mountpoint=place / "mnt", asked={"durable": False})
        finally:
            detach(place / "mnt")
        assert_volume_sound(url)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own transport does not work on this machine."""

    def serve(*_args: object) -> None:
        raise SettingError("this kernel is from another age")

    monkeypatch.setattr(session, "serve", serve)


def test_auto_takes_our_own(plan: run.Plan) -> None:
    said: list[str] = []
    running = run.start(plan, said.append)
    assert (running.transport, said) == ("kernel", [])
    (running.mountpoint / "a").write_bytes(b"through our own")
    running.stop()
    running.stop()
    assert mount_at(plan.mountpoint) is None


@pytest.mark.usefixtures("broken")
def test_auto_falls_back_and_says_why(plan: run.Plan) -> None:
    said: list[str] = []
    running = run.start(plan, said.append)
    assert running.transport == "pyfuse3"
    assert said[0] == "the kernel transport does not work here: this kernel is from another age"
    assert "locks are this machine's only" in said[1]
    (running.mountpoint / "a").write_bytes(b"through libfuse")
    assert (running.mountpoint / "a").read_bytes() == b"through libfuse"
    with pytest.raises(SettingError, match="one mount a process"):
        run.start(
            run.Plan(volume=plan.volume, mountpoint=plan.mountpoint.with_name("two"), transport="pyfuse3"), said.append
        )
    running.stop()
    assert mount_at(plan.mountpoint) is None


@pytest.mark.usefixtures("broken")
def test_what_was_asked_for_is_not_replaced(plan: run.Plan) -> None:
    asked = run.Plan(volume=plan.volume, mountpoint=plan.mountpoint, transport="kernel")
    with pytest.raises(SettingError, match="another age"):
        run.start(asked, lambda _: None)
    assert mount_at(plan.mountpoint) is None


@pytest.mark.usefixtures("broken")
def test_where_both_fail_the_first_reason_stands(plan: run.Plan) -> None:
    from fscore.mount.options import MountOptions

    asked = run.Plan(
        volume=plan.volume, mountpoint=plan.mountpoint, options=MountOptions(fuse_options=("no_such_word",))
    )
    with pytest.raises(SettingError, match="another age"):
        run.start(asked, lambda _: None)
    assert mount_at(plan.mountpoint) is None
