"""Listed pairs of tokens, sorted once and used for every layer.

Shapes: B sets, V views, P tokens of a view; M listed pairs, G groups, Q bags (the pairs of one first token
in one group).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PairPlan:
    """Pairs by their first token and group.

    Attributes:
        valid: [B, V, P] bool tokens that take part.
        groups: G.
        first: [Q] rows of the flattened [B * V * P] tokens.
        slot: [Q] set * G + group of each bag.
        start: [Q + 1] where in `second` each bag begins, and the end of the last.
        second: [M] rows of the flattened tokens.
        count: [B, G] int64 pairs of each group.
    """

    valid: Tensor
    groups: int
    first: Tensor
    slot: Tensor
    start: Tensor
    second: Tensor
    count: Tensor


def pair_plan(valid: Tensor, pairs: tuple[Tensor, Tensor, Tensor], group: Tensor, groups: int) -> PairPlan:
    """The plan of pairs that are each given once, and join valid tokens of different views.

    Args:
        valid: [B, V, P] bool.
        pairs: set, i, j, each [M] int64; i and j count the V * P tokens of the set.
        group: [M] integer below `groups`.
        groups: how many there are.
    """
    number, i, j = pairs
    size = valid.shape[1] * valid.shape[2]
    bag, order = ((number * size + i) * groups + group).sort(stable=True)
    bags, length = torch.unique_consecutive(bag, return_counts=True)
    first = bags // groups
    slot = first // max(size, 1) * groups + bags % groups
    counted = torch.bincount(number * groups + group, minlength=len(valid) * groups)
    return PairPlan(
        valid=valid,
        groups=groups,
        first=first,
        slot=slot,
        start=torch.nn.functional.pad(length.cumsum(0), (1, 0)),
        second=(number * size + j)[order],
        count=counted.reshape(len(valid), groups),
    )
