"""References, aliases, layouts and paths: what is taken and what is refused."""

from __future__ import annotations

import pytest

from fscore.domain.errors import HubError
from fscore.hub.names import (
    Ref,
    check_alias,
    check_rank,
    layout_name,
    parse_layout,
    parse_ref,
    safe_relative,
    split_entry,
)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("nlp/minilm", Ref("nlp", "minilm")),
        ("nlp/minilm@3", Ref("nlp", "minilm", 3)),
        ("nlp/minilm@v12", Ref("nlp", "minilm", 12)),
        ("nlp/all-MiniLM-L6_v2.1:prod", Ref("nlp", "all-MiniLM-L6_v2.1", alias="prod")),
    ],
)
def test_references_are_read_and_written(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref
    assert parse_ref(str(ref)) == ref


@pytest.mark.parametrize(
    "text",
    ["", "nlp", "nlp/", "/m", "a/b/c", "nlp/m@", "nlp/m@0", "nlp/m@x", "nlp/m@-1", "nlp/m:3", "nlp/m:v3", "nlp/m:",
     "../m", "nlp/..", "nlp/.m", "nlp/m+tp2-pp2", "n lp/m", "nlp/m\n", "nlp/" + "m" * 97, "nlp/m:a+b", "nlp/ü"],
)  # fmt: skip
def test_bad_references_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(HubError) as refused:
        parse_ref(text)
    assert "\n" not in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    "path", ["../x", "a/../x", "/x", "a//b", "./a", "a/", "", "a\\b", "a\0b", ".fscore/manifest.json"]
)
def test_paths_that_escape_are_unsafe(path: str) -> None:
    with pytest.raises(HubError, match="unsafe path") as refused:
        safe_relative(path)
    assert refused.value.kind == "unsafe"


def test_plain_paths_are_safe() -> None:
    for path in ("config.json", "1_Pooling/config.json", "a/.hidden", "..a/b..", "a/.fscore"):
        assert safe_relative(path) == path


def test_layouts_have_one_name() -> None:
    assert layout_name(2, 1) == "tp2-pp1"
    assert layout_name(2, 2, 4) == "tp2-pp2-ep4"
    assert parse_layout("tp2-pp1") == (2, 1, 1)
    assert parse_layout("tp16-pp2-ep4") == (16, 2, 4)
    for bad in ("tp2", "tp0-pp1", "tp2-pp2-ep0x", "pp2-tp2", "tp2-pp2+x"):
        with pytest.raises(HubError):
            parse_layout(bad)
    with pytest.raises(HubError, match="at least 1"):
        layout_name(0, 1)


def test_ranks_cannot_lead_elsewhere() -> None:
    assert check_rank("tp0-pp1") == "tp0-pp1"
    for bad in ("tp0", "../tp0-pp1", "tp0-pp1/", ""):
        with pytest.raises(HubError):
            check_rank(bad)


def test_entries_of_a_model_directory() -> None:
    assert split_entry("3") == (3, "")
    assert split_entry("12+tp2-pp2") == (12, "tp2-pp2")
    for other in ("prod", "03", "0", "3+x", ".prod.ab.tmp", "3+", "²"):
        assert split_entry(other) is None


def test_an_alias_is_no_number() -> None:
    assert check_alias("prod-eu.1") == "prod-eu.1"
    for bad in ("3", "v3", "", "a/b", ".x", "a+b"):
        with pytest.raises(HubError):
            check_alias(bad)
