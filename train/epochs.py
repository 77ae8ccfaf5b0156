"""How many steps an epoch has, and its batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..configs.schema import FitOptions
from ..errors import ConfigError, TrainError
from .batch import Batch
from .distributed import Shard
from .task import Task


def steps_of_an_epoch(task: Task, config: FitOptions, shard: Shard) -> int:
    """Optimiser steps of every epoch: `steps_per_epoch`, else all batches of the task.

    Raises:
        ConfigError: the task has fewer batches, none, or no end.
    """
    asked, there = config.steps_per_epoch, task.steps(shard)
    if asked is None and there is None:
        raise ConfigError(
            "steps_per_epoch must be given.",
            where="steps_per_epoch",
            why="the task's batches have no end",
            fix="write steps_per_epoch=800",
        )
    steps = there if asked is None else asked
    if not steps or (there is not None and steps > there):
        raise ConfigError(
            f"an epoch of {steps:,} steps cannot be had.",
            where="steps_per_epoch",
            why=f"the task has {there:,} batches",
            fix="write steps_per_epoch=none for all there are" if there else "give the task data",
        )
    return steps


@contextlib.contextmanager
def epoch_batches(task: Task, epoch: int, start: int, steps: int, shard: Shard) -> Iterator[Iterator[Batch]]:
    """The batches of an epoch from `start` on, closed at the end, so that threads that read ahead end too.

    Raises:
        TrainError: they end before there were `steps`.
    """
    batches = task.batches(epoch, start, shard)
    try:
        yield _enough(batches, epoch, start, steps)
    finally:
        getattr(batches, "close", lambda: None)()


def _enough(batches: Iterator[Batch], epoch: int, start: int, steps: int) -> Iterator[Batch]:
    for number in range(start, steps):
        batch = next(batches, None)
        if batch is None:
            raise TrainError(
                f"the batches of epoch {epoch} ended after {number:,}.",
                where="the task's batches",
                why=f"an epoch has {steps:,} steps",
                fix="give as many batches as Task.steps says, from the start on that is asked for",
            )
        yield batch
