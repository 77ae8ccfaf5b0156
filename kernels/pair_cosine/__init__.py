"""Mean cosines of listed pairs of tokens of different views, by group, and of all other pairs."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from . import reference
from .plan import PairPlan, pair_plan
from .score import PairCosine, check_plan

__all__ = ["PairCosine", "PairPlan", "pair_cosine", "pair_plan"]


def pair_cosine(tokens: Tensor, plan: PairPlan) -> PairCosine:
    """Cosines of the plan's pairs by group, and of the other pairs of different views, in linear time.

    Each token is divided by max(its length, 1e-12), so that a token of zeros has a cosine of 0. A token
    that is not finite, or whose squared length overflows, takes no part. Time and memory are linear in
    the tokens and in the listed pairs. Equal input gives equal bits on one machine.

    Args:
        tokens: [B, V, P, D], any float dtype.
        plan: `pair_plan(...)` on the device of the tokens, made once for all layers.

    Returns:
        Sums and counts of pairs; the means are within 1e-6 of those of all pairs in float64.

    Raises:
        ProbeError: the plan is one of other sets.
    """
    check_plan(tokens, plan)
    gradient = tokens.requires_grad and torch.is_grad_enabled()
    if tokens.is_cuda and tokens.dtype != torch.float64 and not gradient and find_spec("triton"):
        from . import kernel

        return kernel.pair_cosine(tokens, plan)
    return reference.pair_cosine(tokens, plan)
