"""How the sorted tokens of a plan are cut into pieces that a GPU works on at the same time.

A chunk is of one set. It holds whole cells, or a part of one large cell, whose sums by view are put
together afterwards.

Shapes: B sets, T tokens that have a cell, S segments, G cells, K chunks, H large cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .segments import VoxelSegments, starts

LARGE = 32
"""Tokens that a cell may have to be summed in float32, off by at most 32 * 2^-24 of its sum and, as signs
of roundings differ, mostly by a tenth of that. A larger one is summed in float64."""

CHUNKS, LEAST = 2048, 256
"""About how many chunks there are to be, and the fewest tokens that one is worth starting for."""

NEW_SEGMENT, NEW_CELL, VIEW = 1, 2, 4
"""A mark is the sum of what begins with the token and of `VIEW` times its view."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """The pieces of a plan.

    Attributes:
        row: [T] int32 of the flattened tokens, in the order of the plan.
        mark: [T] int32 what begins with the token, and its view.
        first_token: [K + 1] int32 where each chunk begins, and the end of the last.
        set_chunks: [B + 1] int32 first chunk of each set, and the end of the last.
        large: [H] int64 the large cells, ascending.
        large_chunks: [2, H] int32 first chunk of each of them, and the one past its last.
    """

    row: Tensor
    mark: Tensor
    first_token: Tensor
    set_chunks: Tensor
    large: Tensor
    large_chunks: Tensor


def chunks_of(plan: VoxelSegments) -> Chunks:
    """The chunks of a plan, on its device."""
    size = max(LEAST, -(-len(plan.order) // CHUNKS))
    first_of_cell = plan.first_token[plan.first_segment]  # [G + 1] tokens
    is_large = first_of_cell.diff() > LARGE  # [G]
    segment = torch.arange(len(plan.count), device=plan.count.device).repeat_interleave(plan.count)  # [T]
    cell, here = plan.cell[segment], torch.arange(len(segment), device=segment.device)
    # A stretch is a large cell, or neighbouring small cells of one set. It is cut every `size` tokens, but
    # within no small cell: that goes where its last token would.
    alone = is_large | torch.cat((is_large[:0], is_large.roll(1)))[: len(is_large)]
    new_set = plan.cell_set.diff(prepend=plan.cell_set.new_full((1,), -1)) != 0
    stretch = (alone | new_set).cumsum(0)[cell]
    begin = starts(stretch, len(first_of_cell))[stretch]
    last = torch.where(is_large[cell], here, first_of_cell[cell + 1] - 1)
    piece = stretch * (len(here) + 1) + (last - begin) // size
    first = (piece.diff(prepend=piece.new_full((1,), -1)) != 0).nonzero()[:, 0]
    first_cell = cell[first]  # [K]
    large = is_large.nonzero()[:, 0]
    return Chunks(
        row=plan.order.int(),
        mark=_marks(plan, segment, is_large),
        first_token=torch.cat((first, first.new_full((1,), len(here)))).int(),
        set_chunks=starts(plan.cell_set[first_cell], plan.shape[0]).int(),
        large=large,
        large_chunks=torch.searchsorted(first_cell, torch.stack((large, large + 1))).int(),
    )


def _marks(plan: VoxelSegments, segment: Tensor, is_large: Tensor) -> Tensor:
    """[T] int32. Every token of a large cell begins one, so that it corresponds with none before it."""
    new_segment, new_cell = torch.zeros_like(segment), torch.zeros_like(segment)
    new_segment[plan.first_token[:-1]] = NEW_SEGMENT
    new_cell[plan.first_token[plan.first_segment[:-1]]] = NEW_CELL
    both = is_large[plan.cell[segment]] * (NEW_SEGMENT + NEW_CELL)
    return ((new_segment + new_cell) | both).int() + VIEW * plan.view[segment].int()
