"""Pairs that are first counted and then filled in, so that memory holds no more than is asked for.

Shapes: B sets, N tokens of a set, B * N rows, M pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ProbeError
from .tokens import RadiusPairs, pairs_of


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSearch:
    """A search whose rows each find some of the pairs, and together each pair once.

    Attributes:
        tokens: N.
        ends: [B * N] int64 how many pairs a row and those before it find.
        fill: (first row, end of rows) -> codes (set * N + i) * N + j [M] int64, squared
            distances [M] f64.
    """

    tokens: int
    ends: Tensor
    fill: Callable[[int, int], tuple[Tensor, Tensor]]

    def all(self, most: int) -> RadiusPairs:
        """All pairs.

        Raises:
            ProbeError: they are more than `most`.
        """
        total = int(self.ends[-1]) if len(self.ends) else 0
        if total > most:
            raise ProbeError(
                f"{total:,} pairs of tokens lie within their radii.",
                where="radius_pairs",
                why=f"at most {most:,} were to be held at once",
                fix="go through radius_pair_blocks, use smaller radii, or raise most",
            )
        return pairs_of(*self.fill(0, len(self.ends)), self.tokens)

    def blocks(self, most: int) -> Iterator[RadiusPairs]:
        """The pairs of some rows at a time."""
        for start, stop in cuts(self.ends.cpu(), most):
            yield pairs_of(*self.fill(start, stop), self.tokens)


def cuts(ends: Tensor, most: int) -> Iterator[tuple[int, int]]:
    """(first, end) of runs of rows with ends [R] that find at most `most` pairs, or are one row; without
    runs that find none."""
    row, found = 0, 0
    while row < len(ends) and found < int(ends[-1]):
        stop = int(torch.searchsorted(ends, found + most, right=True))
        stop = max(stop, int(torch.searchsorted(ends, found, right=True)) + 1)
        yield row, stop
        row, found = stop, int(ends[stop - 1])
