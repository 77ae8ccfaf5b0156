"""Data parallelism over the processes of torchrun, each with a part of every batch.

Gradients are summed once a step, after the backward passes, instead of during them as
`DistributedDataParallel` does. So ranks may cut their parts into different numbers of pieces, a rank that ran
out of memory can try again while the others wait, the model stays the plain module, and a parameter that no
rank used keeps no gradient. The sums over ranks are weighted by items before, so ranks may have different
numbers of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import TrainError

BUCKET_VALUES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which of `count` processes this one is."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Shard, torch.device]]:
    """This process's shard and device; under torchrun the process group is there until the context ends.

    Args:
        device: auto | cpu | cuda | cuda:<n>; several processes take the GPUs of their machine in turn.

    Raises:
        TrainError: a GPU is asked for and there is none.
    """
    chosen = _device(device)
    ours = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        known = dist.is_initialized()
        yield Shard(rank=dist.get_rank(), count=dist.get_world_size()) if known else Shard(), chosen
    finally:
        if ours:
            dist.destroy_process_group()


def sum_over_ranks(values: Tensor, shard: Shard) -> Tensor:
    """`values` added up over the ranks, in place; of the same shape on each."""
    if shard.count > 1:
        dist.all_reduce(values)
    return values


def total(count: int, shard: Shard, device: torch.device) -> int:
    """The sum of the ranks' counts; one process alone does not wait for its device."""
    return int(sum_over_ranks(torch.tensor(count, device=device), shard)) if shard.count > 1 else count


def same_everywhere(tensors: Sequence[Tensor], shard: Shard) -> None:
    """Give every rank the tensors of rank 0, in place."""
    if shard.count > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter], shard: Shard) -> None:
    """Add every parameter's gradient up over the ranks, in place."""
    if shard.count == 1:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    shared = [p for p, n in zip(parameters, sum_over_ranks(used, shard).tolist(), strict=True) if n]
    for bucket in _buckets(shared):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        pieces = flat.split([p.numel() for p in bucket])
        for parameter, piece in zip(bucket, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one dtype, about `BUCKET_VALUES` together: few messages, little memory."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_VALUES
        if bucket and (full or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _device(asked: str) -> torch.device:
    there = torch.cuda.is_available()
    if asked == "auto":
        asked = "cuda" if there else "cpu"
    if asked.startswith("cuda") and not there:
        raise TrainError(
            f"device={asked} is not there.",
            where="device",
            why="torch sees no GPU",
            fix="`strata doctor` tells why; device=cpu works everywhere",
        )
    if asked == "cuda":
        asked = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
    chosen = torch.device(asked)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen
