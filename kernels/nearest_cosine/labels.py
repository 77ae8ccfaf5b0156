"""What is known about pairs of tokens of different views: which correspond, and which are left out.

One value for every protocol: cells give lists that the tokens of a cell share, so that memory stays
linear however large a cell is; radii give each token its own lists.

Shapes: B sets, V query views, W = V key views, P tokens of a view; N entries of all lists, M pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ProbeError


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLists:
    """For each token and each other view, some tokens of that view.

    Attributes:
        rows: [N] int64 into the tokens flattened to [B * V * P], ascending within a list.
        start, stop: [B, V, W, P] int64 bounds in `rows` of the list of token p of view v in view w;
            equal where the list is empty, as it is where w = v. Lists may share entries.
    """

    rows: Tensor
    start: Tensor
    stop: Tensor

    @classmethod
    def from_ids(cls, ids: Tensor) -> TokenLists:
        """The tokens of the same cell: ids [B, V, P] int64 below 2^40, -1 = none."""
        sets, views, _ = ids.shape
        stride = int(ids.max()) + 1 if ids.numel() else 1
        numbers = torch.arange(sets * views, device=ids.device)
        set_number = numbers.reshape(sets, views)[:, :1, None] // views
        cell = set_number * stride + ids  # [B, V, P], one number per set and id
        key = cell * views + numbers.reshape(sets, views, 1) % views
        known = (ids >= 0).flatten().nonzero()[:, 0]
        ordered, order = key.flatten()[known].sort(stable=True)
        views_w = torch.arange(views, device=ids.device)[:, None]  # [W, 1]
        asked = cell[:, :, None] * views + views_w  # [B, V, W, P]
        start = torch.searchsorted(ordered, asked)
        stop = torch.searchsorted(ordered, asked, right=True)
        empty = (ids[:, :, None] < 0) | torch.eye(views, dtype=torch.bool, device=ids.device)[..., None]
        return cls(rows=known[order], start=start.masked_fill(empty, 0), stop=stop.masked_fill(empty, 0))

    @classmethod
    def from_pairs(cls, shape: tuple[int, int, int], pairs: tuple[Tensor, Tensor, Tensor]) -> TokenLists:
        """Lists in both directions of unordered pairs.

        Args:
            shape: (B, V, P).
            pairs: set, i, j, each [M] int64, where i and j count the V * P tokens of the set. A pair
                that is given twice counts once.

        Raises:
            ProbeError: a pair lies outside the sets, or within one view.
        """
        sets, views, tokens = shape
        number, i, j = (part.long() for part in pairs)
        _check_pairs(shape, number, i, j)
        size = views * tokens
        query = number * size + torch.cat((i, j)).reshape(2, -1)
        key = number * size + torch.cat((j, i)).reshape(2, -1)
        # In the order of [B, V, W, P], and by key within a list.
        place = (query // tokens * views + key // tokens % views) * tokens + query % tokens
        joined = torch.unique((place * tokens + key % tokens).flatten())
        place, token = joined // tokens, joined % tokens
        bounds = torch.searchsorted(
            place, torch.arange(sets * views * views * tokens + 1, device=place.device)
        )
        view_rows = place // (views * views * tokens) * views + place // tokens % views
        lists = (sets, views, views, tokens)
        return cls(
            rows=view_rows * tokens + token, start=bounds[:-1].view(lists), stop=bounds[1:].view(lists)
        )

    def count(self, valid: Tensor) -> Tensor:
        """[B, V, W, P] entries of each list that are valid [B, V, P]."""
        before = torch.nn.functional.pad(valid.flatten()[self.rows].cumsum(0), (1, 0))  # [N + 1]
        return before[self.stop] - before[self.start]

    def holds(self, rows: Tensor) -> Tensor:
        """Whether rows [B, V, W, P, k] of flattened tokens are in the lists; by bisection."""
        entries = torch.cat((self.rows, self.rows.new_full((1,), torch.iinfo(torch.int64).max)))
        at, stop = self.start[..., None].expand(rows.shape), self.stop[..., None]
        longest = int((self.stop - self.start).max()) if self.start.numel() else 0
        for bit in reversed(range(longest.bit_length())):
            ahead = at + (1 << bit)
            below = (ahead <= stop) & (entries[(ahead - 1).clamp(max=len(self.rows))] < rows)
            at = torch.where(below, ahead, at)
        return (at < stop) & (entries[at] == rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairLabels:
    """Which tokens are matched, and which pairs of them correspond or are ignored.

    Attributes:
        valid: [B, V, P] bool tokens that take part.
        positive: corresponding tokens; None = not known, nothing is counted.
        ignored: tokens that are neither found nor counted, positive or not; None = none.
        group: [B, V, W, P] uint8 number, below `groups`, of the histogram that the corresponding
            tokens of token p of view v in view w count into, as by viewpoint angle. Read where v < w:
            a pair counts once. None = one group.
        groups: number of groups.
    """

    valid: Tensor
    positive: TokenLists | None = None
    ignored: TokenLists | None = None
    group: Tensor | None = None
    groups: int = 1

    @classmethod
    def from_ids(cls, ids: Tensor, *, group: Tensor | None = None, groups: int = 1) -> PairLabels:
        """Tokens with the same id [B, V, P] int64 correspond; those with a negative one take no part."""
        return cls(valid=ids >= 0, positive=TokenLists.from_ids(ids), group=group, groups=groups)


def _check_pairs(shape: tuple[int, int, int], number: Tensor, i: Tensor, j: Tensor) -> None:
    sets, views, tokens = shape
    outside = (number < 0) | (number >= sets)
    for token in (i, j):
        outside = outside | (token < 0) | (token >= views * tokens)
    wrong = outside | (i // max(tokens, 1) == j // max(tokens, 1))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0, 0])
        raise ProbeError(
            f"pair {first} (set {int(number[first])}, tokens {int(i[first])} and {int(j[first])}) joins no "
            "two views.",
            where="nearest_cosine",
            why=f"tokens of different views of {sets} sets of {views} x {tokens} tokens are expected",
            fix="give set, i and j with i and j counting the views times tokens of the set",
        )
