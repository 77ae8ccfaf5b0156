"""The batches of an epoch of view sets: which set comes when, in batches of which shape.

Everything is a function of (seed, epoch, number in the epoch), so a run continues at any batch.

Shapes: B sets, V views.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..errors import TrainError
from ..store.key import Size
from ..store.read_ahead import read_ahead
from .augment import AugmentOptions
from .batch import Batch
from .distributed import Shard
from .draws import Draws
from .mix import EpochOrder, epoch_order
from .view_counts import BatchOptions, BatchShape, plan_epoch
from .views import Look, SetViews, ViewSource, collated


@dataclass(frozen=True, kw_only=True)
class Picked:
    """One rank's batch: numbers of the epoch's order, and their shape."""

    numbers: tuple[int, ...]
    shape: BatchShape


@dataclass(frozen=True, kw_only=True, eq=False)
class SetBatches:
    """Batches of sets for training.

    Attributes:
        views: reads them.
        draws: what there is to draw.
        mix: by dataset, samples of an epoch.
        options: shapes of batches.
        size: (H, W) pixels of the target; None where views are stored as they are.
        patch: pixels per token side.
        augment: random changes; None = none.
        seed: of everything that is drawn.
        pin: keep batches in pinned memory, from which copies to a GPU run beside the computation.
    """

    views: ViewSource
    draws: Draws
    mix: Mapping[str, int]
    options: BatchOptions
    size: Size | None
    patch: int
    augment: AugmentOptions | None
    seed: int
    pin: bool = False

    def steps(self, ranks: int) -> int:
        """Batches of the first epoch. Where the number of views varies, later epochs are made as long."""
        return sum(1 for _ in self._round(0, 0, ranks)[1])

    def batches(self, epoch: int, start: int, shard: Shard) -> Generator[Batch]:
        """The batches of an epoch for one rank, from number `start` on, without end."""
        return read_ahead(self.reads(epoch, start, shard), self.joined)

    def reads(self, epoch: int, start: int, shard: Shard) -> Iterator[list[Callable[[], SetViews]]]:
        """For each batch, what reads its sets.

        Raises:
            TrainError: there are fewer sets than ranks.
        """
        for turn in itertools.count():
            order, plans = self._round(epoch, turn, shard.count)
            if not plans:
                raise TrainError(
                    f"{len(order):,} view sets cannot be shared out to {shard.count:,} processes.",
                    where="the sets of an epoch",
                    fix="train with fewer processes, or draw more sets: set_count=, mix=",
                )
            for picked in itertools.islice(plans, min(start, len(plans)), None):
                one = picked[shard.rank]
                yield [partial(self._read, order, epoch, turn, number, one.shape) for number in one.numbers]
            start = max(0, start - len(plans))

    def _round(self, epoch: int, turn: int, ranks: int) -> tuple[EpochOrder, list[tuple[Picked, ...]]]:
        """All items once, and per step what each rank takes; items that cannot share a batch do not."""
        seed = self.seed if turn == 0 else int(np.random.SeedSequence([self.seed, turn]).generate_state(1)[0])
        order = epoch_order(self.mix, self.draws.counts(), seed=seed, epoch=epoch)
        kinds: dict[object, list[int]] = {}
        for number in range(len(order)):
            dataset = order.datasets[order.dataset[number]]
            kinds.setdefault(self.draws.kind(dataset, int(order.item[number])), []).append(number)
        steps = []
        for numbers in kinds.values():
            for plans in plan_epoch(len(numbers), self.options, seed=seed, epoch=epoch, ranks=ranks):
                picked = (
                    Picked(numbers=tuple(numbers[plan.start : plan.stop]), shape=plan.shape) for plan in plans
                )
                steps.append(tuple(picked))
        if len(kinds) > 1:
            shuffled = np.random.default_rng([seed, epoch, len(steps)]).permutation(len(steps))
            steps = [steps[i] for i in shuffled]
        return order, steps

    def _read(self, order: EpochOrder, epoch: int, turn: int, number: int, shape: BatchShape) -> SetViews:
        seeds = np.random.SeedSequence([self.seed, epoch, turn, number])
        dataset, item = order.datasets[order.dataset[number]], int(order.item[number])
        draw = self.draws.draw(dataset, item, shape.views, np.random.default_rng(seeds))
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0]) >> 1)
        return self.views.read(draw, Look(size=self._pixels(shape), augment=self.augment), generator)

    def _pixels(self, shape: BatchShape) -> Size | None:
        if self.size is None or shape.aspect is None:
            return self.size
        return shape.pixels(self.size[1], self.patch)

    def joined(self, sets: list[SetViews]) -> Batch:
        """The batch of these sets."""
        batch = collated(sets)
        if not self.pin:
            return batch
        return {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
