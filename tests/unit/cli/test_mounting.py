"""Options of `fscore mount` as JuiceFS writes them, and the arguments of the helper that mount(8) calls."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from fscore.cli import mounting
from fscore.cli.commands.mount import command
from fscore.cli.errors import WrongUse
from fscore.cli.helper import translate
from fscore.cli.main import build, mount_options
from fscore.mount.options import MountOptions
from fscore.volume import Options

DEFAULTS: dict[str, Any] = {
    name: (command.__kwdefaults__ or {}).get(name) for name in command.__annotations__ if name != "return"
}


def given(**changes: Any) -> dict[str, Any]:
    """The command's arguments: its defaults, a volume and a directory, and what a test sets."""
    return DEFAULTS | {"volume": "sqlite3:///m.db", "directory": "/mnt"} | changes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("300", 300 << 20), ("100G", 100 << 30), ("1.5T", 3 << 39), ("64k", 65536), ("5 MiB", 5 << 20)],
)
def test_sizes(text: str, expected: int) -> None:
    assert mounting.size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1.0), ("1.5s", 1.5), ("100ms", 0.1), ("2m", 120.0), ("1h", 3600.0), ("1d", 86400.0)]
)
def test_times(text: str, expected: float) -> None:
    assert mounting.seconds(text) == expected


@pytest.mark.parametrize("parse", [mounting.size, mounting.seconds])
@pytest.mark.parametrize("text", ["", "x", "-1", "1y", "1 2"])
def test_what_is_neither_is_refused(parse: Any, text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse(text)


def test_nothing_asked_is_nothing_said() -> None:
    plan = mounting.plan_of(given())
    assert plan.asked == {}
    assert (plan.transport, plan.prefix, plan.options.read_only) == ("auto", ".", False)
    assert plan.options.allow_other == (os.geteuid() == 0), "root mounts for everybody"


def test_options_reach_the_volume_and_the_kernel() -> None:
    plan = mounting.plan_of(
        given(
            cache_dir="cache",
            cache_size=5 << 30,
            buffer_size=1 << 20,
            prefetch=0,
            upload_limit=8.0,
            max_uploads=3,
            whole_cache="all",
            attr_cache=7.0,
            enable_xattr=True,
            subdir="/models",
            prefix_internal=True,
            read_only=True,
        )
    )
    assert plan.asked == {
        "cache_dir": str(Path.cwd() / "cache"),
        "cache_size": 5 << 30,
        "buffer_size": 1 << 20,
        "read_ahead": 0,
        "upload_limit": 1_000_000,
        "upload_threads": 3,
        "whole": "all",
        "read_only": True,
    }
    options = plan.options
    assert (options.attr_cache_s, options.enable_xattr, options.subdir, options.read_only) == (
        7.0,
        True,
        "/models",
        True,
    )
    assert plan.prefix == ".jfs."


def test_every_option_leads_somewhere() -> None:
    assert set(mounting._VOLUME_OPTIONS.values()) <= set(Options.__struct_fields__)
    assert set(mounting._MOUNT_OPTIONS.values()) <= set(MountOptions.__struct_fields__)
    handled = {*mounting._VOLUME_OPTIONS, *mounting._MOUNT_OPTIONS, *mounting._ONLY_JUICEFS}
    by_hand = {"volume", "directory", "background", "log", "transport", "fuse", "allow_other", "read_only", "cache_dir"}
    by_hand |= {"prefetch", "upload_limit", "download_limit", "hide_internal", "prefix_internal", "writeback"}
    assert set(DEFAULTS) == handled | by_hand


def helps() -> dict[str, str]:
    """What `fscore mount --help` says of each option that is shown, by the argument's name."""
    group = typer.main.get_command(build(["mount"]))
    assert isinstance(group, TyperGroup)
    shown = [one for one in group.commands["mount"].params if not getattr(one, "hidden", False)]
    return {str(one.name): str(getattr(one, "help", "")) for one in shown}


def test_the_help_states_the_defaults_that_hold() -> None:
    """Parsed as if somebody had typed them, the stated defaults are those of a mount that is told nothing."""
    real = {option: getattr(Options(whole="auto"), name) for option, name in mounting._VOLUME_OPTIONS.items()}
    real |= {option: getattr(MountOptions(), name) for option, name in mounting._MOUNT_OPTIONS.items()}
    real |= {option: getattr(Options(), option) / mounting.MEGABIT for option in ("upload_limit", "download_limit")}
    texts = helps()
    silent = []
    for option, value in real.items():
        stated = re.search(r"\(default: ([^,;)]+)", texts[option])
        if stated is None:
            silent.append(option)
        elif isinstance(value, str):
            assert stated[1] == value, option
        elif option in {"cache_size", "memory_cache", "buffer_size", "max_readahead"}:
            assert mounting.size(stated[1]) == value, option
        else:
            assert mounting.seconds(stated[1]) == value, option
    assert sorted(silent) == ["bucket", "enable_xattr", "subdir"], "what is empty or off needs no word"


def test_the_help_states_where_cache_and_log_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for uid in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        for option, place in (("cache_dir", mounting.default_cache()), ("log", mounting.default_log())):
            stated = re.search(r"\(default: (\S+) as root, else (\S+)\)", helps()[option])
            assert stated is not None, option
            assert stated[1 if uid == 0 else 2].replace("~", str(tmp_path)) == str(place)


def test_words_of_o() -> None:
    options, read_only = mounting.mount_options(given(fuse=["ro,nosuid", "fsname=x,allow_other"], allow_other=None))
    assert read_only
    assert (options.fsname, options.allow_other, options.fuse_options) == ("x", True, ("nosuid",))


def test_what_cannot_be() -> None:
    for option, name in (("transport", "--transport"), ("whole_cache", "--whole-cache"), ("atime_mode", "--atime")):
        with pytest.raises(WrongUse, match=name):
            mounting.plan_of(given(**{option: "libfuse"}))
    with pytest.raises(WrongUse, match="writeback"):
        mounting.plan_of(given(writeback=True))
    with pytest.raises(WrongUse, match="one directory"):
        mounting.plan_of(given(cache_dir="/a:/b"))


def test_options_of_juicefs_that_do_no_harm() -> None:
    assert mounting.ignored(given(backup_meta="0", no_usage_report=True)) == ["--backup-meta", "--no-usage-report"]
    assert mounting.plan_of(given(cache_dir="memory")).asked == {"cache_dir": ""}


def test_the_helper_sorts_the_words_of_fstab() -> None:
    words = "ro,_netdev,nofail,x-systemd.automount,cache-size=5G,cache_dir=/c,enable-xattr,nosuid,fsname=a=b"
    arguments = ["redis://h/1", "/mnt", "-n", "-o", words, "-t", "fuse.fscore"]
    assert translate(arguments, mount_options()) == [
        "mount",
        "--background",
        "--read-only",
        "--cache-size=5G",
        "--cache-dir=/c",
        "--enable-xattr",
        "-o",
        "nosuid,fsname=a=b",
        "--",
        "redis://h/1",
        "/mnt",
    ]


def test_the_helper_without_options_and_the_dry_run() -> None:
    assert translate(["v", "/mnt"], {}) == ["mount", "--background", "--", "v", "/mnt"]
    assert translate(["v", "/mnt", "-sfv", "-o", "ro"], {}) is None


def test_an_option_without_its_value_stays_a_word() -> None:
    assert translate(["v", "/m", "-o", "cache-size"], mount_options()) == [
        "mount", "--background", "-o", "cache-size", "--", "v", "/m",
    ]  # fmt: skip
