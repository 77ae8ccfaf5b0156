"""Protocol `voxel`: tokens correspond when their stored points lie in one cell of a fixed grid.

cell = floor(world / edge) with origin 0, so that a pair's label does not depend on the other views; the
edge is a share of the scene's scale, or metric. A set without correspondences has no score. Positives
are binned by viewpoint angle, negatives are not.

Shapes: V views, P tokens of a view, N tokens of a set, M pairs of views in a cell.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..errors import ConfigError, ProbeError
from ..kernels.geometry import invert_rigid
from ..kernels.voxel_cosine import VoxelCosine
from ..kernels.voxel_hash import voxel_hash
from .cell_questions import CellProtocol, CellQuestion
from .questions import ViewPoints, mean_metrics
from .viewpoints import BINS, bin_of

if TYPE_CHECKING:
    from ..store.block import Block


@dataclass(frozen=True, kw_only=True)
class VoxelEdge:
    """The edge of a cell: `size` scene scales, or `size` metres when metric."""

    size: float
    metric: bool = False

    @classmethod
    def parse(cls, value: Any) -> VoxelEdge:
        """0.05 or "0.05" in scene scales, "0.3m" in metres.

        Raises:
            ConfigError: neither.
        """
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(m?)\s*", str(value))
        try:
            size = float(match[1]) if match else math.nan
        except ValueError:
            size = math.nan
        if match is None or not 0 < size < math.inf:
            raise ConfigError(
                f"voxel={value} is not the edge of a cell.",
                where="voxel",
                why="a positive number of scene scales is expected, or one of metres that ends in m",
                fix="write voxel=0.05 or voxel=0.3m",
            )
        return cls(size=size, metric=bool(match[2]))

    def edge_m(self, scene_scale_m: float | None) -> float:
        """The edge in the scene's unit.

        Raises:
            ProbeError: it depends on the scene's scale, and the scene has none.
        """
        if self.metric:
            return self.size
        if not scene_scale_m:
            raise ProbeError(
                "the scene has no scale to size voxels by.",
                where="voxel",
                why="a scene's scale is the median of its depth, and it has no depth",
                fix="give a metric edge, as in voxel=0.3m",
            )
        return self.size * scene_scale_m


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
