"""Activation checkpointing: a block's activations are computed again in the backward pass, not kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .rope import Tables


def run_block(block: nn.Module, x: Tensor, rope: Tables | None = None, *, active: bool) -> Tensor:
    """The block's output [N, S, D]; checkpointed where that is active and there is a graph to keep."""
    if active and torch.is_grad_enabled():
        return checkpoint(block, x, rope, use_reentrant=False)
    return block(x, rope)
