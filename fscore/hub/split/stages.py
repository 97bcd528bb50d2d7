"""Which pipeline stage holds which layers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fscore.domain.errors import HubError


def partition(layers: int, pp: int, how: str | Sequence[int] = "vllm", weights: Sequence[int] = ()) -> list[int]:
    """Layers of each stage.

    `vllm`: the remainder goes one each to stages pp-2, pp-3 ... (get_pp_indices). `hf`: the last stage takes it.
    `bytes`: the heaviest stage is as light as can be; `weights` are the bytes of each layer, and of what lies before
    the first and after the last (so layers + 2 numbers). Or the counts themselves.
    """
    if not isinstance(how, str):
        counts = list(how)
        if len(counts) != pp or sum(counts) != layers or min(counts) < 1:
            raise HubError(f"a partition of {counts} does not share {layers} layers among {pp} stages")
        return counts
    share, extra = divmod(layers, pp)
    if how == "vllm":
        counts = [share] * pp
        for back in range(2, extra + 2):
            counts[-back] += 1
        return counts
    if how == "hf":
        return [share] * (pp - 1) + [share + extra]
    if how == "bytes":
        return _balanced(layers, pp, weights)
    raise HubError(f"no such partition: {how}", hint="use vllm, hf, bytes or the counts themselves")


def stage_ranges(counts: Sequence[int]) -> list[tuple[int, int]]:
    """(first, one past last) layer of each stage."""
    ranges, start = [], 0
    for count in counts:
        ranges.append((start, start + count))
        start += count
    return ranges


def _balanced(layers: int, pp: int, weights: Sequence[int]) -> list[int]:
    """The least heavy maximum, by bisection over what a stage may weigh; each stage has a layer at least."""
    before, *middle, after = weights
    if len(middle) != layers:
        raise HubError(f"{len(middle)} weights for {layers} layers")
    loads = list(middle)
    loads[0] += before
    loads[-1] += after
    low, high = max(loads), sum(loads)
    while low < high:
        limit = (low + high) // 2
        if _greedy(loads, pp, limit) is None:
            low = limit + 1
        else:
            high = limit
    found = _greedy(loads, pp, high)
    assert found is not None
    return found


def _greedy(loads: Sequence[int], pp: int, limit: int) -> list[int] | None:
    counts: list[int] = []
    held = load = 0
    for at, weight in enumerate(loads):
        stages_left = pp - len(counts) - 1
        must_close = len(loads) - at == stages_left and held
        if held and (load + weight > limit or must_close):
            counts.append(held)
            held, load = 0, 0
        held += 1
        load += weight
    counts.append(held)
    return counts if len(counts) == pp else None
