"""Exports as WebDataset tars, one sample per view: `<dataset>/<scene>/<position>.<field>.npy` and `.json`.

The JSON says which view it is: `view`, `scene`, `frame`, `position`, `grid`, and `fields`, the arrays' names.
Equal features give equal bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...store.atomic import write_atomic
from ...store.selection import Selection
from ..tar_write import tar_chunks
from .array_files import named_arrays


def write_webdataset(path: Path, part: Selection, fields: tuple[str, ...]) -> int:
    """The tar of one scene and grid."""
    write_atomic(path, tar_chunks(_members(part, fields)))
    return 0


def _members(part: Selection, fields: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(name, data) of all views; one view is in memory at a time."""
    views = ((block, view) for block in part.parts for view in block.views)
    for number, (block, view) in enumerate(views):
        features = part.read([number], fields)
        arrays = named_arrays(features)
        key = f"{block.scene}/{view.position:06d}"
        about = {
            "view": features.views[0],
            "scene": block.scene,
            "frame": view.name,
            "position": view.position,
            "grid": list(block.grid),
            "fields": sorted(arrays),
        }
        yield f"{key}.json", json.dumps(about, ensure_ascii=True).encode()
        for name, values in arrays.items():
            yield f"{key}.{name}.npy", _npy(values[0])


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
