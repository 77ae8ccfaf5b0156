"""From how different directions two views see a cell.

Shapes: B sets, V views, P tokens of a view, G cells, M pairs of views in a cell.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..kernels.geometry import angle_deg
from ..kernels.voxel_cosine import VoxelSegments

EDGES_DEG = (0, 30, 60, 90, 120, 180)
BINS = tuple(f"{low}-{high}" for low, high in pairwise(EDGES_DEG))
"""Half-open in degrees, the last one closed."""


def viewpoint_angles_deg(plan: VoxelSegments, points: Tensor, centres: Tensor) -> Tensor:
    """Angle between the rays from a cell's mean point to the centres of two views that see it.

    Args:
        plan: the segments of the tokens' ids.
        points: [B, V, P, 3] world point of each token; those of tokens without a cell are not read.
        centres: [B, V, 3] f64 camera centres in the world.

    Returns:
        [M] f64, one for each of `plan.pairs`.
    """
    a, b = plan.pairs
    mean = _cell_means(plan, points)[plan.cell[a]]  # [M, 3]
    ray_a, ray_b = (centres[plan.set[i], plan.view[i]] - mean for i in (a, b))
    return angle_deg(ray_a, ray_b)


def bin_of(angles_deg: Tensor) -> Tensor:
    """[M] index into `BINS`."""
    inner = torch.tensor(EDGES_DEG[1:-1], dtype=torch.float64, device=angles_deg.device)
    return torch.bucketize(angles_deg, inner, right=True)


def weighted_median(values: Tensor, weights: Tensor) -> float | None:
    """The smallest value with at least half of the weight at or below it; None without weight."""
    total = int(weights.sum())
    if total == 0:
        return None
    values, order = values.sort()
    return float(values[torch.searchsorted(weights[order].cumsum(0) * 2, total)])


def _cell_means(plan: VoxelSegments, points: Tensor) -> Tensor:
    """[G, 3] f64 mean over all tokens of the set in the cell."""
    cell = plan.cell.repeat_interleave(plan.count)  # [T], in the order of plan.order
    used = points.reshape(-1, 3)[plan.order].double()
    sums = used.new_zeros(len(plan.cell_set), 3).index_add_(0, cell, used)
    return sums / torch.bincount(cell, minlength=len(plan.cell_set))[:, None]
