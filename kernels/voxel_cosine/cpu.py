"""The sums of a score on a processor: every token is read once, where its cell is, by compiled loops.

Shapes: B sets, V views, P tokens of a view, D channels; N = B V P, T tokens that have a cell, S segments,
G cells, M pairs of views in a cell, K blocks of cells.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..quantized import QuantizedTokens
from .loops import bits, scan_cells
from .score import Sums, Tokens
from .segments import VoxelSegments, total

BLOCK = 2048
"""Tokens of the cells that one thread works on at a time. The cut does not depend on the number of
threads, and so neither do the sums."""


def scan(tokens: Tokens, plan: VoxelSegments, by_pair: bool = False, by_cell: bool = False) -> Sums:
    """The sums of tokens [B, V, P, D] f32, f16, bf16 or quantized; the same bits on any number of threads."""
    sets, views, _ = plan.shape
    blocks = _blocks(plan)
    block_set = plan.cell_set[blocks[:-1]]
    by_block = torch.zeros(len(block_set), views, tokens.shape[-1], dtype=torch.float64)  # [K, V, D]
    cells = torch.zeros(len(plan.cell_set), dtype=torch.float64)
    dots = torch.zeros(len(plan.pairs[0]) if by_pair else 0, dtype=torch.float64)
    first_pair = plan.first_pair if by_pair else dots.long()
    index = plan.order, plan.first_token, plan.first_segment, plan.view, first_pair
    arrays = [array.numpy() for array in (*index, cells, dots)]
    stored = _stored(tokens)

    def work(block: int) -> bool:
        first_view = int(block_set[block]) * views
        ends = int(blocks[block]), int(blocks[block + 1])
        return scan_cells(*ends, first_view, *stored, *arrays, by_block[block].numpy())  # pyright: ignore

    finite = _all(work, len(block_set))
    return Sums(
        by_view=total(by_block, block_set, sets),
        corr=total(cells, plan.cell_set, sets),
        finite=torch.tensor(finite),
        by_pair=dots if by_pair else None,
        by_cell=cells if by_cell else None,
    )


def _all(work: Callable[[int], bool], blocks: int) -> bool:
    # numba's own threads must not be entered from two threads at once, and callers may have threads.
    threads = min(torch.get_num_threads(), blocks)
    if threads < 2:
        return all(map(work, range(blocks)))
    with ThreadPoolExecutor(threads) as pool:
        return all(pool.map(work, range(blocks)))


def _blocks(plan: VoxelSegments) -> Tensor:
    """[K + 1] first cell of each block, and the end of the last: cells of one set, about `BLOCK` tokens."""
    tokens = plan.first_token[plan.first_segment[1:]]  # [G] up to the end of each cell
    full = (tokens - 1) // BLOCK + plan.cell_set * (len(plan.order) // BLOCK + 1)
    cuts = (full.diff() != 0).nonzero()[:, 0] + 1
    return torch.cat((cuts[:0].new_zeros(1), cuts, cuts.new_full((min(len(full), 1),), len(full))))


def _stored(tokens: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stored numbers [N, D], scale and offset [B * V, D], the latter empty where there are none."""
    if isinstance(tokens, QuantizedTokens):
        flat = (
            tensor.reshape(-1, tensor.shape[-1]) for tensor in (tokens.values, tokens.scale, tokens.offset)
        )
        values, scale, offset = (tensor.numpy() for tensor in flat)
        return values, scale.astype(np.float32), offset.astype(np.float32)
    none = np.empty((0, 0), np.float32)
    return bits(tokens.detach().reshape(-1, tokens.shape[-1])), none, none
