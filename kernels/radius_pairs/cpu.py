"""Cross-view pairs within a radius, on a processor.

Shapes: B sets, N tokens of a set, L levels, S slots of a table, M pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ..voxel_hash.cpu import mix
from .levels import BITS, FARTHEST, NO_TOKEN, sorted_tokens
from .search import PairSearch
from .tokens import Tokens

CELL = (1 << BITS) - 1


def search(tokens: Tokens) -> PairSearch:
    """As `reference.search`; a row is a place in `SortedTokens`."""
    sets, count = tokens.valid.shape
    cells = sorted_tokens(tokens)
    lists = (cells.key, cells.index, cells.point, cells.radius, cells.view, cells.edge, cells.occupied)
    key, index, point, radius, view, edge, occupied = (one.contiguous().numpy() for one in lists)
    tables = [_table(one) for one in key]
    found = np.zeros((sets, count), np.int64)

    def visit(start: int, stop: int, codes: Tensor, squares: Tensor) -> None:
        """Counts what rows start ... stop find, and writes it where there is room."""
        written = 0
        for b in range(sets):
            first, end = max(0, start - b * count), min(count, stop - b * count)
            written += _search(
                key[b], index[b], point[b], radius[b], view[b], edge[b], occupied[b], tables[b],
                first, end, b * count, found[b], codes[written:].numpy(), squares[written:].numpy(),
            )  # fmt: skip

    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
    visit(0, sets * count, *nothing)
    ends = torch.from_numpy(found).reshape(-1).cumsum(0)

    def fill(start: int, stop: int) -> tuple[Tensor, Tensor]:
        pairs = int(ends[stop - 1]) - (int(ends[start - 1]) if start else 0) if stop > start else 0
        codes, squares = (one.new_empty(pairs) for one in nothing)
        visit(start, stop, codes, squares)
        return codes, squares

    return PairSearch(tokens=count, ends=ends, fill=fill)


@njit(cache=True, nogil=True)
def _table(keys):
    """[S] int32 where in the sorted keys [N] those of a cell begin, at a slot that follows from the key; -1
    is empty."""
    size = 2
    while size < 2 * len(keys):
        size *= 2
    table, last = np.full(size, -1, np.int32), np.uint64(size - 1)
    for p in range(len(keys)):
        if keys[p] != NO_TOKEN and (p == 0 or keys[p] != keys[p - 1]):
            slot = mix(keys[p]) & last
            while table[slot] >= 0:
                slot = (slot + np.uint64(1)) & last
            table[slot] = p
    return table


@njit(cache=True, nogil=True)
def _first(table, keys, key):
    """The first place of a key, or -1."""
    last = np.uint64(len(table) - 1)
    slot = mix(key) & last
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + np.uint64(1)) & last
    return table[slot]


@njit(cache=True, nogil=True)
def _cell(at, edge):
    return np.int64(min(max(np.floor(at / edge), -FARTHEST), FARTHEST))


@njit(cache=True, nogil=True)
def _search(
    key, index, point, radius, view, edge, occupied, table, start, stop, set_start, found, codes, squares
):
    """How many pairs rows start ... stop of a set find, in all and [N] each; codes and squares have room
    for all of them or for none."""
    pairs = 0
    for p in range(start, stop):
        before = pairs
        own = key[p] >> 3 * BITS if key[p] != NO_TOKEN else -1
        for level in range(own + 1):
            if not occupied[level]:
                continue
            x0 = _cell(point[p, 0], edge[level])
            y0 = _cell(point[p, 1], edge[level])
            z0 = _cell(point[p, 2], edge[level])
            for near in range(27):
                x, y, z = x0 + near // 9 - 1, y0 + near // 3 % 3 - 1, z0 + near % 3 - 1
                cell = level << 3 * BITS | (x & CELL) << 2 * BITS | (y & CELL) << BITS | (z & CELL)
                q = _first(table, key, cell)
                while 0 <= q < len(key) and key[q] == cell:
                    # Of two tokens of one level, the earlier finds the pair.
                    if view[q] != view[p] and (level < own or index[q] > index[p]):
                        dx = point[p, 0] - point[q, 0]
                        dy = point[p, 1] - point[q, 1]
                        dz = point[p, 2] - point[q, 2]
                        square, reach = dx * dx + dy * dy + dz * dz, (radius[p] + radius[q]) * 0.5
                        if square < reach * reach:
                            if len(codes):
                                i, j = min(index[p], index[q]), max(index[p], index[q])
                                codes[pairs] = (set_start + i) * len(key) + j
                                squares[pairs] = square
                            pairs += 1
                    q += 1
        found[p] = pairs - before
    return pairs
