"""The farthest depths of an image are left out: of real data they are mostly wrong.

Shapes: H W pixels.
"""

from __future__ import annotations

import numpy as np


def without_far(depth: np.ndarray, share: float) -> np.ndarray:
    """The depth without values above a quantile of the image's own.

    Args:
        depth: [H, W] f32 z-depth, 0 = none.
        share: the quantile of the values that are there, from 0 to 1, interpolated between the two nearest;
            the values up to it stay, and at 1 all do.

    Returns:
        [H, W] f32, 0 where a value was left out; the array itself where none was.
    """
    there = depth[depth > 0]
    if share >= 1 or not there.size:
        return depth
    limit = np.quantile(there.astype(np.float64), share)
    return np.where(depth > limit, np.float32(0), depth)
