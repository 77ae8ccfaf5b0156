"""Nearest tokens of other views by cosine: the definition, in plain torch.

Shapes: B sets, V query views, W = V key views, P tokens of a view, D channels, K keys that are kept;
G groups of corresponding pairs, H bins; n tokens of a view that take part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from .labels import PairLabels, TokenLists
from .unit import unit_tokens

ROWS = 512
"""Rows of similarities that are held at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestCosine:
    """The nearest tokens, and how all similarities are distributed.

    Attributes:
        valid: [B, V, P] bool tokens that took part.
        keys: [B, V, W, P, K] int64 the tokens of view w nearest to token p of view v, nearest first and
            the lower one first among equals; -1 = no more, as where w = v.
        cosine: [B, V, W, P, K] f32 (f64 for f64 tokens) their similarities; -inf without a key.
        corr: [B, G, H] int64 corresponding pairs by group and bin of similarity, each pair once, if
            the labels say what corresponds. Bin h holds [-1 + 2 h / H, -1 + 2 (h + 1) / H), the last
            one also what rounding leaves above 1.
        noncorr: [B, H] int64 the other pairs of different views.
    """

    valid: Tensor
    keys: Tensor
    cosine: Tensor
    corr: Tensor | None = None
    noncorr: Tensor | None = None


def nearest_cosine(
    tokens: Tensor,
    labels: PairLabels,
    *,
    k: int,
    bins: int,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> NearestCosine:
    """The K nearest tokens of each view to each token of the others; see the package."""
    unit, valid = unit_tokens(tokens, labels.valid, scale, offset)
    found = empty_result(unit, valid, labels, k=k, bins=bins)
    for number in range(len(unit)):
        for v, w in combinations(range(unit.shape[1]), 2):
            for rows, similar in _similarities(unit[number, v], unit[number, w]):
                _count(similar, rows, number, v, w, labels, found)
        for v in range(unit.shape[1]):
            for w in range(unit.shape[1]):
                if v != w:
                    _find(unit[number, v], unit[number, w], number, v, w, labels, found)
    return found


def empty_result(unit: Tensor, valid: Tensor, labels: PairLabels, *, k: int, bins: int) -> NearestCosine:
    """A result without keys and with nothing counted."""
    sets, views, tokens, _ = unit.shape
    shape, device = (sets, views, views, tokens, k), unit.device
    counts = labels.positive is not None
    return NearestCosine(
        valid=valid,
        keys=torch.full(shape, -1, device=device),
        cosine=torch.full(shape, -torch.inf, dtype=unit.dtype, device=device),
        corr=torch.zeros(sets, labels.groups, bins, dtype=torch.int64, device=device) if counts else None,
        noncorr=torch.zeros(sets, bins, dtype=torch.int64, device=device) if counts else None,
    )


def bin_of(cosine: Tensor, bins: int) -> Tensor:
    """int64 bin [...] of similarities [...]."""
    return ((cosine + 1) * (bins / 2)).long().clamp(0, bins - 1)


def _similarities(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for first in range(0, len(queries), ROWS):
        rows = slice(first, min(first + ROWS, len(queries)))
        yield rows, queries[rows] @ keys.T  # [rows, P]


def _listed(lists: TokenLists | None, number: int, v: int, w: int, rows: slice, like: Tensor) -> Tensor:
    """[rows, P] bool: the pairs of these lists."""
    listed = torch.zeros_like(like, dtype=torch.bool)
    if lists is not None:
        start, stop = (bound[number, v, w, rows] for bound in (lists.start, lists.stop))
        length = stop - start
        row = torch.arange(len(length), device=like.device).repeat_interleave(length)
        nth = torch.arange(len(row), device=like.device) - (length.cumsum(0) - length)[row]
        listed[row, lists.rows[start[row] + nth] % like.shape[1]] = True
    return listed


def _count(
    similar: Tensor, rows: slice, number: int, v: int, w: int, labels: PairLabels, found: NearestCosine
) -> None:
    """Add similarities [rows, P] of views v < w to the histograms."""
    if found.corr is None or found.noncorr is None:
        return
    asked = found.valid[number, v, rows, None] & found.valid[number, w]
    asked &= ~_listed(labels.ignored, number, v, w, rows, similar)
    positive = _listed(labels.positive, number, v, w, rows, similar)
    _, groups, bins = found.corr.shape
    place = bin_of(similar, bins)
    found.noncorr[number] += torch.bincount(place[asked & ~positive], minlength=bins)
    if labels.group is not None:
        place = place + labels.group[number, v, w, rows, None].long() * bins
    found.corr[number] += torch.bincount(place[asked & positive], minlength=groups * bins).view(groups, bins)


def _find(
    queries: Tensor, keys: Tensor, number: int, v: int, w: int, labels: PairLabels, found: NearestCosine
) -> None:
    """Fill in the nearest keys [P, D] of view w to the queries [P, D] of view v."""
    for rows, similar in _similarities(queries, keys):
        asked = found.valid[number, v, rows, None] & found.valid[number, w]
        asked &= ~_listed(labels.ignored, number, v, w, rows, similar)
        # Stable, so that the lower key comes first among equals.
        cosine, key = similar.masked_fill(~asked, -torch.inf).sort(dim=1, descending=True, stable=True)
        kept = min(found.keys.shape[-1], len(keys))
        cosine, key = cosine[:, :kept], key[:, :kept]
        found.cosine[number, v, w, rows, :kept] = cosine
        found.keys[number, v, w, rows, :kept] = key.masked_fill(cosine == -torch.inf, -1)
