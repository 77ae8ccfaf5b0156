"""What nearest tokens say: hits, mutual nearest neighbours, weights, the nearest of all views.

Shapes: B sets, V query views, W = V key views, P tokens of a view, K keys that were kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ProbeError
from .labels import PairLabels
from .reference import NearestCosine


def rank_of_positive(nearest: NearestCosine, labels: PairLabels) -> Tensor:
    """[B, V, W, P] int64: how many keys are nearer than the first that corresponds.

    K where none of the kept keys corresponds, -1 where nothing in view w does: recall@k is the share of
    ranks below k among those that are not negative.

    Raises:
        ProbeError: the labels do not say what corresponds.
    """
    positive = labels.positive
    if positive is None:
        raise ProbeError(
            "which tokens correspond is not known.",
            where="rank_of_positive",
            why="the labels have no `positive`",
            fix="make the labels with PairLabels.from_ids, or give them TokenLists",
        )
    sets, views, _, tokens, k = nearest.keys.shape
    view = torch.arange(sets * views, device=nearest.keys.device).view(sets, 1, views, 1, 1)
    hit = positive.holds(view * tokens + nearest.keys) & (nearest.keys >= 0)
    rank = torch.where(hit.any(-1), hit.to(torch.uint8).argmax(-1), k)
    asked = nearest.valid[:, :, None] & (positive.count(nearest.valid) > 0)
    return rank.masked_fill(~asked, -1)


def mutual(nearest: NearestCosine) -> Tensor:
    """[B, V, W, P] bool: token p of view v is itself the nearest to its nearest token of view w."""
    first = nearest.keys[..., 0]  # [B, V, W, P]
    back = first.transpose(1, 2).gather(-1, first.clamp(min=0))
    return (first >= 0) & (back == torch.arange(first.shape[-1], device=first.device))


def ratio_weight(nearest: NearestCosine) -> Tensor:
    """[B, V, W, P] 1 - d1 / d2, with d1 and d2 the distances of unit vectors to the two nearest keys.

    1 where there is one key only, 0 where there is none and where the two are equal.

    Raises:
        ProbeError: fewer than two keys were kept.
    """
    if nearest.keys.shape[-1] < 2:
        raise ProbeError(
            "a ratio needs the two nearest keys, and one was kept.", where="ratio_weight", fix="give k=2"
        )
    distance = (2 - 2 * nearest.cosine[..., :2]).clamp(min=0).sqrt()
    return (1 - distance[..., 0] / distance[..., 1]).nan_to_num(nan=0.0)


def over_views(nearest: NearestCosine) -> tuple[Tensor, Tensor, Tensor]:
    """The K nearest keys over all other views together: view, key and cosine, each [B, V, P, K].

    Among equals the lower view and then the lower key comes first; -1, -1 and -inf = no more.
    """
    k = nearest.keys.shape[-1]
    cosine = nearest.cosine.movedim(2, 3).flatten(3)  # [B, V, P, W * K]
    cosine, order = cosine.sort(dim=-1, descending=True, stable=True)
    key = nearest.keys.movedim(2, 3).flatten(3).gather(-1, order)[..., :k]
    return (order[..., :k] // k).masked_fill(key < 0, -1), key, cosine[..., :k]
