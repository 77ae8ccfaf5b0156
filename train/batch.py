"""A batch by name, and its division along the first dimension.

Shapes: B items, n of them in a piece. Tensors, arrays and sequences have one entry per item; anything else, a
tensor without dimensions included, is shared by all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TrainError

Batch = Mapping[str, Any]


def size(batch: Batch) -> int:
    """Items of the batch, B.

    Raises:
        TrainError: there are none, or parts of the batch have different numbers of them.
    """
    sizes = {name: len(value) for name, value in batch.items() if _per_item(value)}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        counted = ", ".join(f"{name} has {count}" for name, count in sizes.items())
        raise TrainError(
            "the parts of a batch do not have one number of items.",
            where="the task's batches",
            why=counted or "nothing in it has a first dimension",
            fix="give tensors, arrays and lists one entry per item; what items share is a plain value",
        )
    return next(iter(sizes.values()))


def split(batch: Batch, pieces: int) -> list[Batch]:
    """At most `pieces` batches that hold every item once, in order, in sizes that differ by one at most."""
    whole = size(batch)
    pieces = min(pieces, whole)
    edges = [whole * i // pieces for i in range(pieces + 1)]
    return [
        {name: value[start:stop] if _per_item(value) else value for name, value in batch.items()}
        for start, stop in itertools.pairwise(edges)
    ]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; from pinned memory the copy runs beside the computation."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def _per_item(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, Tensor | np.ndarray) and value.ndim > 0)
