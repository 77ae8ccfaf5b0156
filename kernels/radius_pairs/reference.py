"""Cross-view pairs within a radius: the definition, every token against every other, in plain torch.

Shapes: B sets, N tokens of a set, R rows at a time, M pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .search import PairSearch
from .tokens import Tokens, squared_distance

BLOCK = 1 << 22
"""Pairs that are looked at together."""


def search(tokens: Tokens) -> PairSearch:
    """The pairs i < j of valid tokens of different views with distance < (radius_i + radius_j) / 2.

    Squares are compared: they are rounded alike everywhere, square roots are not.

    Row b * N + i finds the pairs (i, j) of set b.
    """
    sets, count = tokens.valid.shape
    found = [near.sum(1) for near, _ in _blocks(tokens, 0, sets * count)]
    ends = torch.cat([tokens.view.new_zeros(0), *found]).cumsum(0)

    def fill(start: int, stop: int) -> tuple[Tensor, Tensor]:
        codes, squares, row = [tokens.view.new_zeros(0)], [tokens.radius.new_zeros(0)], start
        for near, square in _blocks(tokens, start, stop):
            i, j = near.nonzero(as_tuple=True)
            codes.append((row + i) * count + j)
            squares.append(square[i, j])
            row += len(near)
        return torch.cat(codes), torch.cat(squares)

    return PairSearch(tokens=count, ends=ends, fill=fill)


def _blocks(tokens: Tokens, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
    """[R, N] bool whether tokens pair up, and [R, N] f64 their squared distances, for rows start ... stop."""
    sets, count = tokens.valid.shape
    place = torch.arange(count, device=tokens.point.device)
    for b in range(sets):
        rows = place[max(0, start - b * count) : max(0, stop - b * count)]
        for i in rows.split(max(1, BLOCK // max(1, count))):
            square = squared_distance(tokens.point[b, i, None], tokens.point[b])
            reach = (tokens.radius[b, i, None] + tokens.radius[b]) * 0.5
            asked = tokens.valid[b, i, None] & tokens.valid[b] & (i[:, None] < place)
            yield asked & (tokens.view[b, i, None] != tokens.view[b]) & (square < reach * reach), square
