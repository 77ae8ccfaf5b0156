"""Matches between tokens: a quadratic fit of the similarities around the best key.

Shapes: B sets, V query views, W = V key views, P tokens of a view (R rows, C columns, row by row), D
channels, N matches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ProbeError
from .reference import NearestCosine
from .unit import unit_tokens

BLOCK = 1 << 22
"""Values of neighbouring tokens that are gathered at a time."""


def refine(
    tokens: Tensor,
    nearest: NearestCosine,
    grids: Sequence[tuple[int, int]],
    *,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """Where between the tokens the best match lies: offsets from the nearest key.

    A quadratic is fitted by least squares to the 3 x 3 similarities around the nearest key; its maximum
    is the offset, cut to half a token. Where some of the 3 x 3 are missing (at the border, or because
    they take no part), or the quadratic has no maximum, each axis gets the parabola through its three
    similarities, and 0 where these are not all there or have no maximum.

    Args:
        tokens, scale, offset: as for `nearest_cosine`.
        nearest: what it found.
        grids: (R, C) of each view; its first R * C tokens are the grid, row by row.

    Returns:
        [B, V, W, P, 2] f32 (f64 for f64 tokens) (row, column) in tokens, within [-0.5, 0.5]; NaN where
        there is no key.

    Raises:
        ProbeError: a grid does not fit the tokens, or there is not one for each view.
    """
    _check_grids(grids, tokens)
    unit, _ = unit_tokens(tokens, nearest.valid, scale, offset)
    first = nearest.keys[..., 0]  # [B, V, W, P]
    offsets = torch.full((first.numel(), 2), torch.nan, dtype=unit.dtype, device=unit.device)
    matches = (first >= 0).flatten().nonzero()[:, 0]
    for some in matches.split(max(BLOCK // (9 * max(tokens.shape[-1], 1)), 1)):
        offsets[some] = peak(*_windows(unit, nearest, torch.tensor(grids, device=some.device), some))
    return offsets.view(*first.shape, 2)


def _check_grids(grids: Sequence[tuple[int, int]], tokens: Tensor) -> None:
    _, views, places, _ = tokens.shape
    if len(grids) != views or any(min(grid) < 1 or grid[0] * grid[1] > places for grid in grids):
        raise ProbeError(
            f"the grids {list(grids)} are not those of {views} views of {places} tokens.",
            where="refine",
            why="each view needs rows and columns whose product is at most its tokens",
            fix="give (rows, columns) for each view",
        )


def peak(window: Tensor, there: Tensor) -> Tensor:
    """[N, 2] (row, column) of the maximum of a quadratic through windows [N, 3, 3], as `refine` says.

    Args:
        window: similarities, of which the middle one is no smaller than the others.
        there: [N, 3, 3] bool which of them are known.
    """
    known = there.all(-1).all(-1)
    fitted, has_maximum = _fit(window)
    axes = torch.stack(
        [_parabola(window[:, :, 1], there[:, :, 1]), _parabola(window[:, 1], there[:, 1])], dim=-1
    )
    return torch.where((known & has_maximum)[:, None], fitted, axes).clamp(-0.5, 0.5)


def _windows(unit: Tensor, nearest: NearestCosine, grids: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 3, 3] similarities around the nearest keys, and which of them are known.

    Args:
        unit: [B, V, P, D].
        grids: [V, 2].
        some: [N] of the B * V * W * P queries.
    """
    views, places = unit.shape[1:3]
    query_view, p = some // (views * places), some % places
    key_view = query_view // views * views + some // places % views
    key = nearest.keys[..., 0].flatten()[some]
    rows, there = _neighbours(key, grids[key_view % views])
    rows = rows + key_view[:, None] * places
    flat = unit.flatten(0, 2)
    window = (flat[rows] @ flat[query_view * places + p][..., None])[..., 0]  # [N, 9]
    there = there & nearest.valid.flatten()[rows]
    return window.view(-1, 3, 3), there.view(-1, 3, 3)


def _neighbours(key: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 9] tokens around key [N], of views with grid [N, 2]; and whether the grid has them."""
    step = torch.arange(-1, 2, device=key.device)
    row = (key // grid[:, 1])[:, None] + step.repeat_interleave(3)
    column = (key % grid[:, 1])[:, None] + step.repeat(3)
    there = (row >= 0) & (row < grid[:, :1]) & (column >= 0) & (column < grid[:, 1:])
    return torch.where(there, row * grid[:, 1:] + column, 0), there


def _fit(window: Tensor) -> tuple[Tensor, Tensor]:
    """Stationary point [N, 2] of the least-squares quadratic of windows [N, 3, 3]; is it a maximum?"""
    by_row, by_column = window.sum(2), window.sum(1)  # [N, 3]
    gradient = torch.stack([by_row[:, 2] - by_row[:, 0], by_column[:, 2] - by_column[:, 0]], -1) / 6
    curve_row, curve_column = ((part[:, 0] - 2 * part[:, 1] + part[:, 2]) / 3 for part in (by_row, by_column))
    twist = (window[:, 0, 0] - window[:, 0, 2] - window[:, 2, 0] + window[:, 2, 2]) / 4
    determinant = curve_row * curve_column - twist**2
    has_maximum = (determinant > 0) & (curve_row < 0)
    row = twist * gradient[:, 1] - curve_column * gradient[:, 0]
    column = twist * gradient[:, 0] - curve_row * gradient[:, 1]
    return torch.stack([row, column], -1) / determinant.where(has_maximum, 1.0)[:, None], has_maximum


def _parabola(line: Tensor, there: Tensor) -> Tensor:
    """[N] maximum of the parabola through three similarities [N, 3]; 0 without one."""
    curve = line[:, 0] - 2 * line[:, 1] + line[:, 2]
    bends = there.all(-1) & (curve < 0)
    return torch.where(bends, (line[:, 0] - line[:, 2]) / (2 * curve.where(bends, 1.0)), 0.0)
