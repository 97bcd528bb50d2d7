"""Versions, ACL rules, patterns and callers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.acl import ABSENT, Rule
from fscore.domain.attr import Attr, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import CorruptError
from fscore.domain.match import Matcher
from fscore.domain.version import IMPLEMENTS, parse_version


def test_versions_are_ordered_as_the_format_says() -> None:
    texts = ["1.0.0-beta2", "1.0.0", "1.1.0-A", "1.1.0-beta1", "1.1.0", "1.2.0-A", "1.4.1", "1.10.0", "2.0.0-rc1"]
    versions = [parse_version(text) for text in texts]
    assert versions == sorted(versions, key=lambda version: version or ())
    assert parse_version("1.4.1+fscore.0.1.0") == parse_version("1.4.1") == parse_version("v1.4.1+2026-06-01.abc")
    assert parse_version(IMPLEMENTS) is not None
    for text in ("", "1.4", "one", "1.4.x", "1.4.1.2"):
        assert parse_version(text) is None


def test_the_vector_of_an_acl_rule() -> None:
    stored = bytes.fromhex("0007 0005 0005 0000 00000001 000003e8 0006 00000000")
    rule = Rule.parse(stored)
    assert rule == Rule(7, 5, 5, 0, ((1000, 6),), ())
    assert rule.render() == stored
    for broken in (stored[:-1], stored + b"\0", b"", stored[:12]):
        with pytest.raises(CorruptError):
            Rule.parse(broken)


@given(
    st.tuples(*[st.integers(0, ABSENT)] * 4),
    *[st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 7)), max_size=5).map(tuple)] * 2,
)
def test_acl_rules_come_back(
    bits: tuple[int, int, int, int], users: tuple[tuple[int, int], ...], groups: tuple[tuple[int, int], ...]
) -> None:
    rule = Rule(*bits, users, groups)
    assert Rule.parse(rule.render()) == rule


@pytest.mark.parametrize(
    ("who", "granted"),
    [
        (Caller(1, 1), 7),
        (Caller(1000, 5), 4),
        (Caller(1001, 5), 0),
        (Caller(3, 2), 5),
        (Caller(3, 9, gids=(30,)), 4),
        (Caller(3, 2, gids=(30,)), 5),
        (Caller(3, 31), 0),
        (Caller(3, 3), 1),
    ],
)
def test_acl_rules_are_evaluated_in_order(who: Caller, granted: int) -> None:
    """Owner, named user under the mask, any matching group under the mask, other."""
    rule = Rule(7, 5, 5, 1, ((1000, 6), (1001, 0)), ((30, 6), (31, 2)))
    attr = Attr(Kind.FILE, 0o751, uid=1, gid=2)
    for mask in range(1, 8):
        assert rule.grants(attr, who, mask) is (granted & mask == mask)


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [
        ("*.bin", ["a.bin", "d/e/a.bin"], ["a.bin2", "abin"]),
        ("/*.bin", ["a.bin"], ["d/a.bin"]),
        ("d/*.bin", ["d/a.bin"], ["d/e/a.bin", "x/d/a.bin"]),
        ("d/**/a", ["d/a", "d/e/a", "d/e/f/a"], ["x/d/a"]),
        ("**/a", ["a", "b/a", "b/c/a"], ["b/ab"]),
        ("d/**", ["d/a", "d/e/f"], ["e/d"]),
        ("d/", ["d/a", "x/d/a", "d"], ["dd/a"]),
        ("a?c", ["abc", "x/abc"], ["ac", "a/c"]),
        ("[ab]c", ["ac", "bc"], ["cc"]),
        ("[!ab]c", ["cc"], ["ac"]),
        ("a.b", ["a.b"], ["axb"]),
        ("model-*-of-*.safetensors", ["model-00001-of-00002.safetensors"], ["model.safetensors"]),
    ],
)
def test_patterns(pattern: str, matches: list[str], misses: list[str]) -> None:
    matcher = Matcher(include=[pattern])
    assert [path for path in matches if not matcher(path)] == []
    assert [path for path in misses if matcher(path)] == []


def test_excluded_beats_included() -> None:
    matcher = Matcher(include=["*.json", "*.bin"], exclude=["onnx/", "*.tmp.json"])
    assert [path for path in ("a.json", "a.txt", "onnx/a.bin", "b.tmp.json", "c/d.bin") if matcher(path)] == [
        "a.json",
        "c/d.bin",
    ]
    assert Matcher()("anything/at/all")
    assert not Matcher(exclude=["any*"])("x/anything")
