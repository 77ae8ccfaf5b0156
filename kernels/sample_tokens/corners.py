"""The four tokens around a position, and how much each counts.

Shapes: ... none, or a dimension of maps; R C token rows and columns, N points.
"""

from __future__ import annotations

import torch
from torch import Tensor


def corners(rowcol: Tensor, rows: int, cols: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Of positions [..., N, 2]: places in a flattened map [..., N, 4] int64, weights [..., N, 4] and whether
    the position lies in the map [..., N].

    Weights sum to one. A corner of weight zero is the token opposite to it, so that no token without
    influence is looked at. Outside, all four are the first token.
    """
    row, col = rowcol.to(dtype).unbind(-1)
    inside = (row >= -0.5) & (row <= rows - 0.5) & (col >= -0.5) & (col <= cols - 0.5)
    above, below, down = _around(row.where(inside, 0), rows)
    left, right, across = _around(col.where(inside, 0), cols)
    place = (above * cols + left, above * cols + right, below * cols + left, below * cols + right)
    up, back = 1 - down, 1 - across
    weight = (up * back, up * across, down * back, down * across)
    return torch.stack(place, dim=-1), torch.stack(weight, dim=-1), inside


def _around(x: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token before, token after and weight [...] of the one after; the same token at a centre."""
    x = x.clamp(0, length - 1)
    before = x.floor()
    return before.long(), x.ceil().long(), x - before
