"""Depth that is no EXR file as the EXR file that a view holds, made when it is read.

Shapes: H W pixels. What is made is 32-bit float EXR of z-depth in scene units.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import SceneError
from ..npy import read_npy
from .exr import read_exr, write_exr
from .scene import Blob

MILLIMETRE = 1e-3
# Newer Pillow has a mode for 16 bits, older reads such files with 32.
PNG_MODES = ("I;16", "I;16B", "I")


def depth_blob(path: Path, unit_m: float | None = None) -> Blob:
    """A depth file as a view's depth; an EXR file in scene units stays as it is.

    Args:
        path: `.png` of 16 bits, `.npy` [H, W], `.exr`, or `.bin` as COLMAP writes them.
        unit_m: scene units (metres) per unit of the file; None = 0.001 for whole numbers, else 1.

    Raises:
        SceneError: it is none of these.
    """
    suffix = path.suffix.lower()
    if suffix == ".exr" and unit_m in (None, 1):
        return Blob(suffix="exr", path=path)
    if suffix not in READERS:
        raise SceneError(
            f"{path.name} is no depth that can be read.",
            where=path,
            why=f"{', '.join(READERS)} are",
            fix="store depth as 16-bit PNG in millimetres, or as EXR or NPY in metres",
        )
    return Blob(suffix="exr", path=path, convert=partial(_as_exr, suffix=suffix, unit_m=unit_m))


def _as_exr(data: bytes, where: str, *, suffix: str, unit_m: float | None) -> bytes:
    try:
        stored = READERS[suffix](data, where)
    except SceneError:
        raise
    except Exception as error:  # Pillow's and numpy's parsers raise whatever they stumble over
        raise SceneError(
            "the depth cannot be decoded.",
            where=where,
            why=f"{error}",
            fix="copy the file again, or leave the scene out",
        ) from None
    if unit_m is None:
        unit_m = MILLIMETRE if np.issubdtype(stored.dtype, np.integer) else 1.0
    with np.errstate(over="ignore"):
        return write_exr((stored * np.float64(unit_m)).astype(np.float32), half=False)


def _from_png(data: bytes, _: str) -> np.ndarray:
    """[H, W] of whole numbers."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        if picture.mode not in PNG_MODES:
            raise ValueError(f"it is a picture of mode {picture.mode}, not of 16 bits and one channel")
        return np.asarray(picture)


def _from_npy(data: bytes, _: str) -> np.ndarray:
    """[H, W] of [H, W] or [H, W, 1]."""
    array = read_npy(data)
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.ndim != 2 or not flat.size:
        raise ValueError(f"it has shape {array.shape}, not [H, W]")
    return flat


def _from_colmap(data: bytes, _: str) -> np.ndarray:
    """[H, W]; the file is `<width>&<height>&<channels>&` and then f32 rows."""
    *sizes, values = data.split(b"&", 3) if data.count(b"&", 0, 64) >= 3 else (b"",)
    if len(sizes) != 3 or not all(0 < len(size) < 10 and size.isdigit() for size in sizes):
        raise ValueError("it does not begin with width&height&channels&")
    width, height, channels = map(int, sizes)
    if channels != 1 or not width or not height or len(values) != 4 * width * height:
        raise ValueError(f"{width} x {height} x {channels} values do not make {len(values):,} bytes")
    return np.frombuffer(values, "<f4").reshape(height, width)


READERS: dict[str, Callable[[bytes, str], np.ndarray]] = {
    ".png": _from_png,
    ".npy": _from_npy,
    ".exr": read_exr,
    ".bin": _from_colmap,
}
