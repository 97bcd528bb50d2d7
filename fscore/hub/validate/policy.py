"""What a release must be like, where teams may differ."""

from __future__ import annotations

import msgspec

from fscore.hub.formats.api import DTYPE_BITS


class Expectations(msgspec.Struct, frozen=True):
    """The policy of a validation. `required` files must be there; without `wanted` ones there is a warning."""

    allow_pickle: bool = False
    allow_remote_code: bool = True
    required: tuple[str, ...] = ("config.json",)
    wanted: tuple[str, ...] = ("tokenizer.json|tokenizer.model|vocab.txt|vocab.json",)
    dtypes: tuple[str, ...] = tuple(DTYPE_BITS)
    largest: float = 1000.0
    """Magnitudes above this are suspicious."""
    zeros: float = 0.5
    """A tensor with more zeros than this is suspicious."""
    distinct: float = 0.2
    """At least this part of the tensors must differ from each other, or nothing was trained."""


def for_format(policy: Expectations, kind: str) -> Expectations:
    """The policy for a format: what a training checkpoint or a GGUF file never brings is not asked of it."""
    if kind == "gguf":
        return msgspec.structs.replace(policy, required=(), wanted=())
    if kind in {"dcp", "torch"}:
        return msgspec.structs.replace(policy, required=(), wanted=(*policy.required, *policy.wanted))
    return policy
