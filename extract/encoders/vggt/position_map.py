"""A map of sines and cosines over the image plane, which the dense heads add to their features.

Shapes: C channels, H W pixels of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uv_grid(height: int, width: int, aspect: float, device: torch.device | None = None) -> Tensor:
    """(u, v) of each cell's centre, [H, W, 2] f64, in a plane whose half-diagonal is 1.

    Args:
        aspect: width over height of the image that the map covers.
    """
    diagonal = (1 + aspect**2) ** 0.5
    u, v = (
        span / diagonal * (2 * torch.arange(n, dtype=torch.float64, device=device) + 1 - n) / n
        for span, n in ((aspect, width), (1.0, height))
    )
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def sincos(position: Tensor, channels: int, base: float) -> Tensor:
    """[..., C] of positions [...]: sines, then cosines, of frequencies base^(-k / (C / 2))."""
    half = channels // 2
    k = torch.arange(half, dtype=torch.float64, device=position.device)
    angles = position[..., None] * base ** (-k / half)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def position_map(
    channels: int,
    size: tuple[int, int],
    aspect: float,
    base: float = 100.0,
    device: torch.device | None = None,
) -> Tensor:
    """[C, H, W] f32: half of the channels for u, half for v.

    Args:
        size: (height, width) of the map.
        aspect: width over height of the image.
    """
    uv = uv_grid(*size, aspect, device)
    parts = [sincos(uv[..., axis], channels // 2, base) for axis in (0, 1)]
    return torch.cat(parts, dim=-1).permute(2, 0, 1).float()
