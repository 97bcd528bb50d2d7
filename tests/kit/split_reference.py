"""What each rank must hold, by slicing whole tensors with numpy. Written apart from the split rules, on purpose.

Takes every tensor as an array of elements of raw bytes, so that all dtypes are alike.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8, "F8_E4M3": 1}


def load(folder: Path) -> dict[str, Array]:
    """All tensors of a checkpoint, as unsigned integers of their width."""
    found: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        for name, entry in json.loads(raw[8 : 8 + length]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            kind = np.dtype(f"<u{_WIDTH[entry['dtype']]}")
            found[name] = np.frombuffer(raw[begin:end], kind).reshape(entry["shape"])
    return found


class Reference:
    """The expected tensors of every rank of one checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.tensors = load(folder)
        config = json.loads((folder / "config.json").read_text())
        self.kind: str = config["model_type"]
        self.layers: int = config.get("num_hidden_layers", config.get("n_layer"))
        self.heads: int = config.get("num_attention_heads", config.get("n_head"))
        self.kv: int = config.get("num_key_value_heads", self.heads)
        self.experts: int = config.get("num_local_experts", config.get("num_experts", 0))
        hidden: int = config.get("hidden_size", config.get("n_embd"))
        self.head_dim: int = config.get("head_dim", hidden // self.heads)

    def rank(self, tp: int, t: int, pp: int, p: int, ep: int = 1, e: int = 0) -> dict[str, Array]:
        """Name to content of one rank."""
        expected: dict[str, Array] = {}
        for name, whole in self.tensors.items():
            if self._stage(name, pp, p) and self._expert(name, ep, e):
                expected[name] = self._part(name, whole, tp, t)
        return expected

    def _stage(self, name: str, pp: int, p: int) -> bool:
        layer = re.search(r"(?:layers|\.h|encoder\.layer)\.(\d+)\.", name)
        if layer:
            counts = [self.layers // pp] * pp
            for number in range(self.layers % pp):
                counts[pp - 2 - number] += 1
            return sum(counts[:p]) <= int(layer[1]) < sum(counts[: p + 1])
        tied_word = re.search(r"embed_tokens|wte\.|word_embeddings", name)
        if (
            tied_word
            and self.kind in {"gemma", "gemma2", "gemma3_text", "gpt2", "bert", "roberta"}
            and "pooler.dense.bias" not in self.tensors
        ):
            return p in {0, pp - 1}
        if re.search(r"embed_tokens|wte\.|wpe\.|embeddings\.", name):
            return p == 0
        return p == pp - 1

    def _expert(self, name: str, ep: int, e: int) -> bool:
        found = re.search(r"experts\.(\d+)\.", name)
        if not found:
            return True
        owner = [rank for rank in range(ep) for _ in range(self.experts // ep + (rank < self.experts % ep))]
        return owner[int(found[1])] == e

    def _part(self, name: str, whole: Array, tp: int, t: int) -> Array:
        if tp == 1:
            return whole
        if re.search(r"embed_tokens|lm_head\.(weight|bias)|wte\.|word_embeddings|cls\.predictions\.bias", name):
            unit = 64 * tp // math.gcd(64, tp)
            short = -len(whole) % unit
            padded = np.concatenate([whole, np.zeros((short, *whole.shape[1:]), whole.dtype)])
            return np.split(padded, tp)[t]
        if re.search(r"\.[kv]_proj", name):
            heads = whole.reshape(self.kv, self.head_dim, *whole.shape[1:])
            mine = heads[t // (tp // self.kv)][None] if self.kv < tp else np.split(heads, tp)[t]
            return mine.reshape(-1, *whole.shape[1:])
        if "qkv_proj" in name:
            edges = [self.heads * self.head_dim, (self.heads + self.kv) * self.head_dim]
            return np.concatenate([np.split(part, tp)[t] for part in np.split(whole, edges)])
        if "gate_up_proj" in name:
            return np.concatenate([np.split(half, tp)[t] for half in np.split(whole, 2)])
        if self.kind == "gpt2":
            return self._gpt2(name, whole, tp, t)
        if re.search(r"q_proj|gate_proj|up_proj|\.w1\.|\.w3\.|self\.(query|key|value)|intermediate\.dense", name):
            return np.split(whole, tp)[t]
        columns = re.search(r"o_proj|down_proj|\.w2\.|layer\.\d+\.(attention\.)?output\.dense\.weight", name)
        return np.split(whole, tp, axis=1)[t] if columns else whole

    @staticmethod
    def _gpt2(name: str, whole: Array, tp: int, t: int) -> Array:
        if "c_attn" in name:
            thirds = np.split(whole, 3, axis=-1)
            return np.concatenate([np.split(third, tp, axis=-1)[t] for third in thirds], axis=-1)
        if "c_fc" in name:
            return np.split(whole, tp, axis=-1)[t]
        return np.split(whole, tp)[t] if "c_proj.weight" in name else whole
