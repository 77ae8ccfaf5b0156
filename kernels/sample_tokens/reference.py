"""Bilinear sampling of token maps: the definition, in plain torch.

Shapes: ... any batch dimensions, R C token rows and columns, N points, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quantized import QuantizedTokens
from .corners import corners


def sample_tokens(tokens: Tensor | QuantizedTokens, rowcol: Tensor) -> Tensor:
    """Tokens [..., R, C, D] at positions [N, 2], or [..., N, 2] of each map; differentiable in tokens.

    16-bit tokens are weighted in float32.
    """
    if isinstance(tokens, QuantizedTokens):
        tokens = tokens.dequantize()
    work = torch.promote_types(tokens.dtype, torch.float32)
    rows, cols = tokens.shape[-3:-1]
    place, weight, inside = corners(rowcol.to(tokens.device), rows, cols, work)
    flat = tokens.flatten(-3, -2)  # [..., R C, D]
    sampled = sum(
        _gather(flat, at).to(work) * share[..., None]
        for at, share in zip(place.unbind(-1), weight.unbind(-1), strict=True)
    )
    return torch.as_tensor(sampled).where(inside[..., None], torch.nan).to(tokens.dtype)


def _gather(flat: Tensor, place: Tensor) -> Tensor:
    """[..., N, D] of flat [..., R C, D] at places [N] or [..., N]."""
    if place.ndim == 1:
        return flat[..., place, :]
    return flat.gather(-2, place[..., None].expand(*place.shape, flat.shape[-1]))
