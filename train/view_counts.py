"""Batches of sets with a number of views and an aspect that change from step to step.

A pure function of (seed, epoch, step, rank): a run that was stopped draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..store.key import Size


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How large batches are.

    Attributes:
        max_images: of one rank at one step; sets = max(1, floor(max_images / views)).
        views: fewest and most views of a set; one number is drawn for a batch, all alike likely.
        aspects: lowest and highest height / width, likewise, in steps of 0.01; none = the target's own.
        alike: all ranks draw the same, so that none waits for one with larger batches.

    Raises:
        ConfigError: a range is empty.
    """

    max_images: int = 48
    views: tuple[int, int] = (2, 4)
    aspects: tuple[float, float] | None = None
    alike: bool = True

    def __post_init__(self) -> None:
        if self.max_images < 1:
            raise _wrong("max_images", self.max_images, "1 or more")
        if not 1 <= self.views[0] <= self.views[1]:
            raise _wrong("views", self.views, "the fewest first: views=[2,24]")
        if self.aspects is not None and not 0 < self.aspects[0] <= self.aspects[1]:
            raise _wrong("aspects", self.aspects, "the lowest first: aspects=[0.33,1.0]")


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """One rank's batch at one step.

    Attributes:
        sets, views: how many.
        aspect: height / width; none = the target's own.
    """

    sets: int
    views: int
    aspect: float | None = None

    def pixels(self, width: int, patch: int) -> Size:
        """(height, width) for this aspect, the height rounded down to whole patches, at least one.

        Args:
            width: in pixels, of the target.
            patch: in pixels.
        """
        height = width if self.aspect is None else int(width * self.aspect / patch) * patch
        return max(height, patch), width


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What one rank reads at one step: items `start` to `stop` of the epoch's order, in this shape."""

    start: int
    stop: int
    shape: BatchShape


def batch_shape(options: BatchOptions, *, seed: int, epoch: int, step: int, rank: int) -> BatchShape:
    """The shape that a rank draws at a step."""
    rng = np.random.default_rng([seed, epoch, step, 0 if options.alike else rank])
    views = int(rng.integers(options.views[0], options.views[1] + 1))
    aspect = None if options.aspects is None else round(float(rng.uniform(*options.aspects)), 2)
    return BatchShape(sets=max(1, options.max_images // views), views=views, aspect=aspect)


def plan_epoch(
    items: int, options: BatchOptions, *, seed: int, epoch: int, ranks: int = 1
) -> Iterator[tuple[BatchPlan, ...]]:
    """Per step, what each rank reads; every rank has at least one item at every step.

    The last step shares out what is left. Only what cannot be shared out, fewer items than ranks, is left for
    other epochs.

    Args:
        items: length of the epoch's order.
        ranks: how many processes train together.
    """
    position, step = 0, 0
    while items - position >= ranks:
        shapes = [batch_shape(options, seed=seed, epoch=epoch, step=step, rank=rank) for rank in range(ranks)]
        plans = []
        for shape, count in zip(shapes, _shared_out(items - position, shapes), strict=True):
            plans.append(BatchPlan(start=position, stop=position + count, shape=shape))
            position += count
        yield tuple(plans)
        step += 1


def _shared_out(items: int, shapes: Sequence[BatchShape]) -> list[int]:
    """Items per rank: what its memory was planned for, or evenly what is left, never more."""
    counts = [0] * len(shapes)
    for _ in range(min(items, sum(shape.sets for shape in shapes))):
        open_ranks = (rank for rank, shape in enumerate(shapes) if counts[rank] < shape.sets)
        counts[min(open_ranks, key=lambda rank: counts[rank])] += 1
    return counts


def _wrong(name: str, value: object, fix: str) -> ConfigError:
    return ConfigError(f"{name}={value} cannot be meant.", where=f"batches.{name}", fix=fix)
