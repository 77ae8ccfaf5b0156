"""Other libraries on the store's own files (h5py on a file of its own), printed only: they have no goals.

    python benchmarks/store.py --only engines

zarr-python, zarr-python with zarrs' codecs, and TensorStore open the very shards that the store wrote. What
is not installed is left out. Each reads the bundle in order, one layer, 16 random maps, and 1,024 tokens of
one layer into new memory; a ratio is their seconds over ours: how many times as fast the store is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from judge import Row, alternate, median_interval, seconds
from store_case import LAYERS, Case


def measure(case: Case, pairs: int) -> Iterator[Row]:
    """Rows of every engine that is there."""
    block = case.block()
    draw = np.random.default_rng(3)
    at = tuple(draw.integers(0, size, 1024) for size in case.shape[:3])
    maps = [(int(draw.integers(case.shape[0])), LAYERS[draw.integers(4)]) for _ in range(16)]
    ours: dict[str, Callable[[], object]] = {
        "the bundle in order": lambda: [block.tokens(layer) for layer in LAYERS],
        "one layer": lambda: block.tokens(LAYERS[1]),
        "16 random maps": lambda: [block.tokens(layer, [view]) for view, layer in maps],
        "gather 1,024 tokens": lambda: block.gather(LAYERS[1], *at),
    }
    for engine, (arrays, gather) in _engines(case).items():
        theirs: dict[str, Callable[[], object]] = {
            "the bundle in order": lambda a=arrays: [_whole(a[layer]) for layer in LAYERS],
            "one layer": lambda a=arrays: _whole(a[LAYERS[1]]),
            "16 random maps": lambda a=arrays: [_one(a[layer], view) for view, layer in maps],
            "gather 1,024 tokens": lambda a=arrays, g=gather: g(a[LAYERS[1]], at),
        }
        taken = [np.asarray(each["gather 1,024 tokens"]()) for each in (ours, theirs)]
        assert np.array_equal(taken[0], taken[1])
        for name, work in theirs.items():
            timed = alternate(partial(seconds, ours[name]), partial(seconds, work), pairs)
            value, low, high = median_interval([other[0] / own[0] for own, other in timed])
            yield Row(
                name=f"D = {case.width:,}: {engine}, {name}",
                value=value,
                low=low,
                high=high,
                unit="x as fast",
            )


def _engines(case: Case) -> dict[str, tuple[dict[str, Any], Callable[[Any, Any], Any]]]:
    """By name, the layers opened and how tokens are gathered."""
    folders = {layer: case.root / case.spec(layer).folder / "tokens" for layer in LAYERS}
    found = {"zarr-python": ({name: _zarr(path) for name, path in folders.items()}, _gather_maps)}
    if find_spec("zarrs"):
        found["zarrs"] = ({name: _zarrs(path) for name, path in folders.items()}, _gather_maps)
    if find_spec("tensorstore"):
        found["TensorStore"] = ({name: _tensorstore(path) for name, path in folders.items()}, _gather_any)
    if find_spec("h5py"):
        found["h5py"] = (_h5py(case), _gather_maps)
    return found


def _zarr(path: Path) -> Any:
    import zarr

    return zarr.open_array(path, mode="r")


def _zarrs(path: Path) -> Any:
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return zarr.open_array(path, mode="r")


def _tensorstore(path: Path) -> Any:
    import tensorstore

    where = {"driver": "file", "path": str(path)}
    return tensorstore.open({"driver": "zarr3", "kvstore": where}).result()


def _h5py(case: Case) -> dict[str, Any]:
    import h5py

    file = h5py.File(case.folder / "case.h5", "w")
    return {name: file.create_dataset(name, data=values) for name, values in case.values.items()}


def _whole(array: Any) -> np.ndarray:
    values = array[...]
    return values if isinstance(values, np.ndarray) else values.read().result()


def _one(array: Any, view: int) -> np.ndarray:
    values = array[view]
    return values if isinstance(values, np.ndarray) else values.read().result()


def _gather_any(array: Any, at: Any) -> np.ndarray:
    return array[at].read().result()


def _gather_maps(array: Any, at: Any) -> np.ndarray:
    """Coordinates on some axes alone are not offered: whole maps are read, then tokens taken."""
    view, row, col = at
    return _whole(array)[view, row, col]
