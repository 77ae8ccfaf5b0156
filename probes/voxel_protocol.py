"""Protocol `voxel`: tokens correspond when their stored points lie in one cell of a fixed grid.

cell = floor(world / edge) with origin 0, so that a pair's label does not depend on the other views; the
edge is a share of the scene's scale, or metric. A set without correspondences has no score. Positives
are binned by viewpoint angle, negatives are not.

Shapes: V views, P tokens of a view, N tokens of a set, M pairs of views in a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..kernels.geometry import invert_rigid
from ..kernels.voxel_cosine import VoxelCosine
from ..kernels.voxel_hash import voxel_hash
from .cell_questions import CellProtocol, CellQuestion
from .correspondence_words import VoxelEdge
from .questions import ViewPoints, mean_metrics
from .viewpoints import BINS, bin_of

if TYPE_CHECKING:
    from ..store.block import Block


@dataclass(frozen=True, kw_only=True)
class VoxelProtocol(CellProtocol):
    """See the module."""

    edge: VoxelEdge
    name: ClassVar[str] = "voxel"
    patch_free: ClassVar[bool] = True
    by_pairs: ClassVar[bool] = True

    def read(self, block: Block, rows: list[int]) -> list[ViewPoints]:
        points = block.token_points(rows)
        _, cam_from_world = block.cameras(rows)
        centres = invert_rigid(torch.from_numpy(cam_from_world))[:, :3, 3]
        known = centres.isfinite().all(-1)
        return [
            ViewPoints(
                world=torch.from_numpy(world).flatten(0, 1),
                valid=torch.from_numpy(valid).flatten() & has_camera,
                centre=centre,
            )
            for world, valid, centre, has_camera in zip(
                points.world, points.valid, centres, known, strict=True
            )
        ]

    def ids(self, world: Tensor, valid: Tensor, scene_scale_m: float | None) -> Tensor:
        return voxel_hash(world[None], valid[None], voxel_size=self.edge.edge_m(scene_scale_m))[0]

    def metrics(self, score: VoxelCosine, question: CellQuestion) -> dict[str, float | None]:
        return voxel_metrics(score, question)

    def options(self, scene_scale_m: float | None) -> dict[str, Any]:
        return {"edge_m": self.edge.edge_m(scene_scale_m)}


def voxel_metrics(score: VoxelCosine, question: CellQuestion) -> dict[str, float | None]:
    """Means and counts of one set, those of the corresponding pairs by viewpoint angle too."""
    assert score.pairs is not None
    metrics = {
        **mean_metrics("corr", "", score.corr_sum, score.corr_count),
        **mean_metrics("noncorr", "", score.noncorr_sum, score.noncorr_count),
    }
    bins = bin_of(question.angles_of(score.pairs))
    for index, name in enumerate(BINS):
        here = bins == index
        metrics |= mean_metrics(
            "corr", f"@{name}", score.pairs.dot_sum[here].sum(), score.pairs.count[here].sum()
        )
    return metrics
