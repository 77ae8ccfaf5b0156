"""How much a track's feature resembles the feature map around where the track is thought to be.

Shapes: M views of all sets, P tracks, C channels, H W pixels of the feature map, L pyramid levels, r radius.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample


def pyramid(features: Tensor, levels: int) -> list[Tensor]:
    """L maps of [M, C, H, W], each half the size of the one before."""
    maps = [features]
    for _ in range(levels - 1):
        maps.append(avg_pool2d(maps[-1], kernel_size=2, stride=2))
    return maps


def correlations(maps: list[Tensor], targets: Tensor, coords: Tensor, radius: int) -> Tensor:
    """[M, P, L (2r+1)^2] of targets [M, P, C] at coords [M, P, 2] (x, y) in pixels of the first map.

    Only the windows' features are read: their product with a target is the window of the whole
    correlation map, which is far larger. Outside the map everything is 0.
    """
    offsets = window(radius, coords)  # [(2r+1)^2, 2]
    scores = []
    for level, features in enumerate(maps):
        places = coords[:, :, None] / 2**level + offsets  # [M, P, (2r+1)^2, 2]
        windows = sampled(features, places, padding="zeros")  # [M, C, P, (2r+1)^2]
        scores.append(torch.einsum("mcpk,mpc->mpk", windows, targets.to(windows.dtype)))
    return torch.cat(scores, dim=-1) / targets.shape[-1] ** 0.5


def window(radius: int, like: Tensor) -> Tensor:
    """Offsets of a window, [(2r+1)^2, 2], in the order the released weights know: x slow, y fast."""
    steps = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).flatten(0, 1)


def sampled(features: Tensor, places: Tensor, padding: str) -> Tensor:
    """[M, C, P, K] bilinear samples of [M, C, H, W] at places [M, P, K, 2] (x, y) in pixels."""
    # Corner pixels on corner pixels; a map of one pixel has only that place.
    extent = [max(side - 1, 1) for side in features.shape[:-3:-1]]  # (W - 1, H - 1)
    x, y = (places[..., axis] * (2 / extent[axis]) - 1 for axis in (0, 1))
    # 16 bit would move the places by pixels.
    dtype = torch.promote_types(features.dtype, torch.float32)
    grid = torch.stack((x, y), dim=-1).to(dtype)
    return grid_sample(features.to(dtype), grid, mode="bilinear", padding_mode=padding, align_corners=True)
