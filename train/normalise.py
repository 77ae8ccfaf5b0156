"""The frame and unit in which a model of several views is trained.

Shapes: B sets, V views, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.dense_views import DenseViews

SMALLEST, LARGEST = 1e-6, 1e6


def normalised(views: DenseViews, valid: Tensor, *, scaled: bool = True) -> DenseViews:
    """True geometry in the first camera's frame, in units of the mean distance of its points from there.

    The unit is sum |X| / (count + 1e-3) over the valid pixels of all views of a set, within 1e-6 and 1e6. A
    model predicts in this frame and unit; its predictions are not normalised.

    Args:
        views: the truth.
        valid: [B, V, H, W] bool, pixels with true geometry.
        scaled: divide by the unit too.
    """
    moved = views.in_first_camera()
    if not scaled:
        return moved
    distance = torch.where(valid, moved.points_world.norm(dim=-1), 0)
    unit = distance.sum((1, 2, 3)) / (valid.sum((1, 2, 3)) + 1e-3)
    return moved.divided(unit.clamp(SMALLEST, LARGEST))
