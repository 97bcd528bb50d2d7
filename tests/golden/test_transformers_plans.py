"""Our dimension rules against the tensor and expert parallel plans that transformers itself ships.

The plans are those of transformers 5.23, written down by `CONFIG_MAPPING[name].base_model_{tp,ep}_plan`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fscore.hub.split.families import FAMILIES

PLANS: dict[str, Any] = json.loads((Path(__file__).parent / "transformers_plans.json").read_text())["plans"]
SPLIT = {"q", "kv", "i", "mi", "si", "v"}


def split_dimension(dims: tuple[str, ...]) -> int | None:
    """Which dimension of a tensor our rules cut over tensor ranks."""
    cut = [number for number, axis in enumerate(dims) if set(axis.split("+")) <= SPLIT]
    assert len(cut) <= 1
    return cut[0] if cut else None


@pytest.mark.parametrize("family", sorted(name for name, plan in PLANS.items() if plan["tp"]))
def test_tensor_parallel(family: str) -> None:
    checked = 0
    for pattern, style in PLANS[family]["tp"].items():
        name = "model." + pattern.replace("*", "0")
        found = FAMILIES[family].match(f"{name}.weight") or FAMILIES[family].match(name)
        if found is None:
            assert style == "moe_tp_experts", f"{name} has no rule"
            continue
        dims, at = found.rule.dims, split_dimension(found.rule.dims)
        if style.startswith("rowwise"):
            assert at == len(dims) - 1, name
        elif "colwise" in style:
            assert at == len(dims) - 2, name
            assert ("+" in dims[at]) == (style == "packed_colwise" or family == "phi3"), name
        else:
            assert at is None, f"{name}: {style}"
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize("family", sorted(name for name, plan in PLANS.items() if plan["ep"]))
def test_expert_parallel(family: str) -> None:
    styles = {name: style for name, style in PLANS[family]["ep"].items() if style == "grouped_gemm"}
    assert len(styles) == 2
    for pattern in styles:
        found = FAMILIES[family].match("model." + pattern.replace("*", "0"))
        assert found is not None
        assert found.rule.dims[0] == "E"
