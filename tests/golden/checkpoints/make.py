"""Makes the checkpoints beside this file with the real torch (2.15 was used), tiny but whole.

    python tests/golden/checkpoints/make.py     # in an environment that has torch

Megatron's, NeMo's and DeepSpeed's own writers are not needed: their files are torch.save and
torch.distributed.checkpoint with the names and keys of models.md 1.4 and 1.5.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

HERE = Path(__file__).resolve().parent


def main() -> int:
    for folder in ("plain", "dcp", "megatron_legacy", "megatron_dist", "deepspeed", "nemo2"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
    torch.manual_seed(1)
    plain(HERE / "plain")
    mp.spawn(sharded, args=(str(HERE / "dcp" / "step-7"),), nprocs=2)
    legacy(HERE / "megatron_legacy")
    distributed(HERE / "megatron_dist")
    deepspeed(HERE / "deepspeed")
    nemo2(HERE / "nemo2" / "run--step=40")
    return 0


def plain(folder: Path) -> None:
    weight = torch.arange(32, dtype=torch.float32).reshape(4, 8).to(torch.bfloat16)
    model = collections.OrderedDict(weight=weight, tied=weight, lower=weight[2:])
    model["turned"] = torch.arange(6).reshape(2, 3).t()
    model["parameter"] = torch.nn.Parameter(torch.ones(2))
    model["small"] = torch.ones(3).to(torch.float8_e4m3fn)
    torch.save({"model": model, "args": argparse.Namespace(lr=0.1), "steps": [1, {"loss": 2.5}]}, folder / "model.pt")
    torch.save(model, folder / "legacy.pt", _use_new_zipfile_serialization=False)


def sharded(rank: int, path: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.arange(24, dtype=torch.float32).reshape(6, 4)
    state = {"model": {"weight": distribute_tensor(whole, mesh, [Shard(0)]), "bias": torch.ones(3)}, "step": 7}
    dcp.save(state, checkpoint_id=path)
    dist.destroy_process_group()


def legacy(folder: Path) -> None:
    args = argparse.Namespace(
        tensor_model_parallel_size=2, pipeline_model_parallel_size=2, expert_model_parallel_size=1, iteration=10
    )
    for tp in range(2):
        for pp in range(2):
            target = folder / "iter_0000010" / f"mp_rank_{tp:02d}_{pp:03d}"
            target.mkdir(parents=True)
            state = {
                "args": args,
                "checkpoint_version": 3.0,
                "iteration": 10,
                "model": {"decoder.layers.0.mlp.linear_fc1.weight": torch.full((2, 2), tp + 10.0 * pp)},
                "optimizer": {"state": {}},
            }
            torch.save(state, target / "model_optim_rng.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("10")


def distributed(folder: Path) -> None:
    target = folder / "iter_0000020"
    dist_weights(target)
    args = argparse.Namespace(
        tensor_model_parallel_size=2, pipeline_model_parallel_size=1, expert_model_parallel_size=1
    )
    torch.save({"args": args, "iteration": 20, "checkpoint_version": 3.0}, target / "common.pt")
    body = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch",
            "common_backend_version": 1}  # fmt: skip
    (target / "metadata.json").write_text(json.dumps(body))
    (folder / "latest_checkpointed_iteration.txt").write_text("20")


def dist_weights(target: Path) -> None:
    dcp.save({"decoder.layers.mlp.linear_fc1.weight": torch.ones(4, 2)}, checkpoint_id=str(target))


def deepspeed(folder: Path) -> None:
    target = folder / "global_step30"
    target.mkdir()
    model = {"module": {"w": torch.ones(2, 2)}, "dp_world_size": 2, "mp_world_size": 1, "global_steps": 30,
             "ds_version": "0.18.0", "param_shapes": [{"w": torch.Size([2, 2])}]}  # fmt: skip
    torch.save(model, target / "mp_rank_00_model_states.pt")
    for dp in range(2):
        optim = {"optimizer_state_dict": {"zero_stage": 1, "partition_count": 2, "fp32": torch.ones(2)}}
        torch.save(optim, target / f"bf16_zero_pp_rank_{dp}_mp_rank_00_optim_states.pt")
    (folder / "latest").write_text("global_step30")


def nemo2(folder: Path) -> None:
    (folder / "context").mkdir(parents=True)
    (folder / "context" / "model.yaml").write_text("_target_: nemo.collections.llm.LlamaModel\n")
    (folder / "context" / "io.json").write_text("{}")
    dist_weights(folder / "weights")
    torch.save({"iteration": 40}, folder / "weights" / "common.pt")
    (folder / "weights" / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist"}))


if __name__ == "__main__":
    sys.exit(main())
