"""The learning rate as a function of progress: it has no state to save."""

from __future__ import annotations

import math


def rate(progress: float, *, peak: float, floor: float, warmup: float) -> float:
    """Learning rate at `progress`, the share of all steps that are done: 0 before the first step.

    Linear from `floor` to `peak` over the first `warmup` of the steps, then half a cosine back to `floor`.
    """
    if progress < warmup:
        return floor + (peak - floor) * progress / warmup
    falling = min((progress - warmup) / (1 - warmup), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * falling))
