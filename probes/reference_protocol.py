"""Protocol `reference`: the correspondence score of 3DFeatProbe, its known faults included.

Token points are means over p x p pixels, invalid ones too, which lie at the camera centre (fault);
the voxel grid starts at the corner of each set's own box, so that a pair may change its label with the
views sampled beside it (fault); a set without correspondences scores 0 instead of nothing (fault), and
one without a valid token is dropped.

Shapes: V views, H W pixels, P = ceil(H / p) * ceil(W / p) tokens of a view, N tokens of a set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..kernels.geometry import invert_rigid, unproject_depth
from ..kernels.voxel_cosine import VoxelCosine
from ..kernels.voxel_hash import voxel_hash
from .cell_questions import CellProtocol, CellQuestion
from .questions import ViewPoints

if TYPE_CHECKING:
    from ..store.block import Block, ViewGeometry

MARGIN = 0.1
"""The box of a set grows by this share of its extent on every side."""


@dataclass(frozen=True, kw_only=True)
class ReferenceProtocol(CellProtocol):
    """See the module.

    Attributes:
        voxel: edge of a voxel in scene units.
    """

    voxel: float = 0.3
    name: ClassVar[str] = "reference"
    patch_free: ClassVar[bool] = False
    by_pairs: ClassVar[bool] = False

    def read(self, block: Block, rows: list[int]) -> list[ViewPoints]:
        # One view at a time: pixels of many views in float64 would not fit.
        return [_view_points(block.geometry([row]), block.patch, block.stride) for row in rows]

    def ids(self, world: Tensor, valid: Tensor, scene_scale_m: float | None) -> Tensor:
        return reference_ids(world, valid, self.voxel)

    def metrics(self, score: VoxelCosine, question: CellQuestion) -> dict[str, float | None]:
        return reference_metrics(score)

    def options(self, scene_scale_m: float | None) -> dict[str, Any]:
        return {"voxel": self.voxel}


def pool_patches(world: Tensor, mask: Tensor, patch: int, stride: int | None = None) -> tuple[Tensor, Tensor]:
    """Token points and their validity.

    Args:
        world: [V, H, W, 3] f32 world points, masked pixels included.
        mask: [V, H, W] bool.
        patch: pixels per token side; windows that stick out are averaged over their real pixels.
        stride: pixels between windows; None = a patch.

    Returns:
        [V, P, 3] mean point of all pixels, and [V, P] bool, at least half of them in the mask.
    """
    points = avg_pool2d(world.movedim(-1, 1), patch, stride, ceil_mode=True)  # [V, 3, R, C]
    share = avg_pool2d(mask[:, None].float(), patch, stride, ceil_mode=True)
    return points.flatten(2).mT, share.flatten(1) >= 0.5


def reference_ids(points: Tensor, valid: Tensor, voxel: float) -> Tensor:
    """Voxels [N] int64 of the token points [N, 3] of one set, -1 where not valid.

    Raises:
        ProbeError: the set's box spans more than 2^20 voxels.
    """
    if not bool(valid.any()):
        return torch.full(valid.shape, -1)
    low, high = points[valid].amin(0), points[valid].amax(0)
    # In the points' own float32, as the original does it: rounding decides ties.
    cells = torch.round((points - (low - MARGIN * (high - low))) / voxel)
    return voxel_hash(cells[None], valid[None], voxel_size=1.0, rounding="round")[0]


def reference_metrics(score: VoxelCosine) -> dict[str, float | None]:
    """Means and counts of one set; 0 where there are no pairs."""
    corr_count, noncorr_count = int(score.corr_count), int(score.noncorr_count)
    return {
        "corr": float(score.corr_sum) / max(corr_count, 1),
        "noncorr": float(score.noncorr_sum) / max(noncorr_count, 1),
        "corr_count": corr_count,
        "noncorr_count": noncorr_count,
    }


def _view_points(geometry: ViewGeometry, patch: int, stride: int) -> ViewPoints:
    depth_m = torch.from_numpy(geometry.depth_m).double()  # [1, H, W]
    mask = torch.from_numpy(geometry.valid)
    world_from_cam = invert_rigid(torch.from_numpy(geometry.cam_from_world))
    K_px = torch.from_numpy(geometry.K_px)
    world = unproject_depth(depth_m.where(mask, 0.0), K_px, world_from_cam).float()
    points, valid = pool_patches(world, mask, patch, stride)
    centre = world_from_cam[0, :3, 3]
    return ViewPoints(world=points[0], valid=valid[0] & points[0].isfinite().all(-1), centre=centre)
