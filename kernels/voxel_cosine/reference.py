"""Mean cosine of corresponding tokens without the matrix of all pairs: the definition, in plain torch.

With unit vectors f, S_vn their sum over cell v and view n, S_v and S_n over one of the two, and S over
all, the sums over pairs of tokens of different views are

    corr    = 1/2 sum_v (|S_v|^2 - sum_n |S_vn|^2)        both in one cell
    all     = 1/2 (|S|^2 - sum_n |S_n|^2)
    noncorr = all - corr

exact, and in time and memory linear in the number of tokens.

Shapes: B sets, V views, P tokens of a view, D channels; G cells, M pairs of views in a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .segments import Block, VoxelSegments, total, voxel_segments

EPS = 1e-12


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
class VoxelCosine:
    """Sums of cosines and numbers of pairs of tokens of different views.

    Attributes:
        corr_sum, noncorr_sum: [B] f64 over pairs in one cell, and over pairs in two cells.
        corr_count, noncorr_count: [B] int64.
        pairs: the corresponding ones by cell and views, if asked for.
    """

    corr_sum: Tensor
    corr_count: Tensor
    noncorr_sum: Tensor
    noncorr_count: Tensor
    pairs: CellPairs | None = None


def voxel_cosine(
    tokens: Tensor, ids: Tensor, *, plan: VoxelSegments | None = None, pairs: bool = False
) -> VoxelCosine:
    """Cosines of tokens of different views in the same and in different cells.

    Each token is divided by max(its length, 1e-12), so that a token of zeros stays zero and counts as
    a cosine of 0. A token that is not finite, or whose squared length overflows, takes no part, as if
    its id were -1. Unit vectors are float32 (float64 if the tokens are), all sums float64: a mean is
    within 1e-6 of that of all pairs in float64. Deterministic on the CPU; differentiable.

    Args:
        tokens: [B, V, P, D], any float dtype.
        ids: [B, V, P] int64 cell of each token in its set, -1 = none.
        plan: `voxel_segments(ids)`, to be made once when many layers are scored.
        pairs: give the sums by cell and views too.
    """
    plan = voxel_segments(ids) if plan is None else plan
    flat = tokens.reshape(-1, tokens.shape[-1])
    flat = flat if flat.dtype == torch.float64 else flat.float()
    length = torch.linalg.vector_norm(flat, dim=-1)
    if not bool(length[plan.order].isfinite().all()):
        return voxel_cosine(tokens, ids.where(length.reshape(ids.shape).isfinite(), -1), pairs=pairs)
    by_cell, by_view, dots = _scan(flat, 1 / length.clamp_min(EPS), plan, pairs)
    corr = total(by_cell, plan.cell_set, plan.shape[0]) / 2
    everything = (_square(by_view.sum(1)) - _square(by_view).sum(1)) / 2
    return VoxelCosine(
        corr_sum=corr.where(plan.corr_count > 0, 0.0),
        corr_count=plan.corr_count,
        noncorr_sum=(everything - corr).where(plan.noncorr_count > 0, 0.0),
        noncorr_count=plan.noncorr_count,
        pairs=_cell_pairs(dots, plan) if pairs else None,
    )


def _scan(
    tokens: Tensor, scale: Tensor, plan: VoxelSegments, pairs: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One pass over tokens [N, D] times scale [N]: what is left of |S_v|^2 per cell [G], S_n [B, V, D],
    and S_va . S_vb per block."""
    sets, views, _ = plan.shape
    by_view = tokens.new_zeros(sets * views, tokens.shape[-1], dtype=torch.float64)
    by_cell, dots = [by_view.new_zeros(0)], []
    scale = scale[plan.order]
    for number, block in enumerate(plan.blocks):
        here = block.segments
        sums = _segment_sums(tokens, scale, plan, block)
        cells = plan.cell[here] - block.cells.start, block.cells.stop - block.cells.start
        # Cell by cell, so that one seen by a single view gives an exact zero.
        by_cell.append(_square(total(sums, *cells)) - total(_square(sums), *cells))
        by_view = by_view.index_add_(0, plan.set[here] * views + plan.view[here], sums)
        if pairs:
            a, b = plan.block_pairs[number]
            dots.append((sums.index_select(0, a) * sums.index_select(0, b)).sum(-1))
    return torch.cat(by_cell), by_view.reshape(sets, views, -1), dots


def _segment_sums(tokens: Tensor, scale: Tensor, plan: VoxelSegments, block: Block) -> Tensor:
    """[S, D] f64 sums of the block's unit vectors. No sorted or normalised copy of tokens is made."""
    here, segments = block.tokens, block.segments
    starts = plan.run_start[block.runs] - here.start
    runs = embedding_bag(
        plan.order[here], tokens, starts, mode="sum", per_sample_weights=scale[here]
    ).double()  # [Q, D]
    if len(runs) == segments.stop - segments.start:
        return runs
    return total(runs, plan.run_segment[block.runs] - segments.start, segments.stop - segments.start)


def _cell_pairs(dots: list[Tensor], plan: VoxelSegments) -> CellPairs:
    a, b = plan.pairs
    return CellPairs(
        set=plan.set[a],
        id=plan.id[a],
        view_a=plan.view[a],
        view_b=plan.view[b],
        dot_sum=torch.cat([torch.zeros(0, dtype=torch.float64, device=a.device), *dots]),
        count=plan.count[a] * plan.count[b],
    )


def _square(vectors: Tensor) -> Tensor:
    """Squared lengths [...] of vectors [..., D]."""
    return torch.linalg.vector_norm(vectors, dim=-1).square()
