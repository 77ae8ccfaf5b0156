"""What the training loop needs from a task; it knows nothing else of it.

The batches of an epoch are a pure function of (epoch, start, shard) and of what the task was made with. So a
run that died needs no state of its data: it asks for the batches from where it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .batch import Batch
from .distributed import Shard


class Task(ABC):
    """A model, its data and its loss.

    Attributes:
        model: trained in place. Every process makes it with the same values, from a seed or from files: a run
            that died before its first checkpoint begins anew.
    """

    model: nn.Module

    @abstractmethod
    def steps(self, shard: Shard) -> int | None:
        """Batches of an epoch, the same number on all ranks; None = as many as are asked for."""

    @abstractmethod
    def batches(self, epoch: int, start: int, shard: Shard) -> Iterator[Batch]:
        """The batches of an epoch for one rank, from number `start` on.

        Each rank has its own part of step k, and at least one item in it. Random numbers come from a
        generator of (seed, epoch, k), never from what was drawn before. Reading ahead is up to the task, with
        threads that end when the iterator is closed.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """`loss`, a scalar to go down, and any scalars to be logged, each a mean over the items of the batch.

        It runs under autocast, in training mode, with tensors on the model's device. Dropout and augmentation
        may use the global random numbers of torch, NumPy and Python, which are seeded anew for every step.
        """

    def validate(self, model: nn.Module, shard: Shard) -> Mapping[str, float]:
        """Metrics on held-out data, without gradient and in evaluation mode.

        Every rank is asked at once, and what rank 0 returns counts: ranks that share the work bring it
        together with `distributed.sum_over_ranks`. `<part>/<metric>` is that of a part of the data.
        """
        return {}

    def pictures(self, model: nn.Module, epoch: int, folder: Path) -> None:  # noqa: B027
        """Write pictures of what the model does after `epoch` epochs into `folder`; on rank 0 alone."""

    def identity(self) -> Mapping[str, Any]:
        """JSON of what decides the numbers beside the options, such as the fingerprint of the data.

        A checkpoint of another identity is not continued.
        """
        return {}
