"""The spelling of paths."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.errors import Invalid, TooLong
from fscore.files import paths
from fscore.meta.service.sweeps import UNFINISHED


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("/", "/"),
        ("", "/"),
        (".", "/"),
        ("a", "/a"),
        ("/a/b", "/a/b"),
        ("//a/./b//", "/a/b"),
        ("/a/../b", "/b"),
        ("a/b/..", "/a"),
        ("/a/...", "/a/..."),
        ("/.hidden", "/.hidden"),
        ("/a/.b", "/a/.b"),
    ],
)
def test_one_spelling(typed: str, spelled: str) -> None:
    assert paths.normal(typed) == spelled


@pytest.mark.parametrize("typed", ["..", "/..", "/a/../..", "a/../../etc/passwd"])
def test_no_path_leaves_the_volume(typed: str) -> None:
    with pytest.raises(Invalid, match="leaves the volume"):
        paths.normal(typed)


def test_nul_is_no_path() -> None:
    with pytest.raises(Invalid):
        paths.normal("/a\0b")


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"/" not in raw and b"\0" not in raw))
def test_every_stored_name_survives(raw: bytes) -> None:
    assert paths.encode(paths.decode(raw)) == raw


@given(st.lists(st.sampled_from(["a", "b", ".", "", "x.y"]), max_size=8))
def test_normal_agrees_with_posix(parts: list[str]) -> None:
    assert paths.normal("/" + "/".join(parts)) == posixpath.normpath("/" + "/".join(parts)).replace("//", "/")


@given(st.lists(st.sampled_from(["a", "..", "b", "c"]), max_size=8))
def test_normal_is_stable(parts: list[str]) -> None:
    try:
        once = paths.normal("/".join(parts))
    except Invalid:
        return
    assert paths.normal(once) == once
    assert ".." not in once.split("/")


def test_split_join_and_below() -> None:
    assert paths.split("/a/b") == ("/a", "b")
    assert paths.split("/a") == ("/", "a")
    assert paths.split("/") == ("/", "")
    assert paths.join("/a", "b", "c") == "/a/b/c"
    assert paths.is_below("/a/b", "/a")
    assert paths.is_below("/a", "/a")
    assert not paths.is_below("/ab", "/a")
    assert paths.is_below("/ab", "/")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0"])
def test_names_that_no_entry_can_have(name: str) -> None:
    with pytest.raises(Invalid):
        paths.check_name(name)


def test_a_name_is_at_most_255_bytes() -> None:
    assert len(paths.check_name("ä" * 127)) == 254
    with pytest.raises(TooLong):
        paths.check_name("ä" * 128)


def test_text_that_is_no_name() -> None:
    with pytest.raises(Invalid):
        paths.encode("\ud800")


@pytest.mark.parametrize("name", ["a", "größe", "x" * 255, "ü" * 127, "\udcff"])
def test_a_name_for_the_time_of_writing_is_swept_away(name: str) -> None:
    raw = paths.check_name(paths.beside(name))
    assert UNFINISHED.fullmatch(raw)
    raw.decode()
