"""A rank's part of one tensor: which bytes of the source it is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fscore.domain.errors import HubError
from fscore.hub.formats.api import DTYPE_BITS, TensorEntry
from fscore.hub.formats.config import ModelConfig
from fscore.hub.split.families import Matched
from fscore.hub.split.layout import Item, Key, Part
from fscore.hub.split.pieces import Fill, Gather, Ref
from fscore.hub.split.rules import Cut, Rank, cut_for, expert_range, scale_cut

REUSED = 64 << 10
"""Gathered bytes from this size on are written once and referred to by other expert ranks."""

_BLOCK_SCALES = ("_scale_inv",)
_SCALES = ("_scale_inv", "_scale")
_INPUT_SCALES = (".input_scale", ".k_scale", ".v_scale", ".activation_scale")


class ItemMaker:
    """Makes items of one model. `table` has every tensor by its name, for scales follow their weights."""

    def __init__(
        self, config: ModelConfig, table: Mapping[str, TensorEntry], vocab_multiple: int, cutover: int
    ) -> None:
        self._config = config
        self._table = table
        self._vocab_multiple = vocab_multiple
        self._cutover = cutover

    @staticmethod
    def base_name(name: str) -> str:
        """The weight that a scale belongs to; the name itself for anything else."""
        for suffix in _INPUT_SCALES:
            if name.endswith(suffix):
                return f"{name.removesuffix(suffix)}.weight"
        for suffix in _SCALES:
            if name.endswith(f".weight{suffix}"):
                return name.removesuffix(suffix)
        return name

    def make(self, entry: TensorEntry, found: Matched, rank: Rank) -> Item:
        """The rank's part of a tensor."""
        dims = found.rule.dims
        base = self.base_name(entry.name)
        if base != entry.name:
            return self._scale(entry, base, found, rank)
        if dims != ("...",) and len(dims) != len(entry.shape):
            raise HubError(
                f"tensor {entry.name} has {len(entry.shape)} dimensions, family rules say {' x '.join(dims)}"
            )
        if dims[0] == "E":
            entry = self._own_experts(entry, rank)
        return self._cut_item(entry, found, rank, self._cut(entry, found, rank))

    def _cut(self, entry: TensorEntry, found: Matched, rank: Rank) -> Cut | None:
        dims = found.rule.dims
        try:
            return cut_for(
                dims,
                entry.shape,
                self._config,
                rank,
                expert=found.expert is not None,
                vocab_multiple=self._vocab_multiple,
            )
        except HubError as error:
            raise HubError(f"tensor {entry.name}: {error.args[0]}", hint=error.hint) from None

    def _scale(self, entry: TensorEntry, base: str, found: Matched, rank: Rank) -> Item:
        weight = self._table.get(base)
        if weight is None:
            raise HubError(f"tensor {entry.name} has no weight {base}")
        cut = self._cut(weight, found, rank) if entry.elements > 1 else None
        if cut is None:
            return self._cut_item(entry, found, rank, None)
        blocks = self._config.quant_block
        if entry.name.endswith(_BLOCK_SCALES) or (blocks and len(entry.shape) == len(weight.shape) == len(blocks)):
            if len(blocks) != len(entry.shape):
                raise HubError(f"tensor {entry.name}: config.json gives no weight_block_size for it")
            try:
                whole = weight.shape[cut.dim]
                cut = scale_cut(cut, blocks[cut.dim], whole, entry.shape[cut.dim])
            except HubError as error:
                raise HubError(f"tensor {entry.name}: {error.args[0]}", hint=error.hint) from None
        elif cut.dim >= len(entry.shape) or entry.shape[cut.dim] != weight.shape[cut.dim]:
            cut = None
        return self._cut_item(entry, found, rank, cut)

    def _own_experts(self, entry: TensorEntry, rank: Rank) -> TensorEntry:
        start, stop = expert_range(entry.shape[0], rank.grid.ep, rank.expert_rank)
        each = entry.nbytes // max(1, entry.shape[0])
        shape = (stop - start, *entry.shape[1:])
        at = entry.offset + start * each
        return TensorEntry(entry.name, entry.dtype, shape, entry.file, at, (stop - start) * each)

    def _cut_item(self, entry: TensorEntry, found: Matched, rank: Rank, cut: Cut | None) -> Item:
        if cut is None:
            whole = (Ref(entry.file, entry.offset, entry.nbytes),) if entry.nbytes else ()
            return self._item(entry, found, rank, entry.shape, whole, "whole")
        parts = cut_parts(entry, cut, self._cutover)
        return self._item(entry, found, rank, cut.shape(entry.shape), parts, cut.how)

    def _item(
        self, entry: TensorEntry, found: Matched, rank: Rank, shape: tuple[int, ...], parts: tuple[Part, ...], how: str
    ) -> Item:
        nbytes = sum(part.length for part in parts)
        gathered = parts[0] if parts and isinstance(parts[0], Gather) else None
        axis = rank.grid.ep > 1 and not rank.grid.experts_over_tp
        key: Key | None = (entry.name, gathered.spans) if gathered and axis and nbytes >= REUSED else None
        how = "columns" if gathered else how
        return Item(
            entry.name, entry.dtype, shape, parts, nbytes, found.rule.pattern, " ".join(found.rule.dims), how, key
        )


def cut_parts(entry: TensorEntry, cut: Cut, cutover: int) -> tuple[Part, ...]:
    """The bytes of a cut: ranges where they are long enough, else a gather."""
    bits = math.prod(entry.shape[cut.dim + 1 :]) * DTYPE_BITS[entry.dtype]
    if bits % 8:
        raise HubError(f"tensor {entry.name}: a cut of {entry.dtype} would split a byte")
    inner = bits // 8
    outer = math.prod(entry.shape[: cut.dim])
    width = entry.shape[cut.dim] * inner
    spans = [(start * inner, stop * inner) for start, stop in cut.spans if stop > start]
    if outer > 1 and cut.pad:
        raise HubError(f"tensor {entry.name}: only its first dimension can be padded")
    if outer > 1 and spans and min(stop - start for start, stop in spans) < cutover:
        return (Gather(entry.file, entry.offset, outer, width, tuple(spans)),)
    parts: list[Part] = []
    for row in range(outer):
        base = entry.offset + row * width
        parts.extend(Ref(entry.file, base + start, stop - start) for start, stop in spans)
    if cut.pad:
        parts.append(Fill(cut.pad * inner))
    return tuple(parts)
