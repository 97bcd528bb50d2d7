"""What each model family's tensors are: one line a tensor, its dimensions by name. Splits and checks follow from them.

Rule 1  a dimension named here decides how its tensor is split; a dimension that is only a size never splits.
Rule 2  at most one dimension splits over tensor parallel ranks, and `E`, stacked experts, over expert parallel ranks.
Rule 3  a name that no line knows is refused, never guessed.

    h hidden   q heads x head size   kv key-value heads x head size   i inner of the MLP   mi inner of an expert
    si inner of the shared expert   v vocabulary   E stacked experts   e, hd, pos, types, 1: sizes   ...  any shape
    a+b+c: parts laid one after the other, each split on its own (models.md 2.1: packed)
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats.config import ModelConfig

EXPERT = "{e}"
_MOST_KNOWN = 200_000
"""Names remembered by a family: the largest models have 92,000, and each is asked for several times."""


class Rule(msgspec.Struct, frozen=True):
    """One line: the name below its layer, the dimensions, the stages that hold it, whether a model must have it."""

    pattern: str
    dims: tuple[str, ...]
    stage: str = "layer"
    required: bool = False


class Matched(msgspec.Struct, frozen=True):
    """A tensor's rule, its layer (None outside the layers) and its expert (None for all others)."""

    rule: Rule
    layer: int | None = None
    expert: int | None = None


class Family:
    """A table of rules, compiled once. `embedding` is what a tied head shares, `head` what it replaces."""

    def __init__(
        self, name: str, prefix: str, layers: str, rules: Iterable[Rule], *, embedding: str, head: str
    ) -> None:
        self.name = name
        self.rules = tuple(rules)
        self.embedding = embedding
        self.head = head
        self._layer = re.compile(rf"^(?:{prefix})?{layers}\.(?P<layer>\d+)\.(?P<rest>.+)$")
        self._outside = re.compile(rf"^(?:{prefix})?(?P<rest>.+)$")
        self._expert = re.compile(r"(?<=\.experts\.)(?P<expert>\d+)(?=\.)")
        self._in_layer = {rule.pattern: rule for rule in self.rules if rule.stage == "layer"}
        self._known: dict[str, Matched | None] = {}
        self._beside = {rule.pattern: rule for rule in self.rules if rule.stage != "layer"}

    def match(self, name: str) -> Matched | None:
        """The rule of a tensor name; None when the family has none."""
        if name not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[name] = self._match(name)
        return self._known[name]

    def _match(self, name: str) -> Matched | None:
        found = self._layer.match(name)
        if found is None:
            outside = self._outside.match(name)
            rule = self._beside.get(outside["rest"]) if outside else None
            return Matched(rule) if rule else None
        rest = found["rest"]
        expert = self._expert.search(rest)
        pattern = self._expert.sub(EXPERT, rest, count=1) if expert else rest
        rule = self._in_layer.get(pattern)
        if rule is None:
            return None
        return Matched(rule, int(found["layer"]), int(expert["expert"]) if expert else None)


def need(pattern: str, dims: str, stage: str = "layer") -> Rule:
    """A tensor that every model of the family has."""
    return Rule(pattern, tuple(dims.split()), stage, required=True)


def may(pattern: str, dims: str, stage: str = "layer") -> Rule:
    """A tensor that some models of the family have."""
    return Rule(pattern, tuple(dims.split()), stage)


_DECODER = (
    need("embed_tokens.weight", "v h", "first"),
    need("norm.weight", "h", "last"),
    may("lm_head.weight", "v h", "last"),
    may("lm_head.bias", "v", "last"),
    may("score.weight", "...", "last"),
    need("input_layernorm.weight", "h"),
    need("post_attention_layernorm.weight", "h"),
    need("self_attn.o_proj.weight", "h q"),
    may("self_attn.o_proj.bias", "h"),
    may("self_attn.rotary_emb.inv_freq", "..."),
)
_APART = tuple(
    rule
    for name, rows in (("q", "q"), ("k", "kv"), ("v", "kv"))
    for rule in (need(f"self_attn.{name}_proj.weight", f"{rows} h"), may(f"self_attn.{name}_proj.bias", rows))
)
_FUSED = (need("self_attn.qkv_proj.weight", "q+kv+kv h"), may("self_attn.qkv_proj.bias", "q+kv+kv"))
_HEAD_NORMS = (need("self_attn.q_norm.weight", "hd"), need("self_attn.k_norm.weight", "hd"))
_SANDWICH = (need("pre_feedforward_layernorm.weight", "h"), need("post_feedforward_layernorm.weight", "h"))


def _mlp(at: str, inner: str, names: tuple[str, str, str], *, required: bool) -> tuple[Rule, ...]:
    line = need if required else may
    gate, up, down = names
    return (
        line(f"{at}.{gate}.weight", f"{inner} h"),
        may(f"{at}.{gate}.bias", inner),
        line(f"{at}.{up}.weight", f"{inner} h"),
        may(f"{at}.{up}.bias", inner),
        line(f"{at}.{down}.weight", f"h {inner}"),
        may(f"{at}.{down}.bias", "h"),
    )


_NAMES = ("gate_proj", "up_proj", "down_proj")
_DENSE = _mlp("mlp", "i", _NAMES, required=True)
_LLAMA = (*_DECODER, *_APART, *_DENSE)
_STACKED = (may("mlp.experts.gate_up_proj", "E mi+mi h"), may("mlp.experts.down_proj", "E h mi"))
_MOE = (
    may("mlp.gate.weight", "e h"),
    *_mlp("mlp", "i", _NAMES, required=False),
    *_mlp("mlp.experts.{e}", "mi", _NAMES, required=False),
    *_mlp("mlp.shared_expert", "si", _NAMES, required=False),
    may("mlp.shared_expert_gate.weight", "1 h"),
    *_STACKED,
)


def _linear(at: str, rows: str, columns: str, stage: str = "layer", *, required: bool = True) -> tuple[Rule, ...]:
    line = need if required else may
    return line(f"{at}.weight", f"{rows} {columns}", stage), line(f"{at}.bias", rows, stage)


def _norm(at: str, stage: str = "layer", *, required: bool = True) -> tuple[Rule, ...]:
    line = need if required else may
    return line(f"{at}.weight", "h", stage), line(f"{at}.bias", "h", stage)


_BERT_BODY = (
    need("embeddings.word_embeddings.weight", "v h", "first"),
    need("embeddings.position_embeddings.weight", "pos h", "first"),
    need("embeddings.token_type_embeddings.weight", "types h", "first"),
    may("embeddings.position_ids", "...", "first"),
    *_norm("embeddings.LayerNorm", "first"),
    *(rule for name in ("query", "key", "value") for rule in _linear(f"attention.self.{name}", "q", "h")),
    *_linear("attention.output.dense", "h", "q"),
    *_norm("attention.output.LayerNorm"),
    *_linear("intermediate.dense", "i", "h"),
    *_linear("output.dense", "h", "i"),
    *_norm("output.LayerNorm"),
    *_linear("pooler.dense", "h", "h", "last", required=False),
)
_BERT = (
    *_BERT_BODY,
    may("cls.predictions.bias", "v", "last"),
    *_linear("cls.predictions.transform.dense", "h", "h", "last", required=False),
    *_norm("cls.predictions.transform.LayerNorm", "last", required=False),
    *_linear("cls.predictions.decoder", "v", "h", "last", required=False),
    may("cls.seq_relationship.weight", "...", "last"),
    may("cls.seq_relationship.bias", "...", "last"),
    may("classifier.weight", "...", "last"),
    may("classifier.bias", "...", "last"),
)
_ROBERTA = (
    *_BERT_BODY,
    may("lm_head.bias", "v", "last"),
    *_linear("lm_head.dense", "h", "h", "last", required=False),
    *_norm("lm_head.layer_norm", "last", required=False),
    *_linear("lm_head.decoder", "v", "h", "last", required=False),
)
_GPT2 = (
    need("wte.weight", "v h", "first"),
    need("wpe.weight", "pos h", "first"),
    *_norm("ln_f", "last"),
    may("lm_head.weight", "v h", "last"),
    *_norm("ln_1"),
    need("attn.c_attn.weight", "h q+q+q"),
    need("attn.c_attn.bias", "q+q+q"),
    need("attn.c_proj.weight", "q h"),
    need("attn.c_proj.bias", "h"),
    may("attn.bias", "..."),
    may("attn.masked_bias", "..."),
    *_norm("ln_2"),
    need("mlp.c_fc.weight", "h i"),
    need("mlp.c_fc.bias", "i"),
    need("mlp.c_proj.weight", "i h"),
    need("mlp.c_proj.bias", "h"),
)
_MIXTRAL = (
    *_DECODER,
    *_APART,
    may("block_sparse_moe.gate.weight", "e h"),
    *_mlp("block_sparse_moe.experts.{e}", "i", ("w1", "w3", "w2"), required=False),
    may("mlp.gate.weight", "e h"),
    may("mlp.experts.gate_up_proj", "E i+i h"),
    may("mlp.experts.down_proj", "E h i"),
)


def _decoder(name: str, rules: Iterable[Rule]) -> Family:
    return Family(name, r"model\.", "layers", rules, embedding="embed_tokens.weight", head="lm_head.weight")


_BERT_HEAD = {"embedding": "embeddings.word_embeddings.weight", "head": "cls.predictions.decoder.weight"}
_ROBERTA_HEAD = {"embedding": "embeddings.word_embeddings.weight", "head": "lm_head.decoder.weight"}
_PHI3 = (*_DECODER, *_FUSED, need("mlp.gate_up_proj.weight", "i+i h"), need("mlp.down_proj.weight", "h i"))

FAMILIES: dict[str, Family] = {
    "llama": _decoder("llama", _LLAMA),
    "mistral": _decoder("mistral", _LLAMA),
    "qwen2": _decoder("qwen2", _LLAMA),
    "qwen3": _decoder("qwen3", (*_LLAMA, *_HEAD_NORMS)),
    "phi3": _decoder("phi3", _PHI3),
    "gemma": _decoder("gemma", _LLAMA),
    "gemma2": _decoder("gemma2", (*_LLAMA, *_SANDWICH)),
    "gemma3_text": _decoder("gemma3_text", (*_LLAMA, *_SANDWICH, *_HEAD_NORMS)),
    "mixtral": _decoder("mixtral", _MIXTRAL),
    "qwen2_moe": _decoder("qwen2_moe", (*_DECODER, *_APART, *_MOE)),
    "qwen3_moe": _decoder("qwen3_moe", (*_DECODER, *_APART, *_HEAD_NORMS, *_MOE)),
    "gpt2": Family("gpt2", r"transformer\.", "h", _GPT2, embedding="wte.weight", head="lm_head.weight"),
    "bert": Family("bert", r"bert\.", r"encoder\.layer", _BERT, **_BERT_HEAD),
    "roberta": Family("roberta", r"roberta\.", r"encoder\.layer", _ROBERTA, **_ROBERTA_HEAD),
    "xlm-roberta": Family("xlm-roberta", r"roberta\.", r"encoder\.layer", _ROBERTA, **_ROBERTA_HEAD),
}


def family_of(config: ModelConfig) -> Family:
    """The table for a config; raises HubError that says which families are known."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        said = f"model_type {config.model_type}" if config.model_type else "a config without model_type"
        known = ", ".join(sorted(FAMILIES))
        raise HubError(f"no split rules for {said}", hint=f"known: {known}; release it unsplit, TP=1 and PP=1")
    return family


def dimension(token: str, config: ModelConfig) -> int | None:
    """The size that the config gives a dimension; None where any size goes."""
    if token == "...":  # noqa: S105  not a secret
        return None
    if "+" in token:
        parts = [dimension(part, config) for part in token.split("+")]
        return sum(part or 0 for part in parts)
    sizes = {
        "h": config.hidden,
        "q": config.heads * config.head_dim,
        "kv": config.kv_heads * config.head_dim,
        "hd": config.head_dim,
        "i": config.intermediate,
        "mi": config.moe_intermediate,
        "si": config.shared_intermediate,
        "v": config.vocab,
        "e": config.experts,
        "E": config.experts,
        "pos": config.positions,
        "types": config.token_types,
        "1": 1,
    }
    return sizes[token]


def expected_shape(rule: Rule, config: ModelConfig) -> tuple[int, ...] | None:
    """The shape that the config promises; None where any goes."""
    sizes = [dimension(token, config) for token in rule.dims]
    return None if None in sizes else tuple(size or 0 for size in sizes)


def missing_names(family: Family, config: ModelConfig, names: Iterable[str]) -> list[str]:
    """What a complete model would have and this one has not, as `layer 3: pattern`."""
    held: dict[int | None, dict[str, set[int]]] = {}
    for name in names:
        found = family.match(name)
        if found is not None:
            experts = held.setdefault(found.layer, {}).setdefault(found.rule.pattern, set())
            experts.add(-1 if found.expert is None else found.expert)
    outside = held.get(None, {})
    wanted = [rule.pattern for rule in family.rules if rule.required and rule.stage != "layer"]
    if config.has_head and not config.tied:
        wanted.append(family.head)
    missing = [pattern for pattern in wanted if pattern not in outside]
    for layer in range(config.layers):
        missing.extend(
            f"layer {layer}: {pattern}" for pattern in _missing_in_layer(family, config, held.get(layer, {}))
        )
    return missing


def _missing_in_layer(family: Family, config: ModelConfig, held: dict[str, set[int]]) -> list[str]:
    """Required tensors; and of dense and expert MLPs one kind, whole, with every expert."""
    missing = [rule.pattern for rule in family.rules if rule.required and rule.stage == "layer"]
    missing = [pattern for pattern in missing if pattern not in held]
    kinds: dict[str, list[str]] = {}
    for rule in family.rules:
        if len(rule.dims) > 1 and not rule.required and rule.stage == "layer" and rule.dims[0] not in {"e", "1"}:
            kinds.setdefault(rule.pattern.rpartition(".weight")[0].rpartition(".")[0] or "stacked", []).append(
                rule.pattern
            )
    begun = {kind: patterns for kind, patterns in kinds.items() if any(pattern in held for pattern in patterns)}
    if kinds and not begun:
        return [*missing, "an MLP or experts"]
    routers = [rule.pattern for rule in family.rules if rule.dims[0] == "e"]
    if any(EXPERT in pattern for patterns in begun.values() for pattern in patterns) and not held.keys() & set(routers):
        missing.append(routers[0])
    gates = [rule.pattern for rule in family.rules if rule.dims[0] == "1" and rule.pattern not in held]
    missing.extend(gates if "mlp.shared_expert" in begun else ())
    for patterns in begun.values():
        for pattern in patterns:
            if EXPERT in pattern:
                lost = sorted(set(range(config.experts)) - held.get(pattern, set()))
                missing.extend(pattern.replace(EXPERT, str(expert)) for expert in lost)
            elif pattern not in held:
                missing.append(pattern)
    return missing
