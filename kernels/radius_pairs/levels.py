"""Tokens sorted into the cells of nested grids, one grid for each octave of radii.

A token lies in the grid of its radius, whose cells are at least as large. The radius of a pair is at most
the larger of the two, so that the token of the smaller radius (or either, within a grid) sees the other in
the 27 cells around its own in the other's grid: radii may differ a hundredfold, and no token looks through
cells made for those much larger than itself and its partner.

Shapes: B sets, N tokens of a set, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .tokens import Tokens

LEVELS = 16
"""Grids of a set. Level 0 is that of the largest radius, each further one has half its cells' edge; the
last takes in all smaller radii."""

BITS = 19
"""Of a cell along an axis, in its key. Cells that are 2^19 apart share a key: their tokens are compared, and
are too far apart."""

FARTHEST = float(2**50)
"""Cells beyond it along an axis are one, since what int64 cannot hold would become anything; neighbours stay
neighbours."""

NO_TOKEN = 1 << 62
"""The key of a token that is not valid, above all others."""

SMALLEST = 2.0**-900
"""The least edge of level 0: radii below it need no smaller cells, and no power of two is lost."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SortedTokens:
    """Tokens in order of their cell.

    Attributes:
        key: [B, N] int64 level << 57 | x << 38 | y << 19 | z, ascending; `NO_TOKEN` where none is left.
        index: [B, N] int64 token.
        point: [B, N, 3] f64.
        radius: [B, N] f64.
        view: [B, N] int64.
        edge: [B, L] f64 of the cells of a level, a power of two above the radii of its tokens.
        occupied: [B, L] int32 1 for a level that has tokens.
    """

    key: Tensor
    index: Tensor
    point: Tensor
    radius: Tensor
    view: Tensor
    edge: Tensor
    occupied: Tensor


def sorted_tokens(tokens: Tokens) -> SortedTokens:
    """Sorts stably, so that the order is the same on every device."""
    edge = _edges(tokens.radius)
    # The first level whose cells are no longer twice as large as needed.
    level = (tokens.radius[..., None] < edge[:, None, 1:]).sum(-1)  # [B, N]
    level = level.where(tokens.valid, 0)
    cells = (tokens.point / edge.gather(1, level)[..., None]).floor()
    x, y, z = (cells.clamp(-FARTHEST, FARTHEST).long() & ((1 << BITS) - 1)).unbind(-1)
    key = (level << 3 * BITS) | (x << 2 * BITS) | (y << BITS) | z
    key, index = key.where(tokens.valid, NO_TOKEN).sort(dim=1, stable=True)
    occupied = torch.zeros(edge.shape, dtype=torch.int32, device=edge.device)
    return SortedTokens(
        key=key,
        index=index,
        point=tokens.point.gather(1, index[..., None].expand(-1, -1, 3)),
        radius=tokens.radius.gather(1, index),
        view=tokens.view.gather(1, index),
        edge=edge,
        occupied=occupied.scatter_reduce_(1, level, tokens.valid.int(), "amax"),
    )


def _edges(radius: Tensor) -> Tensor:
    """[B, L] f64 powers of two for radii [B, N]."""
    largest = radius.amax(1).clamp_min(SMALLEST)
    top = largest / torch.frexp(largest).mantissa  # the power of two above it, exactly
    halvings = torch.full((LEVELS,), 0.5, dtype=radius.dtype, device=radius.device)
    halvings[0] = 1
    return top[:, None] * halvings.cumprod(0)
