"""Nearest tokens of other views on a GPU: how the kernels are launched.

Shapes: B sets, V views, W = V key views, P tokens of a view, D channels, K keys that are kept, Q pairs of
views of one launch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
import triton
from torch import Tensor

from . import kernel, reference
from .candidates import AFTER, EMPTY
from .labels import PairLabels, TokenLists
from .reference import NearestCosine, empty_result
from .unit import inverse_length, unit_tokens

# pyright: reportArgumentType=false, reportCallIssue=false

CANDIDATES = 1 << 25
"""Candidates for columns that one launch may write: 256 MiB."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

PROGRAMS = 1024
"""Programs that keep a GPU busy; a launch of fewer is split by columns."""


def nearest_cosine(
    tokens: Tensor,
    labels: PairLabels,
    *,
    k: int,
    bins: int,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> NearestCosine:
    """See the package. Products are of float16, bfloat16 or (as three of TF32) float32 values, uint8 tokens
    are unit vectors in float16; float64 tokens go through the definition."""
    if tokens.dtype == torch.float64:
        return reference.nearest_cosine(tokens, labels, k=k, bins=bins)
    valid = labels.valid
    if tokens.dtype == torch.uint8:
        tokens, valid = unit_tokens(tokens, valid, scale, offset)
        tokens = tokens.half()
    tokens = tokens.contiguous()
    inverse = inverse_length(tokens, valid)
    found = empty_result(inverse[..., None], inverse >= 0, labels, k=k, bins=bins)
    if tokens.shape[1] > 1 and tokens.numel():
        with torch.cuda.device_of(tokens):
            work = _Work.of(tokens, inverse, labels, k, bins)
            for number in range(len(tokens)):
                work.match_set(number, found)
            _decode(work.best, found)
    return found


@dataclass(frozen=True, kw_only=True)
class Launch:
    """View pairs `pairs` and row blocks `blocks` of a set that one launch works on."""

    pairs: slice
    blocks: slice


def launches(pairs: int, blocks: int, candidates: int) -> Iterator[Launch]:
    """The launches of a set; a block of rows of a pair of views writes as many candidates."""
    fitting = max(CANDIDATES // max(candidates, 1), 1)  # blocks of a launch
    if fitting < blocks:
        for pair in range(pairs):
            for first in range(0, blocks, fitting):
                yield Launch(pairs=slice(pair, pair + 1), blocks=slice(first, min(first + fitting, blocks)))
    else:
        step = fitting // blocks
        for first in range(0, pairs, step):
            yield Launch(pairs=slice(first, min(first + step, pairs)), blocks=slice(0, blocks))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What all launches share.

    Attributes:
        best: [B * V * W, K, P] int64 candidates so far.
        every: [copies, bins + 1] int32 counts of all pairs of the launch in work.
    """

    tokens: Tensor
    inverse: Tensor
    labels: PairLabels
    group: Tensor
    best: Tensor
    every: Tensor
    k: int
    bins: int

    @classmethod
    def of(cls, tokens: Tensor, inverse: Tensor, labels: PairLabels, k: int, bins: int) -> _Work:
        sets, views, places = inverse.shape
        device, counts = tokens.device, labels.positive is not None
        empty = torch.arange(k, device=device)[:, None] + EMPTY.value
        lists = (sets, views, views, places) if counts and labels.group is None else (1,)
        group = torch.zeros(lists, dtype=torch.uint8, device=device) if labels.group is None else labels.group
        return cls(
            tokens=tokens,
            inverse=inverse,
            labels=labels,
            group=group.contiguous(),
            best=empty.expand(sets * views * views, k, places).contiguous(),
            every=torch.zeros(kernel.COPIES, bins + 1 if counts else 1, dtype=torch.int32, device=device),
            k=k,
            bins=bins,
        )

    def match_set(self, number: int, found: NearestCosine) -> None:
        """All pairs of views of a set, into `best` and the histograms."""
        _, views, places = self.inverse.shape
        pairs = list(combinations(range(views), 2))
        blocks = triton.cdiv(places, kernel.ROWS)
        corr = None
        if found.corr is not None:
            corr = found.corr.new_zeros(self.labels.groups, self.bins + 1)
        for launch in launches(len(pairs), blocks, self.k * places):
            chosen = [(number, v, w) for v, w in pairs[launch.pairs]]
            self._match(chosen, launch.blocks, corr)
            if found.noncorr is not None:
                counted = self.every.sum(0)
                found.noncorr[number] += _without_overflow(counted)
                self.every.zero_()
        if corr is not None and found.corr is not None and found.noncorr is not None:
            found.corr[number] = _without_overflow(corr)
            found.noncorr[number] -= found.corr[number].sum(0)

    def _match(self, pairs: list[tuple[int, int, int]], rows: slice, corr: Tensor | None) -> None:
        _, views, places = self.inverse.shape
        count, row_blocks, device = len(pairs), rows.stop - rows.start, self.tokens.device
        constants = self._constants(counting=corr is not None)
        chunks, chunk = _chunks(triton.cdiv(places, constants["COLUMNS"]), count * row_blocks)
        row_best, column_best = (
            torch.empty(count, parts, self.k, places, dtype=torch.int64, device=device)
            for parts in (chunks, row_blocks)
        )
        view = torch.tensor([[b * views + v, b * views + w] for b, v, w in pairs], device=device)
        there = (view[:, 0] * views + view[:, 1] % views)[:, None]
        back = view[:, 1] * views + view[:, 0] % views
        kernel.match_views[(row_blocks, chunks, count)](
            self.tokens,
            self.inverse,
            torch.cat((view, there), dim=1) * places,
            *self._lists(self.labels.ignored),
            *self._lists(self.labels.positive),
            self.group,
            self.every,
            self.every if corr is None else corr,
            row_best,
            column_best,
            places,
            rows.start,
            chunk,
            self.bins,
            self.bins / 2,
            **constants,
            num_warps=kernel.WARPS,
            num_stages=kernel.STAGES,
        )
        band = (rows.start * kernel.ROWS, min(rows.stop * kernel.ROWS, places))
        self._merge(row_best, there[:, 0].contiguous(), *band)
        self._merge(column_best, back, 0, places)

    def _constants(self, *, counting: bool) -> dict[str, int]:
        ignoring = self.labels.ignored is not None
        wide = self.tokens.dtype == torch.float32
        return {
            **kernel.launch_constants(wide=wide, listed=counting or ignoring),
            "D": self.tokens.shape[-1],
            "K": self.k,
            "S": triton.next_power_of_2(self.k),
            "IGNORE": ignoring,
            "COUNT": counting,
            "INTERPRETED": INTERPRETED,
        }

    def _merge(self, parts: Tensor, targets: Tensor, first: int, end: int) -> None:
        """Candidates [Q, parts, K, P] of tokens first to end, into the targets [Q] of `best`."""
        grid = (triton.cdiv(end - first, kernel.MERGED), len(targets))
        shape = {"K": self.k, "S": triton.next_power_of_2(self.k), "BLOCK": kernel.MERGED}
        places = parts.shape[-1]
        kernel.merge_parts[grid](self.best, parts, targets, places, first, end, parts.shape[1], **shape)

    def _lists(self, lists: TokenLists | None) -> tuple[Tensor, Tensor, Tensor]:
        if lists is None:
            return self.best, self.best, self.best  # not read
        return lists.rows, lists.start.contiguous(), lists.stop.contiguous()


def _chunks(tiles: int, rows: int) -> tuple[int, int]:
    """Chunks of columns, and tiles of each, that make PROGRAMS programs of so many blocks of rows."""
    chunk = triton.cdiv(tiles, min(triton.cdiv(PROGRAMS, rows), tiles))
    return triton.cdiv(tiles, chunk), chunk


def _without_overflow(counts: Tensor) -> Tensor:
    """[..., H] of counts [..., H + 1], whose last bin is what rounding leaves above 1."""
    return torch.cat((counts[..., :-2], counts[..., -2:].sum(-1, keepdim=True)), dim=-1)


def _decode(best: Tensor, found: NearestCosine) -> None:
    """Candidates [B * V * W, K, P] as keys and cosines, nearest first."""
    best = best.transpose(1, 2).sort(dim=-1, descending=True).values.view(found.keys.shape)
    missing = best < EMPTY.value + (1 << 32)
    ordered = (best >> 32).int()
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    found.keys.copy_((AFTER.value - (best & 0xFFFFFFFF)).masked_fill(missing, -1))
    found.cosine.copy_(bits.view(torch.float32).masked_fill(missing, -torch.inf))
