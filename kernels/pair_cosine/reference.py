"""Mean cosines of listed and of all other pairs, in plain torch.

With unit vectors f, S_n their sum over view n and S over all, the pairs of different views sum up to

    all = 1/2 (|S|^2 - sum_n |S_n|^2)

and those of token i that are listed in one group to f_i . (sum of their f_j). What is not listed is the
difference, so that no pair of it is ever looked at.

Shapes: B sets, V views, P tokens of a view, D channels; G groups, Q bags, M listed pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ...errors import ProbeError
from ..nearest_cosine.unit import unit_tokens
from .plan import PairPlan

BAGS = 512
"""Bags that are summed at a time, so that their sums stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCosine:
    """Sums of cosines and numbers of pairs of tokens of different views.

    Attributes:
        group_sum, group_count: [B, G] f64 and int64 of the listed pairs by group.
        rest_sum, rest_count: [B] f64 and int64 of those that are not listed.
    """

    group_sum: Tensor
    group_count: Tensor
    rest_sum: Tensor
    rest_count: Tensor


def pair_cosine(tokens: Tensor, plan: PairPlan) -> PairCosine:
    """See the package."""
    if tokens.ndim != 4 or tokens.shape[:3] != plan.valid.shape:
        raise ProbeError(
            f"tokens {list(tokens.shape)} are not those of a plan of {list(plan.valid.shape)} tokens.",
            where="pair_cosine",
            why="tokens [B, V, P, D] of the plan's sets are expected",
            fix="make the plan for these tokens",
        )
    unit, there = unit_tokens(tokens, plan.valid)
    shape = (len(there), plan.groups)
    flat = unit.flatten(0, 2)
    group_sum = flat.new_zeros(len(there) * plan.groups, dtype=torch.float64)
    group_sum.index_add_(0, plan.slot, _bag_dots(flat, plan))
    group_count = plan.count if bool((there == plan.valid).all()) else _count(there.flatten(), plan)
    by_view, held = unit.sum(2, dtype=torch.float64), there.sum(2)  # [B, V, D], [B, V]
    everything = (by_view.sum(1).square().sum(-1) - by_view.square().sum((1, 2))) / 2
    rest_count = (held.sum(1) ** 2 - (held**2).sum(1)) // 2 - group_count.sum(1)
    rest_sum = everything - group_sum.reshape(shape).sum(1)
    return PairCosine(
        group_sum=group_sum.reshape(shape),
        group_count=group_count,
        rest_sum=rest_sum.where(rest_count > 0, 0.0),
        rest_count=rest_count,
    )


def _bag_dots(unit: Tensor, plan: PairPlan) -> Tensor:
    """[Q] f64 sums of the cosines of each bag, of unit vectors [B * V * P, D]."""
    dots = [unit.new_zeros(0, dtype=torch.float64)]
    ends = plan.start[::BAGS].tolist() + plan.start[-1:].tolist()
    for number, (begin, end) in enumerate(pairwise(ends)):
        bags = slice(number * BAGS, min((number + 1) * BAGS, len(plan.first)))
        if bags.start < bags.stop:
            sums = embedding_bag(plan.second[begin:end], unit, plan.start[bags] - begin, mode="sum")
            dots.append(sums.mul_(unit.index_select(0, plan.first[bags])).sum(-1).double())
    return torch.cat(dots)


def _count(there: Tensor, plan: PairPlan) -> Tensor:
    """[B, G] listed pairs of which both tokens are there [B * V * P]."""
    before = torch.nn.functional.pad(there[plan.second].long().cumsum(0), (1, 0))
    found = (before[plan.start[1:]] - before[plan.start[:-1]]) * there[plan.first]
    return torch.zeros_like(plan.count).flatten().index_add_(0, plan.slot, found).view_as(plan.count)
