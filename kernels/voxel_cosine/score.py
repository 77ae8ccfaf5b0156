"""What a score is, and how the sums that one pass over the tokens leaves become one.

Shapes: B sets, V views, P tokens of a view, D channels; G cells, M pairs of views in a cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quantized import QuantizedTokens
from .segments import VoxelSegments, total, voxel_segments

EPS = 1e-12
"""A token is divided by its length, or by this where it is shorter."""

Tokens = Tensor | QuantizedTokens


@dataclass(frozen=True, kw_only=True, eq=False)
class CellPairs:
    """Corresponding tokens by cell and views.

    Attributes:
        set, id: [M] int64; the id is the one that was given for the cell.
        view_a, view_b: [M] int64, a < b.
        dot_sum: [M] f64 sum of the cosines of all tokens of view a with all of view b in the cell.
        count: [M] int64 number of these pairs.
    """

    set: Tensor
    id: Tensor
    view_a: Tensor
    view_b: Tensor
    dot_sum: Tensor
    count: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class CellSums:
    """Corresponding tokens by cell.

    Attributes:
        set, id: [G] int64; the id is the one that was given for the cell.
        dot_sum: [G] f64 sum of the cosines of tokens of different views in the cell.
        count: [G] int64 number of these pairs, 0 where a single view sees the cell.
    """

    set: Tensor
    id: Tensor
    dot_sum: Tensor
    count: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelCosine:
    """Sums of cosines and numbers of pairs of tokens of different views.

    Attributes:
        corr_sum, noncorr_sum: [B] f64 over pairs in one cell, and over pairs in two cells.
        corr_count, noncorr_count: [B] int64.
        pairs: the corresponding ones by cell and views, if asked for.
        cells: the corresponding ones by cell, if asked for.
    """

    corr_sum: Tensor
    corr_count: Tensor
    noncorr_sum: Tensor
    noncorr_count: Tensor
    pairs: CellPairs | None = None
    cells: CellSums | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """What one pass over the tokens of a plan leaves.

    Attributes:
        by_view: [B, V, D] f64 sums of unit vectors.
        corr: [B] f64 sums of the cosines of corresponding pairs.
        finite: scalar bool; False = some token of the plan is not finite, and the sums are void.
        by_pair: [M] f64 the part of each of `plan.pairs`, if asked for.
        by_cell: [G] f64 the part of each cell, if asked for.
    """

    by_view: Tensor
    corr: Tensor
    finite: Tensor
    by_pair: Tensor | None = None
    by_cell: Tensor | None = None


Scan = Callable[[Tokens, VoxelSegments, bool, bool], Sums]
"""(tokens, plan, whether by pair, whether by cell) -> sums."""


def score_of(sums: Sums, plan: VoxelSegments) -> VoxelCosine:
    """The score that follows from finite sums: noncorr is what corr leaves of the pairs of all views."""
    every = (_square(sums.by_view.sum(1)) - _square(sums.by_view).sum(1)) / 2
    return VoxelCosine(
        corr_sum=sums.corr.where(plan.corr_count > 0, 0.0),
        corr_count=plan.corr_count,
        noncorr_sum=(every - sums.corr).where(plan.noncorr_count > 0, 0.0),
        noncorr_count=plan.noncorr_count,
        pairs=None if sums.by_pair is None else _cell_pairs(sums.by_pair, plan),
        cells=None if sums.by_cell is None else _cell_sums(sums.by_cell, plan),
    )


def finite_plan(tokens: Tokens, ids: Tensor) -> VoxelSegments:
    """The plan of the ids [B, V, P] without the tokens whose length is not finite."""
    values = tokens.dequantize() if isinstance(tokens, QuantizedTokens) else tokens
    values = values if values.dtype == torch.float64 else values.float()
    finite = values.square().sum(-1).isfinite()
    return voxel_segments(ids.where(finite, -1))


def _cell_pairs(dots: Tensor, plan: VoxelSegments) -> CellPairs:
    a, b = plan.pairs
    return CellPairs(
        set=plan.set[a],
        id=plan.id[a],
        view_a=plan.view[a],
        view_b=plan.view[b],
        dot_sum=dots,
        count=plan.count[a] * plan.count[b],
    )


def _cell_sums(sums: Tensor, plan: VoxelSegments) -> CellSums:
    cells = len(plan.cell_set)
    in_cell = total(plan.count, plan.cell, cells)
    count = (in_cell**2 - total(plan.count**2, plan.cell, cells)) // 2
    return CellSums(set=plan.cell_set, id=plan.id[plan.first_segment[:-1]], dot_sum=sums, count=count)


def _square(vectors: Tensor) -> Tensor:
    """Squared lengths [...] of vectors [..., D]."""
    return torch.linalg.vector_norm(vectors, dim=-1).square()
