"""From the sums that one way or another was made of the tokens to the score.

With unit vectors f, S_n their sum over view n and S over all, the pairs of different views sum up to

    all = 1/2 (|S|^2 - sum_n |S_n|^2)

and those of token i that are listed in one group to f_i . (sum of their f_j). What is not listed is the
difference, so that no pair of it is ever looked at.

Shapes: B sets, V views, P tokens of a view, D channels; G groups, Q bags.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ProbeError
from .plan import PairPlan


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


def check_plan(tokens: Tensor, plan: PairPlan) -> None:
    """Raises a `ProbeError` if the plan is one of other sets."""
    if tokens.ndim != 4 or tokens.shape[:3] != plan.valid.shape:
        raise ProbeError(
            f"tokens {list(tokens.shape)} are not those of a plan of {list(plan.valid.shape)} tokens.",
            where="pair_cosine",
            why="tokens [B, V, P, D] of the plan's sets are expected",
            fix="make the plan for these tokens",
        )


def score_of(plan: PairPlan, there: Tensor, dots: Tensor, by_view: Tensor) -> PairCosine:
    """The score.

    Args:
        plan: of these tokens.
        there: [B, V, P] bool which tokens take part.
        dots: [Q] f64 sums of the cosines of each bag.
        by_view: [B, V, D] f64 sums of the unit vectors.
    """
    # A place for each bag and a sum over places, in one order: additions at one place would race on a GPU.
    sets, views, places = there.shape
    table = dots.new_zeros(sets, views * places, plan.groups)
    table.view(-1)[plan.first * plan.groups + plan.slot % max(plan.groups, 1)] = dots
    group_sum = table.sum(1)
    group_count = plan.count if bool((there == plan.valid).all()) else _count(there.flatten(), plan)
    held = there.sum(2)  # [B, V]
    everything = (by_view.sum(1).square().sum(-1) - by_view.square().sum((1, 2))) / 2
    rest_count = (held.sum(1) ** 2 - (held**2).sum(1)) // 2 - group_count.sum(1)
    rest_sum = everything - group_sum.sum(1)
    return PairCosine(
        group_sum=group_sum,
        group_count=group_count,
        rest_sum=rest_sum.where(rest_count > 0, 0.0),
        rest_count=rest_count,
    )


def _count(there: Tensor, plan: PairPlan) -> Tensor:
    """[B, G] listed pairs of which both tokens are there [B * V * P]."""
    before = torch.nn.functional.pad(there[plan.second].long().cumsum(0), (1, 0))
    found = (before[plan.start[1:]] - before[plan.start[:-1]]) * there[plan.first]
    return torch.zeros_like(plan.count).flatten().index_add_(0, plan.slot, found).view_as(plan.count)
