"""The batches of an epoch: which item comes when, and which rank takes it. Pure functions of the seed.

An item is a view, or a view set. Items of one kind fit into one batch (they share the token grid); a batch
holds items of one kind. Every item comes once in an epoch. All ranks have the same number of batches: at the
last step of a kind what is left is shared out evenly, and where fewer items are left than there are ranks,
the ranks without one repeat an item of that step, which the batch says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochOrder:
    """Attributes:
    orders: of each kind, its items in the order of the epoch.
    steps: [steps, 3] kind, first and last + 1 place in its order.
    ranks: how many.
    """

    orders: tuple[np.ndarray, ...]
    steps: np.ndarray
    ranks: int

    def __len__(self) -> int:
        """Steps, which are batches of each rank."""
        return len(self.steps)

    def items(self, step: int, rank: int) -> tuple[np.ndarray, bool]:
        """[N] items that a rank takes at a step, and whether another rank has them, too."""
        kind, start, stop = self.steps[step].tolist()
        count = stop - start
        if count < self.ranks:
            at = start + rank % count
            return self.orders[kind][at : at + 1], rank >= count
        share, more = divmod(count, self.ranks)
        first = start + rank * share + min(rank, more)
        return self.orders[kind][first : first + share + (rank < more)], False


def step_count(kinds: Sequence[int], *, batch: int, ranks: int, drop_last: bool) -> int:
    """Steps of an epoch with so many items of each kind."""
    together = batch * ranks
    return sum(count // together if drop_last else -(-count // together) for count in kinds)


def epoch_order(
    kinds: Sequence[np.ndarray],
    *,
    batch: int,
    ranks: int,
    seed: int | None,
    epoch: int,
    drop_last: bool = False,
) -> EpochOrder:
    """The order of one epoch.

    Args:
        kinds: the items of each kind.
        batch: most items of one rank at one step.
        ranks: how many read together.
        seed: of the order; None = as given, the kinds one after the other.
        epoch: another order for each.
        drop_last: leave out, for this epoch, what does not fill a batch of every rank.
    """
    rng = None if seed is None else np.random.default_rng([seed, epoch])
    orders = tuple(np.array(kind) if rng is None else rng.permutation(kind) for kind in kinds)
    together, steps = batch * ranks, []
    for kind, items in enumerate(orders):
        end = len(items) // together * together if drop_last else len(items)
        steps += [(kind, start, min(start + together, end)) for start in range(0, end, together)]
    table = np.array(steps, np.int64).reshape(-1, 3)
    return EpochOrder(orders=orders, steps=table if rng is None else rng.permutation(table), ranks=ranks)
