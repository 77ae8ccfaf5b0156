"""Which tokens share a cell and a view: sorted once per ids, used for every layer.

Shapes: B sets, V views, P tokens of a view; T tokens that have a cell, Q runs of them, S segments (all
tokens of one cell in one view), G cells (each of one set), M pairs of segments of one cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCK = 512
"""Tokens that are worked on at a time, so that their sums stay in the processor's cache."""

RUN = 5
"""Tokens that are added up in float32 before float64 takes over. A float32 sum of n unit vectors is off
by at most n 2^-24 of n, and a product of two such sums by twice that share, so that a mean cosine is off
by at most 10 * 2^-24 = 6e-7 however many tokens a cell has. Most segments are one run."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Neighbouring cells with all their segments and tokens, about `BLOCK` of the latter."""

    tokens: slice
    runs: slice
    segments: slice
    cells: slice


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelSegments:
    """The tokens of B sets sorted by (set, cell, view), and the counts of their pairs.

    Attributes:
        shape: (B, V, P).
        order: [T] rows of the flattened [B * V * P] tokens.
        run_start: [Q] where in that order runs of at most `RUN` tokens of one segment begin.
        run_segment: [Q] segment of each run, ascending.
        set, view, id: [S] of each segment; the id is the one that was given for the cell.
        count: [S] tokens of each segment.
        cell: [S] number of the segment's cell, ascending.
        cell_set: [G] set of each cell.
        blocks: how the cells are worked on.
        corr_count, noncorr_count: [B] int64 pairs of tokens of different views in one cell, and in two.
    """

    shape: tuple[int, int, int]
    order: Tensor
    run_start: Tensor
    run_segment: Tensor
    set: Tensor
    view: Tensor
    id: Tensor
    count: Tensor
    cell: Tensor
    cell_set: Tensor
    blocks: tuple[Block, ...]
    corr_count: Tensor
    noncorr_count: Tensor

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """[M] and [M] segments of one cell in views a < b, in order of set, cell, a, b."""
        here = torch.arange(len(self.cell), device=self.cell.device)
        first = [here[:-k][self.cell[k:] == self.cell[:-k]] for k in range(1, self.shape[1])]
        a = torch.cat([here[:0], *first])
        b = torch.cat([here[:0], *(rows + k for k, rows in enumerate(first, start=1))])
        order = torch.argsort(a * len(here) + b)
        return a[order], b[order]

    @cached_property
    def block_pairs(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """The pairs of each block, as segments of the block."""
        a, b = self.pairs
        starts = [block.segments.start for block in self.blocks]
        ends = torch.tensor([*starts[1:], len(self.cell)], device=a.device)
        sizes = torch.searchsorted(a, ends).diff(prepend=ends.new_zeros(1)).tolist()
        parts = zip(starts, a.split(sizes), b.split(sizes), strict=True)
        return tuple((i - start, j - start) for start, i, j in parts)


def voxel_segments(ids: Tensor) -> VoxelSegments:
    """The segments of voxel ids [B, V, P] int64 below 2^40; tokens of negative id take no part."""
    sets, views, tokens = ids.shape
    flat = ids.reshape(-1)
    rows = (flat >= 0).nonzero()[:, 0]
    stride = int(flat.max()) + 1 if len(rows) else 1
    set_view = rows // max(tokens, 1)
    key = (set_view // views * stride + flat[rows]) * views + set_view % views
    key, order = key.sort(stable=True)
    keys, count = torch.unique_consecutive(key, return_counts=True)
    set_id, cell = torch.unique_consecutive(keys // views, return_inverse=True)
    cell_set, view = set_id // stride, keys % views
    in_cell = total(count, cell, len(cell_set))
    in_view = total(count, cell_set[cell] * views + view, sets * views).reshape(sets, views)
    corr = total(in_cell**2, cell_set, sets) - total(count**2, cell_set[cell], sets)
    everything = in_view.sum(1) ** 2 - (in_view**2).sum(1)
    run_start, run_segment = _runs(count)
    return VoxelSegments(
        shape=(sets, views, tokens),
        order=rows[order],
        run_start=run_start,
        run_segment=run_segment,
        set=cell_set[cell],
        view=view,
        id=(set_id % stride)[cell],
        count=count,
        cell=cell,
        cell_set=cell_set,
        blocks=_blocks(cell[run_segment], cell, in_cell),
        corr_count=corr // 2,
        noncorr_count=(everything - corr) // 2,
    )


def total(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums [size, ...] of the rows of values [N, ...] by index [N]; in row order on the CPU."""
    return values.new_zeros(size, *values.shape[1:]).index_add_(0, index, values)


def _runs(count: Tensor) -> tuple[Tensor, Tensor]:
    """[Q] and [Q]: start among the sorted tokens, and segment, of each run."""
    runs = (count + RUN - 1) // RUN  # [S]
    segment = torch.arange(len(count), device=count.device).repeat_interleave(runs)
    nth = torch.arange(len(segment), device=count.device) - (runs.cumsum(0) - runs)[segment]
    return (count.cumsum(0) - count)[segment] + nth * RUN, segment


def _blocks(run_cell: Tensor, segment_cell: Tensor, cell_tokens: Tensor) -> tuple[Block, ...]:
    """Whole cells, cut where the tokens so far fill another block."""
    tokens = cell_tokens.cumsum(0)  # [G]
    filled = (tokens - 1) // BLOCK
    ends = (filled.diff(append=filled.new_full((1,), -1)) != 0).nonzero()[:, 0] + 1
    runs, segments = torch.searchsorted(run_cell, ends), torch.searchsorted(segment_cell, ends)
    bounds = torch.stack((tokens[ends - 1], runs, segments, ends), dim=1).tolist()
    return tuple(
        Block(**dict(zip(("tokens", "runs", "segments", "cells"), map(slice, start, end), strict=True)))
        for start, end in zip([[0, 0, 0, 0], *bounds], bounds, strict=False)
    )
