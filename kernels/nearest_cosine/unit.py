"""Tokens as stored -> unit vectors.

Shapes: B sets, V views, P tokens of a view, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def unit_tokens(
    tokens: Tensor, valid: Tensor, scale: Tensor | None = None, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Vectors of length 1, and which tokens take part.

    Each token is divided by max(its length, 1e-12), so that a token of zeros stays zero and has a cosine
    of 0. A token that is not finite, or whose squared length overflows, takes no part.

    Args:
        tokens: [B, V, P, D], any float dtype, or uint8 with `scale` and `offset`.
        valid: [B, V, P] bool.
        scale, offset: [B, V, D]; value = q * scale + offset.

    Returns:
        [B, V, P, D] f32 (f64 for f64 tokens), zero where a token takes no part; [B, V, P] bool.
    """
    values = tokens if tokens.dtype == torch.float64 else tokens.float()
    if scale is not None and offset is not None:
        values = torch.addcmul(offset[:, :, None].to(values), values, scale[:, :, None].to(values))
    inverse = inverse_length(values, valid)
    own = values is not tokens and not values.requires_grad  # new memory costs more than the product
    unit = values.mul_(inverse[..., None]) if own else values * inverse[..., None]
    left_out = inverse < 0
    if bool(left_out.any()):
        unit.masked_fill_(left_out[..., None], 0)
    return unit, ~left_out


def inverse_length(values: Tensor, valid: Tensor) -> Tensor:
    """[...] f32 (f64 for f64 values) 1 / length of values [..., D], -1 where a token takes no part."""
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    length = torch.linalg.vector_norm(values, dim=-1, dtype=dtype)
    return (1 / length.clamp_min(EPS)).where(valid & length.isfinite(), -1.0)
