"""Where things lie in a store, and which arrays a group holds.

Shapes: V views (rows of a bundle), R C token rows and columns, T prefix tokens, D channels, H W
pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .arrays import BF16_NAN, ArraySpec
from .key import FeatureKey, Preprocess, Size, identity
from .layers import stored_name
from .schema import Bundle

GIB = 1024**3
SHARD_BYTES = 256 * 1024**2
MAX_UNIT_VIEWS = 2048
"""Bounds the units of small maps alone: above 128 KB a view, the bytes of a shard bound them first."""
_STORED_DTYPE = {"f16": "float16", "f32": "float32", "bf16": "uint16", "u8": "uint8"}


@dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """A group that is written unit by unit and committed as one: a layer, pixels, or points.

    Attributes:
        folder: relative to the store.
        arrays: by name; those with a unit smaller than the bundle are written unit by unit.
        whole: names of arrays with one chunk for the bundle, written at the commit.
        attributes: of the group's document.
        labels: write the arrays `view` and `scene` into this group (else its parent has them).
    """

    folder: str
    arrays: dict[str, ArraySpec]
    whole: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    labels: bool = True

    @property
    def by_unit(self) -> dict[str, ArraySpec]:
        return {name: spec for name, spec in self.arrays.items() if name not in self.whole}


def unit_views(view_bytes: int) -> int:
    """Views per shard: clamp(1 GiB / bytes of a view over all arrays of the unit, 1, 2048)."""
    return max(1, min(MAX_UNIT_VIEWS, GIB // max(1, view_bytes)))


def shard_views(unit: int, row_bytes: int) -> int:
    """The unit, cut so that no shard exceeds 256 MB."""
    return max(1, min(unit, SHARD_BYTES // max(1, row_bytes)))


def layer_group(
    key: FeatureKey,
    bundle: Bundle,
    layer: str,
    *,
    storage: str,
    width: int,
    prefix: int,
    unit: int,
    needs_geometry: bool,
    attributes: dict[str, Any],
) -> GroupSpec:
    """One layer of one bundle: `tokens` and, where the encoder has them, `prefix`."""
    rows, cols = bundle.grid
    dtype, views = _STORED_DTYPE[storage], len(bundle)
    fill = BF16_NAN if storage == "bf16" else "NaN"
    arrays = {
        "tokens": ArraySpec(
            shape=(views, rows, cols, width),
            dims=("view", "row", "col", "channel"),
            dtype=dtype,
            unit=unit,
            sharded=True,
            fill=fill,
        )
    }
    if prefix:
        arrays["prefix"] = ArraySpec(
            shape=(views, prefix, width),
            dims=("view", "prefix_token", "channel"),
            dtype=dtype,
            unit=unit,
            sharded=False,
            fill=fill,
        )
    folder = f"{features_folder(key, bundle, needs_geometry)}/{stored_name(layer, storage)}"
    return GroupSpec(folder=folder, arrays=arrays, attributes=attributes, labels=False)


def image_group(
    preprocess: Preprocess,
    patch: int,
    bundle: Bundle,
    size: Size,
    unit: int,
    images: bool = True,
    stride: int | None = None,
) -> GroupSpec:
    """The map from source pixels to tokens, and the images as the encoder saw them [V, H, W, 3] u8.

    Without images the map alone is kept; they may be added later.
    """
    views, (height, width) = len(bundle), size
    image = ArraySpec(
        shape=(views, height, width, 3),
        dims=("view", "y", "x", "rgb"),
        dtype="uint8",
        unit=unit,
        sharded=True,
        blosc=True,
        fill=0,
    )
    affine = _whole((views, 2, 3), ("view", "affine_row", "affine_col"))
    return GroupSpec(
        folder=f"{pixels_folder(preprocess, patch, stride)}/{bundle.folder}",
        arrays={**({"image": image} if images else {}), "token_from_source_px": affine},
        whole=("token_from_source_px",),
    )


def view_geometry_group(
    preprocess: Preprocess,
    patch: int,
    bundle: Bundle,
    size: Size,
    unit: int,
    attributes: dict[str, Any],
    stride: int | None = None,
) -> GroupSpec:
    """Depth, validity and cameras of the preprocessed views."""
    views, (height, width) = len(bundle), size
    plane = {"unit": unit, "sharded": True, "blosc": True, "dims": ("view", "y", "x")}
    arrays = {
        "depth_m": ArraySpec(shape=(views, height, width), dtype="float32", fill=0.0, **plane),
        "valid": ArraySpec(shape=(views, height, width), dtype="bool", fill=False, **plane),
        "K_px": _whole((views, 3, 3), ("view", "k_row", "k_col")),
        "cam_from_world": _whole((views, 4, 4), ("view", "cam_row", "world_col")),
    }
    return GroupSpec(
        folder=f"{pixels_folder(preprocess, patch, stride)}/{bundle.geometry_folder}",
        arrays=arrays,
        whole=("K_px", "cam_from_world"),
        attributes=attributes,
    )


def points_group(
    preprocess: Preprocess,
    patch: int,
    bundle: Bundle,
    unit: int,
    attributes: dict[str, Any],
    stride: int | None = None,
) -> GroupSpec:
    """One 3D point per token, the same for every encoder without a stride."""
    rows, cols = bundle.grid
    shape, dims = (len(bundle), rows, cols), ("view", "row", "col")
    cell = {"unit": unit, "sharded": True, "blosc": True}
    arrays = {
        "token_point_world": ArraySpec(shape=(*shape, 3), dims=(*dims, "xyz"), dtype="float32", **cell),
        "token_valid": ArraySpec(shape=shape, dims=dims, dtype="bool", fill=False, **cell),
        "token_spread_m": ArraySpec(shape=shape, dims=dims, dtype="float32", **cell),
    }
    return GroupSpec(
        folder=f"{points_folder(preprocess, patch, stride)}/{bundle.geometry_folder}",
        arrays=arrays,
        attributes=attributes,
    )


def pixels_folder(preprocess: Preprocess, patch: int, stride: int | None = None) -> str:
    """Of what encoders of this patch size see; a stride changes the pixels that a grid stands for."""
    return f"pixels/{preprocess.folder}-p{patch}" + (f"s{stride}" if stride else "")


def points_folder(preprocess: Preprocess, patch: int, stride: int | None = None) -> str:
    """Of token points, which depend on the patch size where patches overlap, and only there."""
    return f"points/{preprocess.folder}" + (f"-p{patch}s{stride}" if stride else "")


def features_folder(key: FeatureKey, bundle: Bundle, needs_geometry: bool) -> str:
    return f"features/{key.folder}/{bundle.geometry_folder if needs_geometry else bundle.folder}"


def bundle_identity(folder: str) -> tuple[str, str | None]:
    """(bundle id, geometry or None) of a bundle's folder name."""
    match = re.fullmatch(r"([0-9a-f]{16})(?:-([0-9a-f]{8}))?", identity(folder))
    return (match[1], match[2]) if match else ("", None)


def _whole(shape: tuple[int, ...], dims: tuple[str, ...]) -> ArraySpec:
    return ArraySpec(shape=shape, dims=dims, dtype="float64", unit=shape[0], sharded=False)
