"""Nearest tokens of other views on a CPU: a product per pair of views, and loops over its tiles.

Each pair of views is multiplied once, tile by tile; while a tile is in the cache, the loops find the best
of its rows and of its columns (the two directions) and count all similarities. Beside the product of
2 D flops per similarity they cost some 10 cycles, and no more memory than a tile.

Shapes: B sets, V views, P tokens of a view, D channels, K keys that are kept; n, m tokens of two views that
take part, G groups, H bins, T threads.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from . import loops
from .labels import PairLabels, TokenLists
from .reference import NearestCosine, empty_result
from .unit import unit_tokens

TILE, ROWS = 1 << 18, 256
"""Similarities of a tile, for each thread: 1 MB, which stay in the second cache; but rows enough for a fast
product."""

_Listed = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], tuple[int, np.ndarray], np.ndarray]
"""Ignored and corresponding pairs of two views, the columns of tokens, and the groups of rows."""


def nearest_cosine(
    tokens: Tensor,
    labels: PairLabels,
    *,
    k: int,
    bins: int,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> NearestCosine:
    """See the package. Uses as many threads as torch does."""
    unit, valid = unit_tokens(tokens, labels.valid, scale, offset)
    found = empty_result(unit, valid, labels, k=k, bins=bins)
    # Threads of Python, as the loops let go of its lock: those of numba would go on to spin beside torch's.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for number in range(len(unit)):
            sides = [_Side.of(*view) for view in zip(unit[number], valid[number], strict=True)]
            counts = _Counts.of(labels, number, bins, torch.get_num_threads())
            for v, w in combinations(range(len(sides)), 2):
                _Match.of(sides[v], sides[w], (number, v, w), found).run(counts, pool)
            counts.write(found)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """The tokens of one view that take part.

    Attributes:
        rows: [n] int64 their numbers in the view.
        unit: [n, D].
        place: [P] int32 where each token of the view is among them, -1 = nowhere.
    """

    rows: Tensor
    unit: Tensor
    place: np.ndarray

    @classmethod
    def of(cls, unit: Tensor, valid: Tensor) -> _Side:
        rows = valid.nonzero()[:, 0]
        place = torch.where(valid, valid.cumsum(0, dtype=torch.int32) - 1, -1)
        return cls(rows=rows, unit=unit if len(rows) == len(unit) else unit[rows], place=place.numpy())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Best:
    """The K nearest keys of tokens of one view so far, numbered among those that take part."""

    cosine: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, count: int, like: Tensor) -> _Best:
        cosine = torch.full((count, like.shape[-1]), float(loops.LOWEST), dtype=like.dtype)
        return cls(cosine=cosine.numpy(), keys=np.full(cosine.shape, -1, np.int64))

    def write(self, found: NearestCosine, place: tuple[int, int, int], queries: Tensor, keys: Tensor) -> None:
        """Into the result, numbered as tokens of the view."""
        at = torch.from_numpy(self.keys)
        missing = at < 0
        found.keys[place][queries] = keys[at.clamp(min=0)].masked_fill(missing, -1)
        found.cosine[place][queries] = torch.from_numpy(self.cosine).masked_fill(missing, -torch.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Match:
    """Two views of a set, and what is found between them.

    Attributes:
        pair: (set, v, w).
        least: [m] the last of `back.cosine`.
    """

    queries: _Side
    keys: _Side
    pair: tuple[int, int, int]
    best: _Best
    back: _Best
    least: np.ndarray
    found: NearestCosine

    @classmethod
    def of(cls, queries: _Side, keys: _Side, pair: tuple[int, int, int], found: NearestCosine) -> _Match:
        back = _Best.of(len(keys.rows), found.cosine)
        return cls(
            queries=queries,
            keys=keys,
            pair=pair,
            best=_Best.of(len(queries.rows), found.cosine),
            back=back,
            least=back.cosine[:, -1].copy(),
            found=found,
        )

    def run(self, counts: _Counts, pool: ThreadPoolExecutor) -> None:
        """Multiply the two views once, and write both directions."""
        n, m = len(self.queries.rows), len(self.keys.rows)
        if n == 0 or m == 0:
            return
        tiles = math.ceil(n / max(TILE * len(counts.partial) // m, ROWS))
        buffer = self.queries.unit.new_empty(math.ceil(n / tiles), m)  # even: a thin tile is slow to multiply
        listed = counts.listed(self.queries.rows, self.keys.place, self.pair)
        for first in range(0, n, len(buffer)):
            rows = slice(first, min(first + len(buffer), n))
            tile = torch.mm(self.queries.unit[rows], self.keys.unit.T, out=buffer[: rows.stop - first])
            loops.count_listed(tile.numpy(), first, *listed, counts.corr, counts.noncorr)
            self._scan(tile.numpy(), first, counts, pool)
        number, v, w = self.pair
        self.best.write(self.found, (number, v, w), self.queries.rows, self.keys.rows)
        self.back.write(self.found, (number, w, v), self.keys.rows, self.queries.rows)

    def _scan(self, tile: np.ndarray, first: int, counts: _Counts, pool: ThreadPoolExecutor) -> None:
        parts = len(counts.partial)

        def scan(part: int) -> None:
            begin, end = (len(tile) * step // parts for step in (part, part + 1))
            counts.add(tile[begin:end], part)
            here = slice(first + begin, first + end)
            loops.best_of_rows(tile[begin:end], self.best.cosine[here], self.best.keys[here])
            begin, end = (tile.shape[1] * step // parts for step in (part, part + 1))
            loops.best_of_columns(tile, first, begin, end, self.least, self.back.cosine, self.back.keys)

        list(pool.map(scan, range(parts)) if parts > 1 else map(scan, range(parts)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counts:
    """The histograms of one set while they grow, with one more bin for what rounding leaves above 1.

    Attributes:
        corr: [G, H + 1] int64.
        noncorr: [H + 1] int64.
        partial: [T, H + 1] int64 counts of all pairs by each thread; what `corr` has is taken off `noncorr`.
    """

    labels: PairLabels
    number: int
    corr: np.ndarray
    noncorr: np.ndarray
    partial: np.ndarray

    @classmethod
    def of(cls, labels: PairLabels, number: int, bins: int, threads: int) -> _Counts:
        return cls(
            labels=labels,
            number=number,
            corr=np.zeros((labels.groups, bins + 1), np.int64),
            noncorr=np.zeros(bins + 1, np.int64),
            partial=np.zeros((threads, bins + 1), np.int64),
        )

    def listed(self, rows: Tensor, place: np.ndarray, pair: tuple[int, int, int]) -> _Listed:
        """What `loops.count_listed` is told of the query tokens rows [n]."""
        group = self.labels.group
        groups = torch.zeros(len(rows), dtype=torch.uint8) if group is None else group[pair][rows]
        lists = (_bounds(self.labels.ignored, pair, rows), _bounds(self.labels.positive, pair, rows))
        first = (pair[0] * self.labels.valid.shape[1] + pair[2]) * len(place)
        return (*lists, (first, place), groups.numpy())

    def add(self, tile: np.ndarray, part: int) -> None:
        """Count all pairs of a part of a tile."""
        if self.labels.positive is not None:
            loops.count(tile, self.partial[part])

    def write(self, found: NearestCosine) -> None:
        for counted, own in ((found.corr, self.corr), (found.noncorr, self.noncorr + self.partial.sum(0))):
            if counted is not None:
                own[..., -2] += own[..., -1]
                counted[self.number] = torch.from_numpy(own[..., :-1])


def _bounds(lists: TokenLists | None, pair: tuple[int, int, int], rows: Tensor) -> tuple[np.ndarray, ...]:
    """(entries, start [n], stop [n]) of the lists of some query tokens."""
    if lists is None:
        nothing = np.zeros(len(rows), np.int64)
        return nothing, nothing, nothing
    return lists.rows.numpy(), lists.start[pair][rows].numpy(), lists.stop[pair][rows].numpy()
