"""The node cache: ceilings, own changes, and what arrives too late to be kept."""

from __future__ import annotations

from fscore.domain.attr import Attr, Flag, Kind
from fscore.meta.cache import FIXED_S, TOUCHED, NodeCache
from fscore.meta.records import Edge

FILE = Attr(Kind.FILE, 0o644)
FOLDER = Attr(Kind.DIRECTORY, 0o755)
EDGE = Edge(Kind.FILE, 7)


def learned(cache: NodeCache, now: float = 100.0) -> NodeCache:
    """A cache that has just seen entry `f` of directory 1, inode 7."""
    cache.learn_edge(1, b"f", EDGE, FILE, now, cache.epoch)
    return cache


def test_what_was_seen_stays_until_the_ceiling() -> None:
    cache = learned(NodeCache(1.0))
    assert (cache.edge(1, b"f", 100.9), cache.node(7, 100.9)) == (EDGE, FILE)
    assert (cache.edge(1, b"f", 101.0), cache.node(7, 101.0)) == (None, None)
    assert (cache.known_ino(1, b"f"), cache.known_node(7)) == (7, FILE), "as a hint it is still good"
    assert (cache.known_ino(1, b"g"), cache.known_node(8)) == (0, None)


def test_a_ceiling_of_zero_keeps_nothing() -> None:
    cache = learned(NodeCache(0.0))
    cache.changed({7: FILE}, {(1, b"f"): EDGE}, 100.0, cache.epoch)
    assert (cache.known_ino(1, b"f"), cache.known_node(7)) == (0, None)


def test_immutable_nodes_and_their_entries_stay_longer() -> None:
    cache = NodeCache(1.0)
    cache.learn_node(1, Attr(Kind.DIRECTORY, 0o755, flags=Flag.IMMUTABLE), 100.0, cache.epoch)
    learned(cache)
    assert cache.node(1, 100 + FIXED_S - 0.1)
    assert cache.edge(1, b"f", 100 + FIXED_S - 0.1) == EDGE
    assert cache.node(7, 102.0) is None
    assert cache.edge(1, b"f", 100 + FIXED_S) is None


def test_own_changes_replace_and_remove() -> None:
    cache = learned(NodeCache(1.0))
    grown = Attr(Kind.FILE, 0o644, length=5)
    cache.changed({7: grown, 8: FOLDER}, {(1, b"f"): None, (1, b"g"): EDGE}, 100.5, cache.epoch)
    assert (cache.node(7, 101.2), cache.node(8, 101.2)) == (grown, FOLDER)
    assert (cache.edge(1, b"f", 100.6), cache.edge(1, b"g", 100.6)) == (None, EDGE)
    cache.changed({7: None}, {}, 100.7, cache.epoch)
    assert cache.node(7, 100.8) is None


def test_changes_that_ran_side_by_side_leave_nothing_behind() -> None:
    """Which of two was last nobody knows here, so that neither is kept."""
    cache = learned(NodeCache(1.0))
    began = cache.epoch
    cache.changed({7: Attr(Kind.FILE, 0o600)}, {(1, b"f"): EDGE}, 100.1, began)
    cache.changed({7: Attr(Kind.FILE, 0o640)}, {(1, b"f"): EDGE}, 100.2, began)
    assert (cache.node(7, 100.3), cache.edge(1, b"f", 100.3)) == (None, None)


def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    cache = NodeCache(1.0)
    began = cache.epoch
    cache.changed({9: FOLDER}, {}, 100.0, began)
    cache.learn_node(7, FILE, 100.1, began)
    cache.learn_edge(1, b"f", EDGE, FILE, 100.1, began)
    assert (cache.node(7, 100.2), cache.edge(1, b"f", 100.2)) == (None, None)
    cache.forget(9)
    assert cache.node(9, 100.2) is None


def test_it_is_bounded_and_drops_the_oldest() -> None:
    cache = NodeCache(1.0, capacity=10)
    for number in range(100):
        cache.learn_edge(1, b"%d" % number, Edge(Kind.FILE, number), FILE, 100.0, cache.epoch)
    known = [number for number in range(100) if cache.known_ino(1, b"%d" % number)]
    assert 5 <= len(known) <= 10
    assert known == list(range(known[0], 100))
    cache.clear()
    assert cache.edge(1, b"99", 100.1) is None


def test_own_changes_of_names_are_remembered_for_a_while() -> None:
    cache = NodeCache(1.0)
    since = cache.epoch
    cache.changed({}, {(1, b"a"): EDGE, (2, b"b"): None}, 100.0, since)
    assert (cache.touched(1, since), cache.touched(2, since)) == (frozenset({b"a"}), frozenset({b"b"}))
    assert cache.touched(1, cache.epoch) == frozenset()
    for number in range(TOUCHED):
        cache.changed({}, {(3, b"%d" % number): None}, 100.0, cache.epoch)
    assert cache.touched(1, since) is None, "too long ago to say"
    assert cache.touched(3, cache.epoch - 1) == frozenset({b"%d" % (TOUCHED - 1)})
