"""Protocol `visible`: tokens correspond when their points are one visible surface, seen by both views.

What is near but not known to be the same surface is asked about in neither way; see `visibility`. There is
no grid to fall across, a wall's two sides never correspond, and the radius follows what a token covers. A
set without correspondences has no score. Positives are binned by the angle between their two viewing rays,
negatives are not.

Shapes: V query views, W = V key views, P tokens of the longest view, D channels, M corresponding pairs, G
bins of viewpoint angle, H bins of similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..kernels.geometry import angle_deg
from ..kernels.nearest_cosine import NearestCosine, PairLabels, TokenLists
from ..kernels.nearest_cosine.reference import bin_of as similarity_bin
from ..kernels.nearest_cosine.unit import unit_tokens
from ..kernels.pair_cosine import PairPlan, pair_cosine, pair_plan
from .questions import Protocol, Question, mean_metrics, padded, question_digest
from .viewpoints import BINS, bin_of, weighted_median
from .visibility import FACING_DEG, FAR, TOLERANCE, NearPairs, SurfaceView, near_pairs, read_surfaces

if TYPE_CHECKING:
    from ..store.block import Block

UNASKED = len(BINS)
"""The group of near pairs that do not correspond, behind those of the bins."""

BLOCK = 256
"""Corresponding pairs whose tokens are multiplied at a time, in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class VisibleProtocol(Protocol):
    """See the module."""

    name: ClassVar[str] = "visible"

    def read(self, block: Block, rows: list[int]) -> list[SurfaceView]:
        return read_surfaces(block, rows)

    def ask(self, views: Sequence[SurfaceView], scene_scale_m: float | None) -> VisibleQuestion | None:
        valid = padded([view.valid for view in views])  # [1, V, P]
        if not bool(valid.any()):
            return None
        near = near_pairs(views)
        angles_deg = near.angle_deg[near.corresponds]
        group = torch.full_like(near.i, UNASKED)
        group[near.corresponds] = bin_of(angles_deg)
        words = [self.name, FAR, FACING_DEG, TOLERANCE]
        return VisibleQuestion(
            near=near,
            plan=pair_plan(valid, (torch.zeros_like(near.i), near.i, near.j), group, UNASKED + 1),
            corresponding=(near.i[near.corresponds], near.j[near.corresponds]),
            pair_bins=bin_of(angles_deg),
            token_bins=_bins_of_tokens(views),
            digest=question_digest(words, valid, near.i, near.j, group),
            # Tokens and what is near depend on the token grid alone, what is visible on the stored pixels.
            pairs=question_digest(words, valid, near.i, near.j),
            median_angle_deg=weighted_median(angles_deg, torch.ones_like(angles_deg, dtype=torch.int64)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class VisibleQuestion(Question):
    """Near pairs of the tokens of one set.

    Attributes:
        near: which of them correspond.
        plan: all of them, by bin of viewpoint angle; those that do not correspond in group `UNASKED`.
        corresponding: i and j of those that correspond, each [M] int64 of the V * P tokens.
        pair_bins: [M] int64 bins of their viewpoint angles.
        token_bins: [1, V, W, P] uint8 bin of the angle at each token between its view and another.
    """

    near: NearPairs
    plan: PairPlan
    corresponding: tuple[Tensor, Tensor]
    pair_bins: Tensor
    token_bins: Tensor

    def labels(self) -> PairLabels:
        valid = self.plan.valid
        shape = (valid.shape[0], valid.shape[1], valid.shape[2])
        unasked = ~self.near.corresponds
        positive, ignored = (
            TokenLists.from_pairs(shape, (torch.zeros_like(i), i, j))
            for i, j in (self.corresponding, (self.near.i[unasked], self.near.j[unasked]))
        )
        return PairLabels(
            valid=valid, positive=positive, ignored=ignored, group=self.token_bins, groups=len(BINS)
        )

    def means(self, tokens: Tensor) -> dict[str, float | None]:
        score = pair_cosine(tokens, self.plan)
        total, count = score.group_sum[0, :UNASKED], score.group_count[0, :UNASKED]
        metrics = {
            **mean_metrics("corr", "", total.sum(), count.sum()),
            **mean_metrics("noncorr", "", score.rest_sum[0], score.rest_count[0]),
        }
        for index, name in enumerate(BINS):
            metrics |= mean_metrics("corr", f"@{name}", total[index], count[index])
        return metrics

    def histograms(self, tokens: Tensor, nearest: NearestCosine) -> Tensor:
        # The angle is that of a pair, which a group of all pairs of a token cannot say.
        assert nearest.noncorr is not None
        bins = nearest.noncorr.shape[-1]
        i, j = self.corresponding
        unit, there = (part[0].flatten(0, 1) for part in unit_tokens(tokens, nearest.valid))
        known = (there[i] & there[j]).nonzero()[:, 0]
        place = [
            similarity_bin(_dots(unit, i[some], j[some]), bins) + self.pair_bins[some] * bins
            for some in known.split(BLOCK)
        ]
        return torch.bincount(torch.cat(place), minlength=len(BINS) * bins).view(len(BINS), bins)


def _dots(unit: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """[M] products of rows i [M] and j [M] of unit vectors [V * P, D]."""
    return unit.index_select(0, i).mul_(unit.index_select(0, j)).sum(-1)


def _bins_of_tokens(views: Sequence[SurfaceView]) -> Tensor:
    """[1, V, W, P] uint8 bin of the angle at each token's point between its camera and the others."""
    world = padded([view.world for view in views])[0].double()  # [V, P, 3]
    centres = torch.stack([view.centre for view in views])
    ray = centres[:, None, None] - world[:, None]  # [V, 1, P, 3]
    other = centres[None, :, None] - world[:, None]  # [V, W, P, 3]
    return bin_of(angle_deg(*torch.broadcast_tensors(ray, other))).to(torch.uint8)[None]
