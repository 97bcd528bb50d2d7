"""Checkpoints made with numpy alone: any family, any size, seeded, and variants in which some tensors differ.

python -m fscore_airflow.demo.checkpoints OUT --mb 300 --shard-mb 100
python -m fscore_airflow.demo.checkpoints OUT2 --vary OUT --fraction 0.1
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from fscore_airflow.demo.shapes import FAMILIES, Blueprint, Size

_WIDTH = {"BF16": 2, "F16": 2, "F32": 4}
_NOISE = {"BF16": (np.uint16, 0x000F), "F16": (np.uint16, 0x000F), "F32": (np.uint32, 0xFFFF)}
_BATCH = 1 << 20
_SCALE = 0.02


def write_checkpoint(
    target: str | Path,
    family: str = "llama",
    *,
    size: Size | None = None,
    nbytes: int | None = None,
    shard_bytes: int = 100_000_000,
    seed: int = 1,
) -> Path:
    """Write a checkpoint that transformers loads: shards, index, config, tokenizer. Returns its directory.

    Give a `size`, or `nbytes` for a Llama of about that many bytes.
    """
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    plan = FAMILIES[family](size or (sized(nbytes) if nbytes else Size()))
    shards = list(_shards(plan, shard_bytes))
    weight_map: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        total += _write_file(folder / name, tensors, plan.dtype, seed)
        weight_map.update(dict.fromkeys((tensor for tensor, _ in tensors), name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)
    _write_json(folder / "config.json", plan.config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    _write_tokenizer(folder, plan.config["vocab_size"])
    (folder / "README.md").write_text(
        f"---\nlicense: apache-2.0\n---\n# A made {family} model\n\nIts weights are random.\n"
    )
    return folder


def sized(nbytes: int) -> Size:
    """A Llama of about `nbytes` in bf16, whose heads divide by 8."""
    big = nbytes > 3_000_000_000
    hidden, heads, inner, vocab = (2048, 32, 5632, 32000) if big else (1024, 16, 2816, 32000)
    if nbytes < 100_000_000:
        hidden, heads, inner, vocab = 512, 8, 1408, 8000
    head_dim, kv_heads = hidden // heads, 4
    layer = 2 * hidden * hidden + 2 * hidden * kv_heads * head_dim + 3 * hidden * inner
    layers = max(2, round((nbytes / 2 - 2 * vocab * hidden) / layer))
    return Size(hidden, layers, heads, kv_heads, head_dim, inner, vocab)


def vary(
    source: str | Path, target: str | Path, *, fraction: float | None = None, tensors: int | None = None, seed: int = 2
) -> list[str]:
    """Copy a model and change the low bits of some float tensors; returns their names.

    `tensors` counts them; `fraction` takes that part of them, and never more than that part of the bytes.
    """
    old, new = Path(source), Path(target)
    shutil.copytree(old, new, dirs_exist_ok=True)
    places = [place for path in sorted(new.rglob("*.safetensors")) for place in _places(path)]
    count = tensors if tensors is not None else max(1, round((fraction or 0.1) * len(places)))
    budget = sum(place[3] for place in places) * (fraction or 1.0)
    rng = np.random.default_rng(seed)
    changed: list[str] = []
    for at in rng.permutation(len(places)):
        path, name, offset, length, dtype = places[at]
        if len(changed) == count:
            break
        if dtype in _NOISE and 0 < length <= budget:
            _disturb(path, offset, length, dtype, rng)
            budget -= length
            changed.append(name)
    return sorted(changed)


def _places(path: Path) -> Iterator[tuple[Path, str, int, int, str]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield path, name, 8 + length + begin, end - begin, entry["dtype"]


def _disturb(path: Path, offset: int, length: int, dtype: str, rng: np.random.Generator) -> None:
    kind, mask = _NOISE[dtype]
    values = np.memmap(path, dtype=kind, mode="r+", offset=offset, shape=(length // np.dtype(kind).itemsize,))
    for start in range(0, len(values), _BATCH):
        part = values[start : start + _BATCH]
        noise = rng.integers(0, mask + 1, size=len(part), dtype=kind)
        noise[0] |= 1
        part ^= noise
    values.flush()


@cache
def _normal_bf16() -> npt.NDArray[np.uint16]:
    """All quantiles of N(0, 0.02) as bf16 bits: a random index is a random weight."""
    inverse = NormalDist(0, _SCALE).inv_cdf
    quantiles = np.array([inverse((at + 0.5) / 65536) for at in range(65536)], dtype=np.float32)
    return (quantiles.view(np.uint32) >> 16).astype(np.uint16)


def _content(name: str, count: int, dtype: str, seed: int) -> Iterator[npt.NDArray[Any]]:
    rng = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    if "norm" in name.lower() or ".ln_" in name:
        values = (1 + _SCALE * rng.standard_normal(count)).astype(np.float32)
        yield (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "BF16" else values
        return
    table = _normal_bf16()
    for start in range(0, count, _BATCH):
        batch = min(_BATCH, count - start)
        words = rng.integers(0, 1 << 64, size=-(-batch // 4), dtype=np.uint64)
        bits = table[words.view(np.uint16)[:batch]]
        if dtype == "BF16":
            yield bits
        else:
            low = rng.integers(0, 1 << 64, size=-(-batch // 4), dtype=np.uint64).view(np.uint16)[:batch]
            yield (bits.astype(np.uint32) << 16) | low


def _write_file(path: Path, tensors: list[tuple[str, tuple[int, ...]]], dtype: str, seed: int) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors:
        end = at + _count(shape) * _WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    body = json.dumps(header, separators=(",", ":")).encode()
    body = body.ljust(-(-len(body) // 8) * 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(body)) + body)
        for name, shape in tensors:
            for part in _content(name, _count(shape), dtype, seed):
                file.write(part.data)
    return at


def _shards(plan: Blueprint, shard_bytes: int) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    held = 0
    for name, shape in plan.tensors:
        length = _count(shape) * _WIDTH[plan.dtype]
        if shard and held + length > shard_bytes:
            yield shard
            shard, held = [], 0
        shard.append((name, shape))
        held += length
    yield shard


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A byte-level tokenizer without merges: three special tokens and the 256 bytes."""
    bytes_ = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in bytes_] + [chr(256 + at) for at in range(256 - len(bytes_))]
    tokens = ["<pad>", "<s>", "</s>", *letters][:vocab_size]
    vocab = {token: number for number, token in enumerate(tokens)}
    special = [
        {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for number, token in enumerate(tokens[:3])
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    body: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []},
    }  # fmt: skip
    _write_json(folder / "tokenizer.json", body)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 512,
    }
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line: make a checkpoint, or a variant of one."""
    parser = argparse.ArgumentParser(description="Make a checkpoint of random weights, or a variant of one.")
    parser.add_argument("target")
    parser.add_argument("--family", default="llama", choices=sorted(FAMILIES))
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--shard-mb", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vary", metavar="SOURCE", help="copy SOURCE and change some of its tensors")
    parser.add_argument("--fraction", type=float, default=0.1)
    said = parser.parse_args(arguments)
    if said.vary:
        changed = vary(said.vary, said.target, fraction=said.fraction, seed=said.seed)
        sys.stdout.write("".join(f"{name}\n" for name in changed))
        return 0
    nbytes = said.mb * 1_000_000 if said.family == "llama" else None
    write_checkpoint(said.target, said.family, nbytes=nbytes, shard_bytes=said.shard_mb * 1_000_000, seed=said.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
