"""Rotary position embedding in two dimensions: half of a head turns with the row, half with the column.

Pairs of channels are (k, k + quarter) of each half, frequency base^(-2k / half). Positions are whole
numbers known from the grid, so nothing has to be read back from the device.

Shapes: ... any, N tokens of a view = T prefix + R C patch tokens, E channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

Tables = tuple[Tensor, Tensor]


def grid_positions(rows: int, cols: int, prefix: int, device: torch.device | None = None) -> Tensor:
    """(row, column) of every token, [T + R C, 2] i64: 0 for prefix tokens, counted from 1 for patches."""
    row = torch.arange(1, rows + 1, device=device)
    col = torch.arange(1, cols + 1, device=device)
    patches = torch.stack(torch.meshgrid(row, col, indexing="ij"), dim=-1).flatten(0, 1)  # [R C, 2]
    return torch.cat((patches.new_zeros(prefix, 2), patches))


def rotary_tables(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> Tables:
    """cos and sin, [..., N, E] each, for `rotate`.

    Args:
        positions: [..., N, 2] (row, column).
        head_dim: E, a multiple of 4.
        dtype: of the tables. Angles are f32; in 16 bit they would lose whole turns.
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions[..., None].float() * (1 / base**exponents)  # [..., N, 2, E / 4]
    angles = torch.cat((angles, angles), dim=-1).flatten(-2)  # [..., N, E]
    angles = angles.to(torch.promote_types(dtype, torch.float32))
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """[..., M N, E] turned by the tables of N tokens, the same for each of M views."""
    cos, sin = tables
    views = x.unflatten(-2, (-1, cos.shape[-2]))  # [..., M, N, E]
    first, second = views.unflatten(-1, (2, 2, -1)).unbind(-2)  # [..., M, N, 2, E / 4]
    turned = torch.stack((-second, first), dim=-2).flatten(-3)  # [..., M, N, E]
    return (views * cos + turned * sin).flatten(-3, -2)
