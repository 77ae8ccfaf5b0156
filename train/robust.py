"""What keeps single values from ruling a loss: bounds, and a quantile above which they do not count.

Shapes: n values in one dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 100.0
LEAST_KEPT = 1_000
MOST_RANKED, RANKED = 10**8, 10**6


def bounded(values: Tensor, limit: float | None = LIMIT) -> Tensor:
    """Values that are not finite as 0, all others within +-limit (none = as they are)."""
    finite = torch.where(values.isfinite(), values, 0)
    return finite if limit is None else finite.clamp(-limit, limit)


def below_quantile(values: Tensor, share: float | None, least: int = LEAST_KEPT) -> Tensor:
    """The values [n] below their `share` quantile, none above 100.

    The quantile is the k-th smallest, k = round(share (n - 1)) + 1. With at most `least` values, or at most
    so many left, all are kept. Of more than 100 million values a million, evenly spaced, are ranked.

    Args:
        values: [n].
        share: from 0 to 1; none = keep all.
        least: how many are too few to leave any out.
    """
    if share is None or len(values) <= least:
        return values
    values = values.clamp(max=LIMIT)
    ranked = values.detach()
    if len(ranked) > MOST_RANKED:
        ranked = ranked[:: len(ranked) // RANKED]
    threshold = ranked.kthvalue(round(share * (len(ranked) - 1)) + 1).values
    kept = values[values < threshold]
    return kept if len(kept) > least else values


def nothing(*predictions: Tensor) -> Tensor:
    """A loss of 0 that depends on the predictions, so that every parameter gets a gradient (of 0)."""
    return torch.stack([torch.where(values.isfinite(), values, 0).sum() * 0 for values in predictions]).sum()
