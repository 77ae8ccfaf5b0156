"""Bilinear sampling of token maps: the definition, in plain torch.

Shapes: ... any batch dimensions, R C token rows and columns, A maps, N points, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..quantized import QuantizedTokens
from .corners import corners


def sample_tokens(tokens: Tensor | QuantizedTokens, rowcol: Tensor) -> Tensor:
    """Tokens [..., R, C, D] at positions [N, 2], or [..., N, 2] of each map; differentiable in tokens.

    16-bit tokens are weighted in float32.
    """
    if isinstance(tokens, QuantizedTokens):
        tokens = tokens.dequantize()
    work = torch.promote_types(tokens.dtype, torch.float32)
    *maps, rows, cols, width = tokens.shape
    place, weight, inside = corners(rowcol.to(tokens.device), rows, cols, work)
    every = (math.prod(maps), place.shape[-2], 4)  # [A, N, 4]
    first = rows * cols * torch.arange(every[0], device=place.device)[:, None, None]
    corner = place.expand(*maps, *every[1:]).reshape(every) + first
    weight = weight.expand(*maps, *every[1:]).reshape(-1, 4)
    flat = tokens.reshape(-1, width).to(work)  # [A R C, D]
    sampled = embedding_bag(corner.reshape(-1, 4), flat, per_sample_weights=weight, mode="sum")
    return sampled.view(*maps, every[1], width).masked_fill(~inside[..., None], torch.nan).to(tokens.dtype)
