"""The arithmetic of a split: which index ranges of which dimension a rank holds. Pure numbers, no files.

Rule 1  heads stay whole: a query head is head_dim rows; a TP degree must divide the heads.
Rule 2  fewer key-value heads than ranks: head r // (tp / kv) is held by several ranks.
Rule 3  the vocabulary is padded with zero rows to a multiple of lcm(64, tp), then cut evenly (vLLM, SGLang).
Rule 4  parts laid one after the other (`q+kv+kv`) are cut each on its own.
Rule 5  experts are whole on one expert rank: E // ep each, the first E % ep one more (vLLM, linear).
Rule 6  the scales of block-quantised weights are cut where the weight is, so the cut must fall on a block.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats.config import ModelConfig

Span = tuple[int, int]

_INNER = {"i": "intermediate size", "mi": "expert intermediate size", "si": "shared expert intermediate size"}


class Grid(msgspec.Struct, frozen=True):
    """The parallel degrees. With `experts_over_tp` the expert ranks are the tensor ranks (vLLM), not an own axis."""

    tp: int = 1
    pp: int = 1
    ep: int = 1
    experts_over_tp: bool = False

    def ranks(self) -> list[Rank]:
        """Every rank; expert rank 0 comes before the others, which may refer to its files."""
        axis = 1 if self.experts_over_tp else self.ep
        return [Rank(self, t, p, e) for e in range(axis) for p in range(self.pp) for t in range(self.tp)]


class Rank(msgspec.Struct, frozen=True):
    """One place in the grid."""

    grid: Grid
    tp: int
    pp: int
    ep: int = 0

    @property
    def name(self) -> str:
        """`tp0-pp1`, with `-ep0` where experts have an axis of their own."""
        own = self.grid.ep > 1 and not self.grid.experts_over_tp
        return f"tp{self.tp}-pp{self.pp}" + (f"-ep{self.ep}" if own else "")

    @property
    def expert_rank(self) -> int:
        """Which share of the experts it holds."""
        return self.tp if self.grid.experts_over_tp else self.ep

    @property
    def expert_tp(self) -> tuple[int, int]:
        """(degree, rank) by which each of its experts is split."""
        return (1, 0) if self.grid.experts_over_tp else (self.grid.tp, self.tp)


class Cut(msgspec.Struct, frozen=True):
    """Index ranges of one dimension, in order, and zero rows after them. `how` is the reason in one word."""

    dim: int
    spans: tuple[Span, ...]
    pad: int = 0
    how: str = "rows"

    @property
    def length(self) -> int:
        """The dimension's size in the rank's tensor."""
        return sum(stop - start for start, stop in self.spans) + self.pad

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the rank's tensor."""
        return (*whole[: self.dim], self.length, *whole[self.dim + 1 :])


def check_degrees(config: ModelConfig, grid: Grid, axes: Collection[str], *, has_experts: bool) -> None:
    """Refuse degrees that the model cannot be split by, each with those that it can; `axes` are the split ones."""
    if min(grid.tp, grid.pp, grid.ep) < 1:
        raise HubError(f"TP={grid.tp} PP={grid.pp} EP={grid.ep}: degrees start at 1")
    if grid.pp > config.layers:
        raise HubError(f"PP={grid.pp} is more than the {config.layers} layers", hint=f"use PP <= {config.layers}")
    if config.heads % grid.tp:
        raise HubError(f"TP={grid.tp} does not divide the {config.heads} attention heads", hint=_divisors(config.heads))
    if config.kv_heads % grid.tp and grid.tp % config.kv_heads:
        raise HubError(
            f"TP={grid.tp} neither divides the {config.kv_heads} key-value heads nor is a multiple of them",
            hint=_divisors(config.heads, config.kv_heads),
        )
    for axis, name in _INNER.items():
        if axis in axes and _size(axis, config) % grid.tp:
            size = _size(axis, config)
            raise HubError(f"TP={grid.tp} does not divide the {name} {size}", hint=_divisors(size, config.heads))
    if grid.ep > 1 and not has_experts:
        raise HubError(f"EP={grid.ep}, but the model has no experts", hint="use EP=1")
    if has_experts and grid.ep > config.experts:
        raise HubError(f"EP={grid.ep} is more than the {config.experts} experts", hint=f"use EP <= {config.experts}")
    if grid.experts_over_tp and grid.ep != grid.tp:
        raise HubError(f"experts over tensor ranks need EP=TP, not EP={grid.ep} TP={grid.tp}")


def owns_expert(config: ModelConfig, rank: Rank, expert: int) -> bool:
    """Whether the rank holds this expert."""
    start, stop = expert_range(config.experts, rank.grid.ep, rank.expert_rank)
    return start <= expert < stop


def expert_range(experts: int, ep: int, rank: int) -> Span:
    """The experts of one expert rank."""
    share, extra = divmod(experts, ep)
    start = rank * share + min(rank, extra)
    return start, start + share + (1 if rank < extra else 0)


def cut_for(
    dims: tuple[str, ...], shape: tuple[int, ...], config: ModelConfig, rank: Rank, *, expert: bool, vocab_multiple: int
) -> Cut | None:
    """The cut of a tensor with these dimensions on a rank; None when the rank holds it whole.

    `shape` may be that of the weight's scales, a quotient of the weight's: see `scale_cut`.
    """
    degree, number = rank.expert_tp if expert or dims[0] == "E" else (rank.grid.tp, rank.tp)
    if degree == 1:
        return None
    dim, parts = split_axis(dims)
    if not parts:
        return None
    if parts == ("v",):
        return _vocabulary(dim, shape[dim], degree, number, vocab_multiple)
    spans, base = [], 0
    for part in parts:
        size = _size(part, config)
        start, stop = _share(part, size, config, degree, number)
        spans.append((base + start, base + stop))
        base += size
    if base != shape[dim]:
        raise HubError(f"dimension {dim} has {shape[dim]} entries, the config promises {base}")
    how = "kv heads" if parts == ("kv",) and config.kv_heads < degree else ("packed" if len(parts) > 1 else "even")
    return Cut(dim, tuple(spans), how=how)


@cache
def split_axis(dims: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """(dimension, its parts) of the one dimension that tensor ranks share; (0, ()) when they share none."""
    for dim, axis in enumerate(dims):
        parts = tuple(axis.split("+"))
        if parts == ("v",) or set(parts) <= {"q", "kv", "i", "mi", "si"}:
            return dim, parts
    return 0, ()


def scale_cut(cut: Cut, block: int, whole: int, scales: int) -> Cut:
    """The cut of block scales from that of their weight; refuses a cut inside a block (rule 6)."""
    spans = []
    for start, stop in cut.spans:
        if start % block or (stop % block and stop != whole):
            raise HubError(
                f"a cut at {start}:{stop} falls inside a quantisation block of {block}",
                hint="use a smaller TP, whose cuts are multiples of the block",
            )
        spans.append((start // block, min(-(-stop // block), scales)))
    return Cut(cut.dim, tuple(spans), how=cut.how)


def padded_vocabulary(size: int, tp: int, multiple: int) -> int:
    """Rows after padding: the next multiple of lcm(multiple, tp)."""
    unit = math.lcm(multiple, tp)
    return -(-size // unit) * unit


def _vocabulary(dim: int, size: int, degree: int, number: int, multiple: int) -> Cut:
    share = padded_vocabulary(size, degree, multiple) // degree
    start, stop = min(number * share, size), min((number + 1) * share, size)
    spans = ((start, stop),) if stop > start else ()
    return Cut(dim, spans, pad=share - (stop - start), how="vocabulary")


def _size(axis: str, config: ModelConfig) -> int:
    if axis == "q":
        return config.heads * config.head_dim
    if axis == "kv":
        return config.kv_heads * config.head_dim
    return {"i": config.intermediate, "mi": config.moe_intermediate, "si": config.shared_intermediate}[axis]


def _share(axis: str, size: int, config: ModelConfig, degree: int, number: int) -> Span:
    if axis == "kv" and config.kv_heads < degree:
        head = number // (degree // config.kv_heads)
        return head * config.head_dim, (head + 1) * config.head_dim
    if size % degree:
        raise HubError(f"TP={degree} does not divide {size}", hint=_divisors(size))
    share = size // degree
    return number * share, (number + 1) * share


def _divisors(*sizes: int) -> str:
    common = math.gcd(*sizes)
    degrees = ", ".join(str(degree) for degree in range(1, min(common, 128) + 1) if common % degree == 0)
    return f"use one of TP {degrees}"
