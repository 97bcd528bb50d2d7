"""Every byte is shared or new, never both; few long ranges; twins travel once."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.digest import FileDigest
from fscore.hub.plan import BIG, SMALL_SHARE, Known, Location, New, PushPlan, Shared, key_of, plan_push
from fscore.hub.scan import HashedFile, Segment

POOL = "/pool"
LENGTHS = [100, 5000, SMALL_SHARE - 1, SMALL_SHARE, 1 << 20, BIG - 1, BIG, BIG + 17]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file(path: str, *parts: tuple[str, int]) -> HashedFile:
    """A file of segments given as (content, length)."""
    segments, position = [], 0
    for content, length in parts:
        segments.append(Segment(position, length, sha(f"{content}/{length}"), "", content))
        position += length
    whole = sha(repr(parts))
    return HashedFile(path, FileDigest(position, whole[:32], whole), tuple(segments))


def known(*files: HashedFile, prefix: str = "/old") -> Known:
    """The index of these files, lying below `prefix`."""
    parts: dict[tuple[str, int], list[Location]] = {}
    for one in files:
        for segment in one.segments:
            parts.setdefault(key_of(segment), []).append(Location(f"{prefix}/{one.path}", segment.offset))
    return Known({one.digest: [Location(f"{prefix}/{one.path}", 0)] for one in files}, parts)


def check_rules(files: list[HashedFile], plan: PushPlan, index: Known) -> None:
    content_at: dict[tuple[str, int], tuple[str, int]] = {}
    places = {POOL: [(new.segments[0].sha256, new.length) for new in plan.pool]}
    position = 0
    for sha256, length in places[POOL]:
        content_at[(POOL, position)] = (sha256, length)
        position += length
    for key, found in index.parts.items():
        for place in found:
            content_at[(place.path, place.offset)] = key
    for one, planned in zip(files, plan.files, strict=True):
        assert planned.path == one.path
        assert sum(piece.length for piece in planned.pieces) == one.size
        position = 0
        for piece in planned.pieces:
            assert piece.length > 0
            if isinstance(piece, New):
                assert (piece.file, piece.offset) == (one.path, position)
            elif one.digest not in index.files:
                inside = [s for s in one.segments if position <= s.offset < position + piece.length]
                for segment in inside:
                    where = (piece.path, piece.offset + segment.offset - position)
                    assert content_at[where] == key_of(segment)
            position += piece.length
    assert plan.bytes_new + plan.bytes_shared == sum(one.size for one in files)
    assert plan.bytes_shared >= 0


def test_unknown_files_are_new_and_cut_at_big_tensors() -> None:
    one = file("m", ("h", 4096), ("a", 100), ("b", BIG), ("c", BIG + 1), ("d", 10), ("e", 20))
    plan = plan_push([one], Known(), POOL)
    assert [piece.length for piece in plan.files[0].pieces] == [4196, BIG, BIG + 1, 30]
    assert plan.bytes_new == one.size
    assert plan.pool == ()


def test_a_known_file_is_one_range() -> None:
    one = file("m", ("h", 10), ("a", BIG))
    plan = plan_push([file("n", ("h", 10), ("a", BIG))], known(one), POOL)
    assert plan.files[0].pieces == (Shared("/old/m", 0, one.size),)
    assert plan.bytes_new == 0


def test_an_edited_header_costs_the_header() -> None:
    old = file("m", ("h", 4096), *((f"t{n}", BIG) for n in range(10)))
    new = file("m", ("H", 4096), *((f"t{n}", BIG) for n in range(10)))
    plan = plan_push([new], known(old), POOL)
    assert plan.files[0].pieces == (New("m", (new.segments[0],)), Shared("/old/m", 4096, 10 * BIG))


def test_small_tensors_between_big_ones_do_not_break_a_range() -> None:
    parts = [(f"t{n}", BIG if n % 2 else 512) for n in range(20)]
    old = file("m", ("h", 10), *parts)
    new = file("m", ("H", 10), *[("x", BIG) if n == 9 else part for n, part in enumerate(parts)])
    pieces = plan_push([new], known(old), POOL).files[0].pieces
    assert [type(piece) for piece in pieces] == [New, Shared, New, Shared]
    assert sum(piece.length for piece in pieces if isinstance(piece, New)) == 10 + BIG


def test_crumbs_between_new_bytes_travel() -> None:
    old = file("m", ("a", 1000), ("b", BIG))
    new = file("m", ("x", BIG), ("a", 1000), ("y", BIG))
    plan = plan_push([new], known(old), POOL)
    assert plan.bytes_shared == 0
    assert [piece.length for piece in plan.files[0].pieces] == [BIG, 1000, BIG]


def test_twins_in_one_push_travel_once() -> None:
    one = file("a", ("t", BIG), ("t", BIG), ("u", 100))
    two = file("b", ("t", BIG))
    plan = plan_push([one, two], Known(), POOL)
    assert [new.length for new in plan.pool] == [BIG]
    assert plan.bytes_new == BIG + 100
    assert plan.bytes_shared == 2 * BIG
    assert plan.files[1].pieces == (Shared(POOL, 0, BIG),)


def test_the_place_that_continues_a_range_is_taken() -> None:
    old = file("m", ("a", BIG), ("b", BIG), ("c", BIG))
    other = file("o", ("b", BIG))
    index = known(old)
    places = {key: [*found] for key, found in index.parts.items()}
    places[key_of(other.segments[0])].insert(0, Location("/other/o", 0))
    plan = plan_push([file("n", ("a", BIG), ("b", BIG), ("c", BIG))], Known({}, places), POOL)
    assert plan.files[0].pieces == (Shared("/old/m", 0, 3 * BIG),)


def test_an_empty_file_has_no_pieces() -> None:
    plan = plan_push([file("e")], known(file("e")), POOL)
    assert plan.files[0].pieces == ()
    assert plan.bytes_total == 0


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 3))
def test_the_rules_hold_for_any_push(seed: int, count: int, olds: int) -> None:
    rng = random.Random(seed)

    def some(name: str) -> HashedFile:
        return file(name, *((rng.choice("abcdefgh"), rng.choice(LENGTHS)) for _ in range(rng.randrange(12))))

    index = known(*(some(f"old{n}") for n in range(olds)))
    files = [some(f"new{n}") for n in range(count)]
    check_rules(files, plan_push(files, index, POOL), index)
