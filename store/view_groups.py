"""The groups that hold what belongs to views: layers, images, depth and cameras, token points."""

from __future__ import annotations

from ..errors import SelectionError
from .feature_store import FeatureStore
from .group import StoredGroup
from .layers import stored_name
from .schema import Bundle
from .stored_key import StoredKey

LAYER_ARRAYS = ("tokens", "prefix", "scale", "offset")
POINT_ARRAYS = ("token_point_world", "token_valid", "token_spread_m")
GEOMETRY_ARRAYS = ("depth_m", "valid", "K_px", "cam_from_world")
PIXEL_ARRAYS = ("image", "token_from_source_px")


def layer_group(
    store: FeatureStore, stored: StoredKey, bundle: Bundle, layer: str, storage: str
) -> StoredGroup:
    """The group of one stored layer of one bundle."""
    folder = store.root / "features" / stored.folder / stored.bundles.find(bundle)[0]
    return store.group(folder / stored_name(layer, storage))


def view_group(store: FeatureStore, stored: StoredKey, bundle: Bundle, field: str) -> StoredGroup:
    """The group that has an array of images, geometry or points of a bundle's views.

    Raises:
        SelectionError: it is not there.
    """
    again = "run `strata extract run` again with "
    if field in POINT_ARRAYS:
        folder = f"{stored.points_folder}/{bundle.geometry_folder}"
        return _there(store, folder, field, "points", f"{again}the shards as they are now")
    if field in GEOMETRY_ARRAYS:
        folder = f"{stored.pixels_folder}/{bundle.geometry_folder}"
        return _there(store, folder, field, "depth and cameras", f"{again}views=geometry or views=all")
    what = "images" if field == "image" else "image maps"
    return _there(store, f"{stored.pixels_folder}/{bundle.folder}", field, what, f"{again}views=all")


def _there(store: FeatureStore, folder: str, field: str, what: str, fix: str) -> StoredGroup:
    group = store.group(store.root / folder)
    if not group.has(field):
        raise SelectionError(f"the store has no {what} for these views.", where=store.root / folder, fix=fix)
    return group
