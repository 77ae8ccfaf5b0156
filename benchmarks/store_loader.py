"""The loader against reads of the same maps in the same order from plain files, into one buffer.

    python benchmarks/store_loader.py [--check] [--pairs 15]

A store of 32 views, four layers of [37, 37, D] f16 (`store_case.py`); an epoch is 32 sets of 8 random views,
a batch one set with all its layers, checksums `first`, everything read once before. The peer reads each map
with one `preadv` on one thread and makes nothing of it. Its batches take turns in as many pieces of memory as
the loader's do: those under way, the one at hand, and the one that is being used. (Into one piece, which no
trainer could use meanwhile, it is up to a third faster where that fits into the processor's cache.)

A ratio is the peer's seconds over the loader's: CPU seconds with one thread each, and wall seconds, which is
bandwidth, with the loader's own number of threads.
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import cycle
from pathlib import Path

import numpy as np
from judge import Row, alternate, median_interval, run_alone, seconds
from store_case import GRID, LAYERS, VIEWS, Case
from strata.store.feature_store import FeatureStore
from strata.store.loader import BATCHES_KEPT
from strata.store.page_memory import page_empty
from strata.store.read_ahead import THREADS
from strata.store.schema import ViewSet

WIDTHS, SETS, SET_VIEWS = (384, 1024), 32, 8


def measure(pairs: int) -> list[Row]:
    """A row for each width."""
    return [measure_width(width, threads, pairs) for width in WIDTHS for threads in (1, THREADS)]


def measure_width(width: int, threads: int, pairs: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(folder=Path(folder), width=width).prepare()
        selection = FeatureStore.open(case.root).select("random")
        loader = selection.loader(random_sets(case), batch=1, seed=1, threads=threads)
        files = [os.open(case.raw(layer), os.O_RDONLY) for layer in LAYERS]
        shape = (len(LAYERS), SET_VIEWS, *GRID, width)
        buffers = [page_empty(shape, np.float16) for _ in range(BATCHES_KEPT)]
        order = [[int(name[-3:]) for name in batch.views] for batch in loader]
        map_bytes = case.nbytes // VIEWS

        def ours() -> None:
            assert sum(len(batch.views) for batch in loader) == SETS * SET_VIEWS

        def raw() -> None:
            for views, buffer in zip(order, cycle(buffers), strict=False):
                for file, maps in zip(files, buffer, strict=True):
                    for view, out in zip(views, maps, strict=True):
                        os.preadv(file, [memoryview(out)], view * map_bytes)

        timed = alternate(lambda: seconds(ours), lambda: seconds(raw), pairs)
        for file in files:
            os.close(file)
    wall, cpu = (median_interval([peer[kind] / own[kind] for own, peer in timed]) for kind in (0, 1))
    (value, low, high), unit, other = (cpu, "CPU", wall) if threads == 1 else (wall, "wall", cpu)
    ms = 1e3 * median_interval([own[0] for own, _ in timed])[0]
    return Row(
        name=f"D = {width:,}: loader, random views, threads={threads}",
        value=value,
        low=low,
        high=high,
        unit=f"of raw in {unit} seconds",
        goal=0.8,
        note=f"{'wall' if threads == 1 else 'CPU'} {other[0]:.2f}, an epoch {ms:,.1f} ms",
    )


def random_sets(case: Case) -> list[ViewSet]:
    """Sets of views of the one scene there is."""
    draw = np.random.default_rng(2)
    picked = [draw.permutation(VIEWS)[:SET_VIEWS].tolist() for _ in range(SETS)]
    views = [[case.views[i] for i in one] for one in picked]
    return [
        ViewSet(
            scene=case.bundle.scenes[0].id,
            members=tuple(view.name for view in one),
            images=tuple(view.image_digest for view in one),
        )
        for one in views
    ]


if __name__ == "__main__":
    sys.exit(run_alone(measure, "The loader against raw reads.", 15))
