"""Sums of the cosines of listed pairs, and of unit vectors by view, in plain torch.

Shapes: B sets, V views, P tokens of a view, D channels; Q bags.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..nearest_cosine.unit import unit_tokens
from .plan import PairPlan
from .score import PairCosine, score_of

BAGS = 512
"""Bags that are summed at a time, so that their sums stay in the processor's cache."""


def pair_cosine(tokens: Tensor, plan: PairPlan) -> PairCosine:
    """See the package."""
    unit, there = unit_tokens(tokens, plan.valid)
    return score_of(plan, there, _bag_dots(unit.flatten(0, 2), plan), unit.sum(2, dtype=torch.float64))


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
