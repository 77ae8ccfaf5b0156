"""What several layers cost over the last one alone, and what stopping early saves.

    python benchmarks/encoders.py [--check] [--pairs 15]

Random weights of small models of each kind of adapter look at two views (a set of two for VGGT) on a grid
of 9 x 12 tokens, in float32 on one thread. Ours is one forward for the four default layers; the peer, in
turns with it, one for the last layer alone. The bound on the ratio of CPU seconds is 1.05. Then ours is one
for the layer at half the depth; what is left of the ratio above 0.5 is the patch embedding, and for VGGT the
DINOv2 before its pairs of blocks (no goal: that later blocks are not run is tested by counting them).

With a GPU beside it nothing changes: the models run on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import torch
from judge import Row, alternate, cpu_seconds, median_interval, run_alone
from strata.extract.encoders.base import Encoder
from strata.extract.encoders.listing import default_layers
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create
from strata.extract.encoders.vggt.encoder import create_vggt
from strata.store.layers import resolve_layers
from strata.testing import random_batch

BOUND = 1.05
GRID, VIEWS = (9, 12), 2
NAMES = ("dinov2_small_reg", "dinov3_small", "dino_small_16")
VGGT = {
    "patch_size": 14,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 6,
    "encoder": {"type": "dinov2", "depth": 3, "num_heads": 6},
}


def encoders() -> list[Encoder]:
    vggt = create_vggt(VGGT, load_preset("vggt").info, "random:0")
    return [*(create(name, "random:0") for name in NAMES), vggt]


def ratio(
    encoder: Encoder, ours: Sequence[str], peer: Sequence[str], pairs: int
) -> tuple[float, float, float]:
    """Median and interval of the CPU seconds for some layers over those for others."""
    sets, views = (1, VIEWS) if encoder.info.context == "set" else (VIEWS, 1)
    batch = random_batch(encoder, GRID, sets=sets, views=views)
    forward = lambda layers: cpu_seconds(partial(encoder.forward, batch, tuple(layers)))  # noqa: E731
    seconds = alternate(partial(forward, ours), partial(forward, peer), pairs)
    return median_interval([own / other for own, other in seconds])


def measure(pairs: int) -> list[Row]:
    torch.set_num_threads(1)
    rows = []
    for encoder in encoders():
        layers, name = default_layers(encoder.info), encoder.info.name
        middle = resolve_layers(("1/2",), encoder.layers(), encoder.info.depth)
        value, low, high = ratio(encoder, layers, layers[-1:], pairs)
        title = f"{name}: {', '.join(layers)} over the last"
        rows.append(Row(name=title, value=value, low=low, high=high, unit="x", goal=BOUND, below=True))
        value, low, high = ratio(encoder, middle, layers[-1:], pairs)
        rows.append(Row(name=f"{name}: {middle[0]} over the last", value=value, low=low, high=high, unit="x"))
    return rows


if __name__ == "__main__":
    assert __doc__ is not None
    sys.exit(run_alone(measure, __doc__, 15))
