"""Equal values give equal chunks, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from strata.store.arrays import ArraySpec, encode_chunk


def test_a_large_image_compresses_to_the_same_bytes_every_time():
    """Large enough for blosc to cut it into blocks, which a pool of threads would put in any order."""
    ramp = np.linspace(0, 255, 392 * 518 * 3).reshape(1, 392, 518, 3)
    image = (ramp + np.random.default_rng(0).normal(0, 4, ramp.shape)).clip(0, 255).astype(np.uint8)
    dims = ("view", "y", "x", "rgb")
    spec = ArraySpec(shape=image.shape, dims=dims, dtype="uint8", unit=1, sharded=True, blosc=True, fill=0)
    with ThreadPoolExecutor(1) as pool:
        found = {encode_chunk(spec, image) for _ in range(20)}
        found |= {pool.submit(encode_chunk, spec, image).result() for _ in range(5)}
    assert len(found) == 1
