"""Bilinear sampling of token maps: the definition, in plain torch.

Shapes: ... any batch dimensions, R C token rows and columns, N points, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample_tokens(tokens: Tensor, rowcol: Tensor) -> Tensor:
    """Tokens at fractional positions; a whole coordinate is a token's centre and gives it exactly.

    A map covers rows [-0.5, R - 0.5] and columns [-0.5, C - 0.5]. Between the outermost centres and
    the border the outermost token holds; outside, and at NaN positions, the result is NaN. A token
    of weight zero has no influence, be it NaN. Differentiable in `tokens`.

    Args:
        tokens: [..., R, C, D], any float dtype; 16-bit tokens are weighted in float32.
        rowcol: [N, 2] (row, column) in tokens.

    Returns:
        [..., N, D] in the dtype of the tokens.
    """
    work = torch.promote_types(tokens.dtype, torch.float32)
    row, col = rowcol.to(tokens.device, work).unbind(-1)  # [N]
    rows, cols = tokens.shape[-3:-1]
    inside = (row >= -0.5) & (row <= rows - 0.5) & (col >= -0.5) & (col <= cols - 0.5)
    above, below, down = _corners(row.where(inside, 0), rows)
    left, right, across = _corners(col.where(inside, 0), cols)
    top = _blend(tokens[..., above, left, :].to(work), tokens[..., above, right, :].to(work), across)
    bottom = _blend(tokens[..., below, left, :].to(work), tokens[..., below, right, :].to(work), across)
    return _blend(top, bottom, down).where(inside[:, None], torch.nan).to(tokens.dtype)


def _corners(x: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token before, token after and weight [N, 1] of the one after; the same token at a centre."""
    x = x.clamp(0, length - 1)
    before = x.floor()
    return before.long(), x.ceil().long(), (x - before)[:, None]


def _blend(a: Tensor, b: Tensor, weight_of_b: Tensor) -> Tensor:
    return a * (1 - weight_of_b) + b * weight_of_b
