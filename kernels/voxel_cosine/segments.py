"""Which tokens share a cell and a view: sorted once per ids, used for every layer.

Shapes: B sets, V views, P tokens of a view; T tokens that have a cell, S segments (all tokens of one cell
in one view), G cells (each of one set), M pairs of segments of one cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .chunks import Chunks


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelSegments:
    """The tokens of B sets sorted by (set, cell, view), and the counts of their pairs.

    Attributes:
        shape: (B, V, P).
        order: [T] rows of the flattened [B * V * P] tokens.
        set, view, id: [S] of each segment; the id is the one that was given for the cell.
        count: [S] tokens of each segment.
        cell: [S] number of the segment's cell, ascending.
        cell_set: [G] set of each cell.
        corr_count, noncorr_count: [B] int64 pairs of tokens of different views in one cell, and in two.
    """

    shape: tuple[int, int, int]
    order: Tensor
    set: Tensor
    view: Tensor
    id: Tensor
    count: Tensor
    cell: Tensor
    cell_set: Tensor
    corr_count: Tensor
    noncorr_count: Tensor

    @cached_property
    def first_token(self) -> Tensor:
        """[S + 1] where in the order each segment begins, and the end of the last."""
        return bounds(self.count)

    @cached_property
    def first_segment(self) -> Tensor:
        """[G + 1] first segment of each cell, and the end of the last."""
        return starts(self.cell, len(self.cell_set))

    @cached_property
    def first_pair(self) -> Tensor:
        """[S] where among the pairs those begin whose first segment this is."""
        here = torch.arange(len(self.cell), device=self.cell.device)
        later = self.first_segment[self.cell + 1] - 1 - here
        return later.cumsum(0) - later

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """[M] and [M] segments of one cell in views a < b, in order of set, cell, a, b."""
        here = torch.arange(len(self.cell), device=self.cell.device)
        a = here.repeat_interleave(self.first_segment[self.cell + 1] - 1 - here)
        return a, a + 1 + torch.arange(len(a), device=a.device) - self.first_pair[a]

    @cached_property
    def chunks(self) -> Chunks:
        """The pieces that a GPU works on."""
        from .chunks import chunks_of

        return chunks_of(self)


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
    return VoxelSegments(
        shape=(sets, views, tokens),
        order=rows[order],
        set=cell_set[cell],
        view=view,
        id=(set_id % stride)[cell],
        count=count,
        cell=cell,
        cell_set=cell_set,
        corr_count=corr // 2,
        noncorr_count=(everything - corr) // 2,
    )


def total(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums [size, ...] of the rows of values [N, ...] by index [N]; in row order on the CPU."""
    return values.new_zeros(size, *values.shape[1:]).index_add_(0, index, values)


def bounds(sizes: Tensor) -> Tensor:
    """[N + 1] where runs of these sizes [N] begin, and the end of the last."""
    return torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))


def starts(ascending: Tensor, size: int) -> Tensor:
    """[size + 1] where each of 0 ... size - 1 begins in ascending numbers, and the end of the last."""
    wanted = torch.arange(size + 1, device=ascending.device)
    return torch.searchsorted(ascending, wanted)
