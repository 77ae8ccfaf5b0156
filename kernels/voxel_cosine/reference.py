"""Mean cosine of corresponding tokens without the matrix of all pairs: the definition, in plain torch.

With unit vectors f, S_vn their sum over cell v and view n, S_v and S_n over one of the two, and S over
all, the sums over pairs of tokens of different views are

    corr    = 1/2 sum_v (|S_v|^2 - sum_n |S_vn|^2)        both in one cell
    all     = 1/2 (|S|^2 - sum_n |S_n|^2)
    noncorr = all - corr

exact, and in time and memory linear in the number of tokens.

Shapes: B sets, V views, P tokens of a view, D channels; T tokens that have a cell, S segments, G cells,
M pairs of views in a cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quantized import QuantizedTokens
from .score import EPS, Sums, Tokens
from .segments import VoxelSegments, total


def scan(tokens: Tokens, plan: VoxelSegments, by_pair: bool = False, by_cell: bool = False) -> Sums:
    """The sums of tokens [B, V, P, D]; differentiable.

    Unit vectors are float32 (float64 if the tokens are), their sums float64.
    """
    values = tokens.dequantize() if isinstance(tokens, QuantizedTokens) else tokens
    sets, views, _ = plan.shape
    flat = values.reshape(-1, values.shape[-1])[plan.order]  # [T, D]
    flat = flat if flat.dtype == torch.float64 else flat.float()
    length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
    unit = (flat / length.clamp_min(EPS)).double()
    segment = torch.arange(len(plan.count), device=unit.device).repeat_interleave(plan.count)
    sums = total(unit, segment, len(plan.count))  # [S, D]
    # Cell by cell, so that one seen by a single view gives an exact zero.
    in_cell, cells = plan.cell, len(plan.cell_set)
    cell_sums = (_square(total(sums, in_cell, cells)) - total(_square(sums), in_cell, cells)) / 2
    a, b = plan.pairs if by_pair else (segment[:0], segment[:0])
    return Sums(
        by_view=total(sums, plan.set * views + plan.view, sets * views).reshape(sets, views, -1),
        corr=total(cell_sums, plan.cell_set, sets),
        finite=length.isfinite().all(),
        by_pair=(sums[a] * sums[b]).sum(-1) if by_pair else None,
        by_cell=cell_sums if by_cell else None,
    )


def _square(vectors: Tensor) -> Tensor:
    """Squared lengths [...] of vectors [..., D]."""
    return torch.linalg.vector_norm(vectors, dim=-1).square()
