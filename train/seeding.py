"""Random numbers that belong to a step, not to what was drawn before.

So a checkpoint holds no state of generators, and validation or pictures in between change nothing.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from .distributed import Shard


def seed_step(seed: int, step: int, shard: Shard) -> None:
    """Seed Python, NumPy and torch (all devices) for one step of one rank."""
    python, legacy, tensors = np.random.SeedSequence([seed, step, shard.rank]).generate_state(3, np.uint64)
    random.seed(int(python))
    np.random.seed(int(legacy) % 2**32)
    torch.manual_seed(int(tensors))
