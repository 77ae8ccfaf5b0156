"""How far predicted points, depths and rays are from the true ones.

Each measure stands here twice. `reference_*` is the measure as published results have it, faults included
(map-anything and 3DFeatProbe); the other one is what it is meant to be:

    measure      reference_*                                       mended
    scale        mean distance: one far outlier moves all          median
    abs_rel      a view without valid pixels makes the set NaN     such a view is left out
    inliers      compares distances: a point and its opposite      distance between the points
                 are equal
    rays         asin of half the chord                            atan2

In the mended measures a prediction that is not finite counts as a prediction of 0: a relative error of 1 and
an outlier, so that a model wins nothing by not answering. Depth is a point of one coordinate.

Shapes: ... any batch dimensions, V views, N pixels of a view, C coordinates (3 of a point, 1 of a depth).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import angle_deg, pixel_grid, unproject
from .masked import masked_mean, masked_median
from .precision import full_precision


def reference_scale(points: Tensor, valid: Tensor) -> Tensor:
    """Mean distance [...] from the origin of all valid points: sum |X| / (count + 1e-8), at least 1e-8.

    Args:
        points: [..., V, N, C] in the first camera's frame.
        valid: [..., V, N] bool; the truth's, for truth and prediction alike.
    """
    total = torch.where(valid, points.norm(dim=-1), 0).sum((-2, -1))
    return (total / (valid.sum((-2, -1)) + 1e-8)).clamp(min=1e-8)


def scale(points: Tensor, valid: Tensor) -> Tensor:
    """Median distance [...] from the origin of all valid, finite points, at least 1e-8; NaN without any."""
    distance = points.norm(dim=-1).flatten(-2)
    return masked_median(distance, valid.flatten(-2) & distance.isfinite()).clamp(min=1e-8)


def reference_abs_rel(points: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean over views of the mean |prediction - truth| / |truth| over a view's valid pixels, [...].

    Args:
        points, truth: [..., V, N, C].
        valid: [..., V, N] bool; where |truth| = 0 it does not hold.
    """
    distance = truth.norm(dim=-1)
    per_view = masked_mean((points - truth).norm(dim=-1) / distance, valid & (distance > 0))
    return per_view.mean(-1)


def abs_rel(points: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """As `reference_abs_rel`, over the views that have valid pixels; NaN where no view has any."""
    per_view = masked_mean(_relative_error(points, truth), valid & (truth.norm(dim=-1) > 0))
    return per_view.nanmean(-1)


def reference_inlier_share(points: Tensor, truth: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Mean over views of the share of valid pixels with max(|p| / |t|, |t| / |p|) < threshold, [...].

    Args:
        points, truth: [..., V, N, C], predicted p and true t.
        valid: [..., V, N] bool.
        threshold: such as 1.03.
    """
    predicted, distance = points.norm(dim=-1), truth.norm(dim=-1)
    ratio = torch.maximum(distance / predicted, predicted / distance)
    inlier = (ratio > 0) & (ratio < threshold)
    return masked_mean(inlier.to(points.dtype), valid).mean(-1)


def inlier_share(points: Tensor, truth: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Share of valid pixels with |p - t| < (threshold - 1) |t|, [...], over the views that have any.

    Arguments as `reference_inlier_share`; pixels with |t| = 0 do not count.
    """
    inlier = _relative_error(points, truth) < threshold - 1
    return masked_mean(inlier.to(points.dtype), valid & (truth.norm(dim=-1) > 0)).nanmean(-1)


@full_precision
def ray_directions(K_px: Tensor, size: tuple[int, int]) -> Tensor:
    """Unit rays [..., H * W, 3] through the pixel centres, in the camera's frame.

    Args:
        K_px: [..., 3, 3].
        size: (H, W).
    """
    uv_px = pixel_grid(*size, like=K_px).reshape(-1, 2).expand(*K_px.shape[:-2], -1, 2)
    return torch.nn.functional.normalize(unproject(uv_px, torch.ones_like(uv_px[..., 0]), K_px), dim=-1)


def reference_ray_error_deg(rays: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over views of the mean angle 2 asin(|r - r'| / 2) in degrees over their pixels, [...].

    Args:
        rays, truth: [..., V, N, 3], of unit length.
        valid: [..., V, N] bool; none = all, which is what the reference takes.
    """
    angle = torch.rad2deg(2 * torch.asin(((rays - truth).norm(dim=-1) / 2).clamp(max=1)))
    return (angle.mean(-1) if valid is None else masked_mean(angle, valid)).mean(-1)


def ray_error_deg(rays: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """As `reference_ray_error_deg`, over the views that have valid pixels; rays of any length but 0.

    A predicted ray that is not finite is 180 degrees off.
    """
    angle = torch.where(rays.isfinite().all(-1), angle_deg(rays, truth), 180.0)
    return (angle.mean(-1) if valid is None else masked_mean(angle, valid)).nanmean(-1)


def _relative_error(points: Tensor, truth: Tensor) -> Tensor:
    finite = points.isfinite().all(-1, keepdim=True)
    return (points.where(finite, 0) - truth).norm(dim=-1) / truth.norm(dim=-1)
