"""config.json of a transformers model, brought to one set of names."""

from __future__ import annotations

from typing import Any

import msgspec

from fscore.hub.formats.api import FormatError
from fscore.hub.formats.strict import load_object

TIED_BY_DEFAULT = frozenset({"gemma", "gemma2", "gemma3_text", "gpt2", "bert", "roberta", "xlm-roberta"})
"""model_types whose head shares the embedding unless the config says otherwise."""

_HEAD = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForPreTraining")


class ModelConfig(msgspec.Struct, frozen=True):
    """The numbers that shapes and splits depend on; 0 where the config does not say."""

    model_type: str = ""
    architectures: tuple[str, ...] = ()
    hidden: int = 0
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    intermediate: int = 0
    vocab: int = 0
    positions: int = 0
    token_types: int = 0
    experts: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    tied: bool = False
    dtype: str = ""
    quant_method: str = ""
    quant_block: tuple[int, ...] = ()

    @property
    def has_head(self) -> bool:
        """Whether the architecture predicts tokens (so a tied embedding is needed on the last stage)."""
        return any(name.endswith(_HEAD) for name in self.architectures)


def parse_config(data: bytes, where: str = "config.json") -> tuple[ModelConfig, dict[str, Any]]:
    """The normalised config and the object as it was written."""
    raw = load_object(data, where)
    return normalise(raw, where), raw


def normalise(raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """Bring one family's names to ours; raises FormatError for numbers that are none."""
    body: dict[str, Any] = raw
    if isinstance(raw.get("text_config"), dict) and "hidden_size" not in raw:
        body = {**raw, **raw["text_config"]}

    def number(*names: str, default: int = 0) -> int:
        for name in names:
            value = body.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise FormatError(f"{where}: {name} must be a whole number, not {value!r}")
            return value
        return default

    model_type = str(body.get("model_type", ""))
    hidden = number("hidden_size", "n_embd", "d_model", "dim")
    heads = number("num_attention_heads", "n_head")
    quant = body.get("quantization_config")
    quant = quant if isinstance(quant, dict) else {}
    block = quant.get("weight_block_size")
    inner = number("n_inner") or (4 * hidden if model_type == "gpt2" else 0)
    return ModelConfig(
        model_type=model_type,
        architectures=tuple(str(name) for name in raw.get("architectures") or ()),
        hidden=hidden,
        layers=number("num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=hidden // heads if heads else 0),
        intermediate=number("intermediate_size", default=inner),
        vocab=number("vocab_size"),
        positions=number("max_position_embeddings", "n_positions"),
        token_types=number("type_vocab_size"),
        experts=number("num_local_experts", "num_experts", "n_routed_experts"),
        moe_intermediate=number("moe_intermediate_size", "intermediate_size"),
        shared_intermediate=number("shared_expert_intermediate_size"),
        tied=bool(body.get("tie_word_embeddings", model_type in TIED_BY_DEFAULT)),
        dtype=str(body.get("dtype") or body.get("torch_dtype") or ""),
        quant_method=str(quant.get("quant_method", "")),
        quant_block=tuple(block) if isinstance(block, list) and all(isinstance(n, int) for n in block) else (),
    )
