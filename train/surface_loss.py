"""Losses of the shape of predicted maps: their slopes, and the normals of their surface, at several scales.

Scale s takes every 2^s-th row and column. With confidences c, an error e becomes gamma e c - alpha log c.

Shapes: N maps, H W pixels, C coordinates (1 of a depth, 3 of a point).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint

from ..kernels.precision import full_precision
from .robust import bounded

SLOPE_SCALES, NORMAL_SCALES = 4, 3
LEAST_NORMALS = 10
MAPS_AT_ONCE = 4
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))  # up, left, down, right


@full_precision
def slope_loss(
    values: Tensor,
    truth: Tensor,
    valid: Tensor,
    conf: Tensor | None = None,
    *,
    gamma: float = 1.0,
    alpha: float = 0.2,
    scales: int = SLOPE_SCALES,
) -> Tensor:
    """Scalar: slopes of the difference between neighbours that are both valid, per valid number.

    Each slope counts at most 100. The reference adds -alpha log c of pixels that are not valid too, and so
    does this.

    Args:
        values, truth: [N, H, W, C].
        valid: [N, H, W] bool.
        conf: [N, H, W], positive; none = 1 without the logarithm.
        gamma, alpha: weights of the confident error and of the confidence.
        scales: how many.
    """
    difference = torch.where(valid[..., None], values - truth, 0)
    total = values.new_zeros(())
    for step in (2**scale for scale in range(scales)):
        mask = valid[:, ::step, ::step, None]
        confidence = None if conf is None else conf[:, ::step, ::step, None]
        summed = values.new_zeros(())
        for dim in (1, 2):
            slope = bounded(difference[:, ::step, ::step].diff(dim=dim).abs()) * (
                _tail(mask, dim) & _head(mask, dim)
            )
            if confidence is not None:
                c = _tail(confidence, dim)
                slope = gamma * slope * c - alpha * c.log()
            summed = summed + slope.sum()
        total = total + summed / (mask.sum() * values.shape[-1]).clamp(min=1)
    return total / scales


@full_precision
def normal_loss(
    points: Tensor,
    truth: Tensor,
    valid: Tensor,
    conf: Tensor | None = None,
    *,
    gamma: float = 1.0,
    alpha: float = 0.2,
    scales: int = NORMAL_SCALES,
) -> Tensor:
    """Scalar: mean 1 - cosine between normals at valid corners; a scale with fewer than 10 corners is 0.

    Arguments as `slope_loss`, with C = 3.
    """
    total = points.new_zeros(())
    for step in (2**scale for scale in range(scales)):
        summed = points.new_zeros(())
        count = valid.new_zeros((), dtype=torch.int64)
        for first in range(0, len(points), MAPS_AT_ONCE):
            part = slice(first, first + MAPS_AT_ONCE), slice(None, None, step), slice(None, None, step)
            confidence = None if conf is None else conf[part]
            # Kept for the backward pass, what is computed in between would be half a kilobyte per pixel.
            errors, corners = checkpoint(
                _corner_errors,
                *(points[part], truth[part], valid[part], confidence, gamma, alpha),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            summed, count = summed + errors, count + corners
        total = total + torch.where(count < LEAST_NORMALS, 0, summed / count.clamp(min=1))
    return total / scales


def _corner_errors(
    points: Tensor, truth: Tensor, valid: Tensor, conf: Tensor | None, gamma: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Sum of the errors of valid corners, and how many these are."""
    normals, corners = surface_normals(points, valid)
    true_normals, _ = surface_normals(truth, valid)
    error = bounded(1 - (normals * true_normals).sum(-1).clamp(-1, 1))  # [4, N, H, W]
    if conf is not None:
        c = torch.where(corners, conf, 1)
        error = gamma * error * c - alpha * c.log()
    return torch.where(corners, error, 0).sum(), corners.sum()


def surface_normals(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals of the four corners that a pixel spans with two neighbours, and which are valid.

    Up x left, left x down, down x right, right x up; outside of the map points are 0 and not valid.

    Args:
        points: [N, H, W, 3].
        valid: [N, H, W] bool.

    Returns:
        [4, N, H, W, 3], and [4, N, H, W] bool: all three pixels are valid.
    """
    points = torch.where(valid[..., None], points, 0)
    padded = pad(points, (0, 0, 1, 1, 1, 1))
    sides = [_shifted(padded, *side) - points for side in NEIGHBOURS]
    there = [_shifted(pad(valid, (1, 1, 1, 1)), *side) & valid for side in NEIGHBOURS]
    following = [1, 2, 3, 0]
    normals = torch.stack([torch.linalg.cross(sides[i], sides[j]) for i, j in enumerate(following)])
    corners = torch.stack([there[i] & there[j] for i, j in enumerate(following)])
    return normalize(normals, dim=-1, eps=1e-8), corners


def _shifted(padded: Tensor, down: int, right: int) -> Tensor:
    """[N, H, W, ...] of [N, H + 2, W + 2, ...]: each pixel's neighbour."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _tail(values: Tensor, dim: int) -> Tensor:
    return values.narrow(dim, 1, values.shape[dim] - 1)


def _head(values: Tensor, dim: int) -> Tensor:
    return values.narrow(dim, 0, values.shape[dim] - 1)
