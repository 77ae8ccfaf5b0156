"""Means and medians over a part of a tensor: NaN where the part is empty, never 0.

What lies outside of the part has no influence, NaN included, on values and on gradients alike.

Shapes: ... any.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Mean over `dim` of the values where the bool mask, which broadcasts to them, is true."""
    mask = mask.expand_as(values)
    return torch.where(mask, values, 0).sum(dim) / mask.sum(dim)


def masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """Median over the last dimension of the values where the bool mask is true; of two the lower."""
    return torch.where(mask, values, torch.nan).nanmedian(-1).values
