"""Configs and tensor lists of well-known model families, as transformers names and shapes them.

Written from the families' own checkpoints, apart from the split rules, so that each can prove the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tensors = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Size:
    """The numbers a made model is built from."""

    hidden: int = 64
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 8
    inner: int = 96
    vocab: int = 1000
    experts: int = 4
    expert_inner: int = 48
    positions: int = 128
    tied: bool = False


@dataclass(frozen=True)
class Blueprint:
    """What a checkpoint of one family looks like: its config, its tensors in order, its dtype."""

    config: dict[str, Any]
    tensors: Tensors
    dtype: str


def _common(size: Size, model_type: str, architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
        "head_dim": size.head_dim,
        "hidden_act": "silu",
        "hidden_size": size.hidden,
        "initializer_range": 0.02,
        "intermediate_size": size.inner,
        "max_position_embeddings": max(size.positions, 512),
        "model_type": model_type,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "num_key_value_heads": size.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": size.tied,
        "transformers_version": "4.57.0",
        "vocab_size": size.vocab,
    }


def _attention(size: Size, at: str, *, bias: bool = False, qk_norm: bool = False) -> Tensors:
    h, q, kv = size.hidden, size.heads * size.head_dim, size.kv_heads * size.head_dim
    found: Tensors = []
    for name, rows in (("q", q), ("k", kv), ("v", kv)):
        found.append((f"{at}.{name}_proj.weight", (rows, h)))
        if bias:
            found.append((f"{at}.{name}_proj.bias", (rows,)))
    found.append((f"{at}.o_proj.weight", (h, q)))
    if qk_norm:
        found += [(f"{at}.q_norm.weight", (size.head_dim,)), (f"{at}.k_norm.weight", (size.head_dim,))]
    return found


def _mlp(
    hidden: int, inner: int, at: str, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
) -> Tensors:
    gate, up, down = names
    return [
        (f"{at}.{gate}.weight", (inner, hidden)),
        (f"{at}.{up}.weight", (inner, hidden)),
        (f"{at}.{down}.weight", (hidden, inner)),
    ]


def _decoder(size: Size, layer: Callable[[str], Tensors]) -> Tensors:
    h = size.hidden
    found: Tensors = [("model.embed_tokens.weight", (size.vocab, h))]
    for number in range(size.layers):
        at = f"model.layers.{number}"
        found.append((f"{at}.input_layernorm.weight", (h,)))
        found += layer(at)
        found.append((f"{at}.post_attention_layernorm.weight", (h,)))
    found.append(("model.norm.weight", (h,)))
    if not size.tied:
        found.append(("lm_head.weight", (size.vocab, h)))
    return found


def llama(size: Size) -> Blueprint:
    """Llama 2 and 3."""

    def layer(at: str) -> Tensors:
        return _attention(size, f"{at}.self_attn") + _mlp(size.hidden, size.inner, f"{at}.mlp")

    return Blueprint(_common(size, "llama", "LlamaForCausalLM"), _decoder(size, layer), "BF16")


def mistral(size: Size) -> Blueprint:
    """Mistral: Llama's tensors under another name."""
    made = llama(size)
    config = {**_common(size, "mistral", "MistralForCausalLM"), "sliding_window": None}
    return Blueprint(config, made.tensors, "BF16")


def qwen2(size: Size) -> Blueprint:
    """Qwen2 and 2.5: biases on q, k and v."""

    def layer(at: str) -> Tensors:
        return _attention(size, f"{at}.self_attn", bias=True) + _mlp(size.hidden, size.inner, f"{at}.mlp")

    return Blueprint(_common(size, "qwen2", "Qwen2ForCausalLM"), _decoder(size, layer), "BF16")


def qwen3(size: Size) -> Blueprint:
    """Qwen3: norms on the heads of q and k."""

    def layer(at: str) -> Tensors:
        return _attention(size, f"{at}.self_attn", qk_norm=True) + _mlp(size.hidden, size.inner, f"{at}.mlp")

    return Blueprint(_common(size, "qwen3", "Qwen3ForCausalLM"), _decoder(size, layer), "BF16")


def phi3(size: Size) -> Blueprint:
    """Phi-3: q, k and v in one tensor, gate and up in another."""
    h, q, kv = size.hidden, size.heads * size.head_dim, size.kv_heads * size.head_dim

    def layer(at: str) -> Tensors:
        return [
            (f"{at}.self_attn.qkv_proj.weight", (q + 2 * kv, h)),
            (f"{at}.self_attn.o_proj.weight", (h, q)),
            (f"{at}.mlp.gate_up_proj.weight", (2 * size.inner, h)),
            (f"{at}.mlp.down_proj.weight", (h, size.inner)),
        ]

    config = {**_common(size, "phi3", "Phi3ForCausalLM"), "pad_token_id": 0}
    return Blueprint(config, _decoder(size, layer), "BF16")


def gemma(size: Size) -> Blueprint:
    """Gemma: tied embeddings."""
    tied = _tied(size)
    config = {**_common(tied, "gemma", "GemmaForCausalLM"), "hidden_act": "gelu_pytorch_tanh"}
    return Blueprint(config, llama(tied).tensors, "BF16")


def gemma2(size: Size) -> Blueprint:
    """Gemma 2: two more norms in each layer."""
    tied, h = _tied(size), size.hidden

    def layer(at: str) -> Tensors:
        found = _attention(tied, f"{at}.self_attn") + _mlp(h, tied.inner, f"{at}.mlp")
        return [
            *found,
            (f"{at}.pre_feedforward_layernorm.weight", (h,)),
            (f"{at}.post_feedforward_layernorm.weight", (h,)),
        ]

    config = {
        **_common(tied, "gemma2", "Gemma2ForCausalLM"),
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": tied.head_dim,
        "sliding_window": 4096,
    }
    return Blueprint(config, _decoder(tied, layer), "BF16")


def gemma3(size: Size) -> Blueprint:
    """Gemma 3, text alone: Gemma 2's norms and Qwen3's."""
    tied, h = _tied(size), size.hidden

    def layer(at: str) -> Tensors:
        found = _attention(tied, f"{at}.self_attn", qk_norm=True) + _mlp(h, tied.inner, f"{at}.mlp")
        return [
            *found,
            (f"{at}.pre_feedforward_layernorm.weight", (h,)),
            (f"{at}.post_feedforward_layernorm.weight", (h,)),
        ]

    config = {
        **_common(tied, "gemma3_text", "Gemma3ForCausalLM"),
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": tied.head_dim,
        "sliding_window": 512,
    }
    return Blueprint(config, _decoder(tied, layer), "BF16")


def mixtral(size: Size) -> Blueprint:
    """Mixtral: experts w1, w2, w3 behind a router in every layer."""

    def layer(at: str) -> Tensors:
        moe = f"{at}.block_sparse_moe"
        found = [*_attention(size, f"{at}.self_attn"), (f"{moe}.gate.weight", (size.experts, size.hidden))]
        for expert in range(size.experts):
            found += _mlp(size.hidden, size.inner, f"{moe}.experts.{expert}", ("w1", "w3", "w2"))
        return found

    config = {
        **_common(size, "mixtral", "MixtralForCausalLM"),
        "num_local_experts": size.experts,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    }
    return Blueprint(config, _decoder(size, layer), "BF16")


def qwen3_moe(size: Size) -> Blueprint:
    """Qwen3-MoE: many small experts, the first layer dense here so that both kinds occur."""

    def layer(at: str) -> Tensors:
        found = _attention(size, f"{at}.self_attn", qk_norm=True)
        if at.endswith(".0"):
            return found + _mlp(size.hidden, size.inner, f"{at}.mlp")
        found.append((f"{at}.mlp.gate.weight", (size.experts, size.hidden)))
        for expert in range(size.experts):
            found += _mlp(size.hidden, size.expert_inner, f"{at}.mlp.experts.{expert}")
        return found

    config = {
        **_common(size, "qwen3_moe", "Qwen3MoeForCausalLM"),
        "num_experts": size.experts,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": size.expert_inner,
        "mlp_only_layers": [0],
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    }
    return Blueprint(config, _decoder(size, layer), "BF16")


def qwen2_moe(size: Size) -> Blueprint:
    """Qwen2-MoE: experts, and one that all tokens share."""
    h = size.hidden

    def layer(at: str) -> Tensors:
        found = [*_attention(size, f"{at}.self_attn", bias=True), (f"{at}.mlp.gate.weight", (size.experts, h))]
        for expert in range(size.experts):
            found += _mlp(h, size.expert_inner, f"{at}.mlp.experts.{expert}")
        return [
            *found,
            *_mlp(h, size.inner, f"{at}.mlp.shared_expert"),
            (f"{at}.mlp.shared_expert_gate.weight", (1, h)),
        ]

    config = {
        **_common(size, "qwen2_moe", "Qwen2MoeForCausalLM"),
        "num_experts": size.experts,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": size.expert_inner,
        "shared_expert_intermediate_size": size.inner,
    }
    return Blueprint(config, _decoder(size, layer), "BF16")


def gpt2(size: Size) -> Blueprint:
    """GPT-2: fused q, k and v, weights stored [in, out], the head tied."""
    h = size.heads * size.head_dim
    inner = 4 * h
    found: Tensors = [("transformer.wte.weight", (size.vocab, h)), ("transformer.wpe.weight", (size.positions, h))]
    for number in range(size.layers):
        at = f"transformer.h.{number}"
        found += [
            (f"{at}.ln_1.weight", (h,)),
            (f"{at}.ln_1.bias", (h,)),
            (f"{at}.attn.c_attn.weight", (h, 3 * h)),
            (f"{at}.attn.c_attn.bias", (3 * h,)),
            (f"{at}.attn.c_proj.weight", (h, h)),
            (f"{at}.attn.c_proj.bias", (h,)),
            (f"{at}.ln_2.weight", (h,)),
            (f"{at}.ln_2.bias", (h,)),
            (f"{at}.mlp.c_fc.weight", (h, inner)),
            (f"{at}.mlp.c_fc.bias", (inner,)),
            (f"{at}.mlp.c_proj.weight", (inner, h)),
            (f"{at}.mlp.c_proj.bias", (h,)),
        ]
    found += [("transformer.ln_f.weight", (h,)), ("transformer.ln_f.bias", (h,))]
    config = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2",
        "n_embd": h,
        "n_head": size.heads,
        "n_inner": None,
        "n_layer": size.layers,
        "n_positions": size.positions,
        "vocab_size": size.vocab,
    }
    return Blueprint(config, found, "F32")


def bert(size: Size) -> Blueprint:
    """BERT with a masked-language head that shares the embedding."""
    h = size.heads * size.head_dim
    at = "bert.embeddings"
    found: Tensors = [
        (f"{at}.word_embeddings.weight", (size.vocab, h)),
        (f"{at}.position_embeddings.weight", (size.positions, h)),
        (f"{at}.token_type_embeddings.weight", (2, h)),
        *_norm(f"{at}.LayerNorm", h),
    ]
    for number in range(size.layers):
        at = f"bert.encoder.layer.{number}"
        for name in ("query", "key", "value"):
            found += _linear(f"{at}.attention.self.{name}", h, h)
        found += [*_linear(f"{at}.attention.output.dense", h, h), *_norm(f"{at}.attention.output.LayerNorm", h)]
        found += _linear(f"{at}.intermediate.dense", size.inner, h)
        found += [*_linear(f"{at}.output.dense", h, size.inner), *_norm(f"{at}.output.LayerNorm", h)]
    found += [("cls.predictions.bias", (size.vocab,)), *_linear("cls.predictions.transform.dense", h, h)]
    found += _norm("cls.predictions.transform.LayerNorm", h)
    config = {
        "architectures": ["BertForMaskedLM"],
        "hidden_act": "gelu",
        "hidden_size": h,
        "intermediate_size": size.inner,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": size.positions,
        "model_type": "bert",
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": size.vocab,
    }
    return Blueprint(config, found, "F32")


def roberta(size: Size) -> Blueprint:
    """RoBERTa: BERT's body, one token type, a head of other names."""
    body = bert(size)
    h = size.heads * size.head_dim
    found = [(name.replace("bert.", "roberta."), shape) for name, shape in body.tensors if not name.startswith("cls.")]
    types = "roberta.embeddings.token_type_embeddings.weight"
    found = [(name, (1, h) if name == types else shape) for name, shape in found]
    found += [("lm_head.bias", (size.vocab,)), *_linear("lm_head.dense", h, h), *_norm("lm_head.layer_norm", h)]
    config = {**body.config, "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "type_vocab_size": 1}
    return Blueprint(config, found, "F32")


def _tied(size: Size) -> Size:
    return Size(**{**size.__dict__, "tied": True})


def _linear(at: str, rows: int, columns: int) -> Tensors:
    return [(f"{at}.weight", (rows, columns)), (f"{at}.bias", (rows,))]


def _norm(at: str, width: int) -> Tensors:
    return [(f"{at}.weight", (width,)), (f"{at}.bias", (width,))]


FAMILIES: dict[str, Callable[[Size], Blueprint]] = {
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "phi3": phi3,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "mixtral": mixtral,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "gpt2": gpt2,
    "bert": bert,
    "roberta": roberta,
}
