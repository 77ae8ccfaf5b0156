"""Loaded features as datasets of xarray, with labels on the views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import SelectionError
from .grid_features import GridFeatures

if TYPE_CHECKING:
    import xarray

    from .selection import Selection

_DIMS = {
    "image": ("y", "x", "rgb"),
    "token_from_source_px": ("affine_row", "affine_col"),
    "depth_m": ("y", "x"),
    "K_px": ("k_row", "k_col"),
    "cam_from_world": ("cam_row", "world_col"),
    "token_point_world": ("row", "col", "xyz"),
    "token_valid": ("row", "col"),
    "token_spread_m": ("row", "col"),
}


def to_dataset(selection: Selection, features: GridFeatures[Any]) -> xarray.Dataset:
    """One dataset: tokens under the layer's name, prefix tokens as `<layer>.prefix`, fields under their own.

    Layers of several widths have a dimension of channels each.

    Raises:
        SelectionError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise SelectionError(
            "xarray is not installed.", where="to_xarray", fix="pip install 'strata3d[xarray]'"
        ) from None
    widths = {values.shape[-1] for values in (*features.tokens.values(), *features.prefix.values())}
    variables: dict[str, Any] = {}
    for layer, values in features.tokens.items():
        variables[layer] = (("view", "row", "col", _channel(layer, len(widths) == 1)), values)
    for layer, values in features.prefix.items():
        dims = ("view", "prefix_token", _channel(layer, len(widths) == 1))
        variables[f"{layer}.prefix"] = (dims, values)
    for name, dims in _DIMS.items():
        if getattr(features, name) is not None:
            variables[name] = (("view", *dims), getattr(features, name))
    names = list(features.views)
    scenes = [name.rpartition("/")[0] for name in names]
    labels = {"view": names, "scene": ("view", scenes)}
    attributes = {"key": selection.stored_key.name, "fingerprint": selection.fingerprint}
    return xarray.Dataset(variables, labels, attributes)


def _channel(layer: str, shared: bool) -> str:
    return "channel" if shared else f"{layer}.channel"
