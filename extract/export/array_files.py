"""Exports as files of named arrays: .npz for numpy, .safetensors for torch and others.

Both hold, for the views of one scene in one token grid: `<layer>` [V, R, C, D], `<layer>.prefix` [V, T, D],
other fields under their name in the format, and the views' names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...store.atomic import whole_file
from ...store.grid_features import GridFeatures
from ...store.selection import Selection

_BY_VIEW = (
    "image",
    "token_from_source_px",
    "depth_m",
    "K_px",
    "cam_from_world",
    "token_point_world",
    "token_valid",
    "token_spread_m",
)


def write_npz(path: Path, part: Selection, fields: tuple[str, ...]) -> int:
    """`numpy.load` reads it without pickle; `views` [V] are names. bf16 and u8 are given as f32."""
    (features,) = part.load(fields)
    arrays = {**named_arrays(features), "views": np.array(features.views)}
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return 0


def write_safetensors(path: Path, part: Selection, fields: tuple[str, ...]) -> int:
    """As stored: bf16 stays bfloat16, u8 comes with `<layer>.scale` and `<layer>.offset` [V, D].

    The metadata are `views` (a JSON list), `key` and `selection`.
    """
    from safetensors.torch import save_file

    (features,) = part.to_torch(fields)
    tensors: dict[str, Any] = {}
    for name, value in named_arrays(features).items():
        if hasattr(value, "scale"):
            tensors |= {name: value.values, f"{name}.scale": value.scale, f"{name}.offset": value.offset}
        else:
            tensors[name] = value
    about = {
        "views": json.dumps(features.views),
        "key": part.stored_key.name,
        "selection": part.fingerprint,
    }
    with whole_file(path) as partial, _errors_of_the_system():
        save_file(tensors, partial, about)
    return 0


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """The library tells a full disk in words alone; it becomes the error that it is elsewhere."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\bos error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def named_arrays(features: GridFeatures[Any]) -> dict[str, Any]:
    """By the names that the files give them, whatever was read."""
    by_view = {name: getattr(features, name) for name in _BY_VIEW}
    return {
        **features.tokens,
        **{f"{layer}.prefix": value for layer, value in features.prefix.items()},
        **{name: value for name, value in by_view.items() if value is not None},
    }
