"""Listings page by page, on every engine: names in a stream, attributes of many nodes at once, own changes known."""

from __future__ import annotations

import pytest

from fscore.domain.attr import Entry
from fscore.domain.caller import Caller
from fscore.domain.errors import NotADir, NotFound
from fscore.meta.engine import SupportsNodes
from fscore.meta.service import MetaService
from tests.kit.engines import MakeMeta

ROOT = Caller.root()


def scanned(meta: MetaService, ino: int) -> dict[bytes, Entry]:
    """Every entry of a directory by name."""
    return {entry.name: entry for batch, _ in meta.scan(ROOT, ino) for entry in batch}


def test_a_scan_gives_every_name_once(meta: MetaService) -> None:
    made = {b"f%04d" % number: meta.create(ROOT, 1, b"f%04d" % number, 0o644)[0] for number in range(300)}
    made[b"d"] = meta.mkdir(ROOT, 1, b"d", 0o755)[0]
    found = [entry for batch, _ in meta.scan(ROOT, 1) for entry in batch]
    assert {entry.name: entry.ino for entry in found} == made
    assert len(found) == len(made)
    assert all(entry.attr is None for entry in found)


def test_many_nodes_at_once(meta: MetaService) -> None:
    inos = [meta.create(ROOT, 1, b"f%d" % number, number)[0] for number in range(150)]
    meta.unlink(ROOT, 1, b"f7")
    found = meta.nodes([*inos, 1, 999_999])
    assert found[7] is None
    assert found[-1] is None
    expected = [None if number == 7 else meta.getattr(ino, fresh=True) for number, ino in enumerate(inos)]
    assert found[:150] == expected
    assert found[150] == meta.getattr(1, fresh=True)
    assert meta.nodes([]) == []


def test_the_engines_that_can_fetch_many_nodes_do(meta: MetaService) -> None:
    if isinstance(meta.engine, SupportsNodes):
        assert meta.engine.nodes([1, 1, 2]) == [meta.getattr(1), meta.getattr(1), None]


def test_who_is_sure_of_the_directory_is_told_the_same(meta: MetaService) -> None:
    ino, _ = meta.create(ROOT, 1, b"f", 0o600)
    assert meta.lookup(ROOT, 1, b"f", sure=True)[0] == ino
    with pytest.raises(NotFound):
        meta.lookup(ROOT, 1, b"g", sure=True)
    with pytest.raises(NotADir):
        meta.lookup(ROOT, ino, b"g")


def test_own_changes_of_names_are_known(meta: MetaService) -> None:
    other, _ = meta.mkdir(ROOT, 1, b"other", 0o755)
    for name in (b"a", b"b", b"c"):
        meta.create(ROOT, 1, name, 0o644)
    since = meta.changes
    assert meta.touched(1, since) == frozenset()
    meta.unlink(ROOT, 1, b"a")
    meta.rename(ROOT, 1, b"b", other, b"moved")
    assert meta.touched(1, since) == frozenset({b"a", b"b"})
    assert meta.touched(other, since) == frozenset({b"moved"})
    assert meta.touched(1, meta.changes) == frozenset()


def test_a_child_that_was_seen_is_found_without_asking(make_meta: MakeMeta) -> None:
    meta = make_meta()
    ino, attr = meta.create(ROOT, 1, b"f", 0o644)
    assert meta.cached_child(ROOT, 1, b"f") == (ino, attr)
    assert meta.cached_child(ROOT, 1, b"unknown") is None
    meta.unlink(ROOT, 1, b"f")
    assert meta.cached_child(ROOT, 1, b"f") is None
    assert meta.cached_node(ino) is None


def test_a_cached_child_is_nobodys_who_may_not_enter(meta: MetaService) -> None:
    place, _ = meta.mkdir(ROOT, 1, b"closed", 0o700)
    meta.create(ROOT, place, b"f", 0o644)
    stranger = Caller(7, 7)
    meta.getattr(place)
    try:
        found = meta.cached_child(stranger, place, b"f")
    except PermissionError:
        found = None
    assert found is None
