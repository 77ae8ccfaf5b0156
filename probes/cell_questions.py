"""Questions of protocols that cut the world into cells: tokens of one cell correspond.

Shapes: V query views, W = V key views, P tokens of the longest view, N tokens of a set, M pairs of views in
a cell, G bins of viewpoint angle, H bins of similarity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..kernels.nearest_cosine import NearestCosine, PairLabels
from ..kernels.voxel_cosine import CellPairs, VoxelCosine, VoxelSegments, voxel_cosine, voxel_segments
from .questions import Protocol, Question, ViewPoints, padded, question_digest
from .viewpoints import BINS, bin_of, viewpoint_angles_deg, weighted_median


class CellProtocol(Protocol):
    """A rule that gives each token a cell."""

    patch_free: bool
    """Whether the cells depend on the token grid alone, and so are the same for every encoder."""
    by_pairs: bool
    """Whether the metrics need sums by cell and views."""

    @abstractmethod
    def ids(self, world: Tensor, valid: Tensor, scene_scale_m: float | None) -> Tensor:
        """[N] int64 cells of the points [N, 3] of one set, -1 = none.

        Raises:
            ProbeError: a cell cannot be sized or numbered.
        """

    @abstractmethod
    def metrics(self, score: VoxelCosine, question: CellQuestion) -> dict[str, float | None]:
        """Values by metric; None where there is nothing to measure."""

    @abstractmethod
    def options(self, scene_scale_m: float | None) -> dict[str, Any]:
        """What decides the ids beside the points."""

    def ask(self, views: Sequence[ViewPoints], scene_scale_m: float | None) -> CellQuestion | None:
        world = padded([view.world for view in views])  # [1, V, P, 3]
        valid = padded([view.valid for view in views])
        if not bool(valid.any()):
            return None
        ids = self.ids(world.reshape(-1, 3), valid.reshape(-1), scene_scale_m).reshape(valid.shape)
        plan = voxel_segments(ids)
        centres = torch.stack([view.centre for view in views])[None]
        angles_deg = viewpoint_angles_deg(plan, world, centres)
        a, b = plan.pairs
        digest = question_digest([self.name, self.options(scene_scale_m)], ids)
        return CellQuestion(
            protocol=self,
            ids=ids,
            plan=plan,
            angles_deg=angles_deg,
            digest=digest,
            pairs=digest if self.patch_free else "",
            median_angle_deg=weighted_median(angles_deg, plan.count[a] * plan.count[b]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CellQuestion(Question):
    """Cells of the tokens of one set.

    Attributes:
        protocol: whose they are.
        ids: [1, V, P] int64, -1 = no cell, also behind the last token of a shorter view.
        plan: their segments.
        angles_deg: [M] f64 viewpoint angle of each of `plan.pairs`.
    """

    protocol: CellProtocol
    ids: Tensor
    plan: VoxelSegments
    angles_deg: Tensor

    def labels(self) -> PairLabels:
        group = _bins_of_tokens(self.plan, bin_of(self.angles_deg))
        return PairLabels.from_ids(self.ids, group=group, groups=len(BINS))

    def means(self, tokens: Tensor) -> dict[str, float | None]:
        score = voxel_cosine(tokens, self.ids, plan=self.plan, pairs=self.protocol.by_pairs)
        return self.protocol.metrics(score, self)

    def histograms(self, tokens: Tensor, nearest: NearestCosine) -> Tensor:
        assert nearest.corr is not None
        return nearest.corr[0]

    def angles_of(self, pairs: CellPairs) -> Tensor:
        """[M] angles of scored pairs, which lack some where tokens were not finite."""
        a, b = self.plan.pairs
        views = self.ids.shape[1]
        asked = (self.plan.id[a] * views + self.plan.view[a]) * views + self.plan.view[b]
        scored = (pairs.id * views + pairs.view_a) * views + pairs.view_b
        return self.angles_deg[torch.searchsorted(asked, scored)]


def _bins_of_tokens(plan: VoxelSegments, bins: Tensor) -> Tensor:
    """[1, V, W, P] uint8: the bins [M] of the plan's pairs, at the tokens of both views."""
    _, views, tokens = plan.shape
    found = torch.zeros(1, views, views, tokens, dtype=torch.uint8)
    begin = plan.count.cumsum(0) - plan.count  # [S]
    a, b = plan.pairs
    for here, there in ((a, b), (b, a)):
        length = plan.count[here]
        pair = torch.arange(len(here)).repeat_interleave(length)
        nth = torch.arange(len(pair)) - (length.cumsum(0) - length)[pair]
        token = plan.order[begin[here][pair] + nth] % tokens
        found[0, plan.view[here][pair], plan.view[there][pair], token] = bins[pair].to(torch.uint8)
    return found
