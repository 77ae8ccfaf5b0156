"""A block: rows of one scene in one bundle, and the arrays that belong to them.

Shapes: V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import LayerError, SelectionError, did_you_mean
from .feature_store import FeatureStore
from .group import StoredGroup
from .layers import STORAGES, stored_name
from .schema import Bundle, SceneRow, ViewRow
from .stored_key import StoredKey


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPoints:
    """One 3D point per token, the same for every encoder.

    Attributes:
        world: [V, R, C, 3] f32 world coordinates, NaN = none.
        valid: [V, R, C] bool, at least half of the cell's source pixels have depth.
        spread_m: [V, R, C] f32, standard deviation of the depths used.
    """

    world: np.ndarray
    valid: np.ndarray
    spread_m: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewGeometry:
    """Depth and cameras of the preprocessed views.

    Attributes:
        depth_m: [V, H, W] f32 z-depth, 0 = none.
        valid: [V, H, W] bool.
        K_px: [V, 3, 3] f64 intrinsics of the preprocessed views, NaN = unknown.
        cam_from_world: [V, 4, 4] f64 rigid poses, NaN = unknown.
    """

    depth_m: np.ndarray
    valid: np.ndarray
    K_px: np.ndarray
    cam_from_world: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Rows of one scene in one bundle, as one encoder's features have them.

    Attributes:
        store: where it lies.
        stored_key: whose features.
        bundle, scene_row: where they lie.
        rows: rows of the bundle, without the views that miss a feature.
        views: of those rows.
        layers: by layer, its storage.
        missing: by frame name, why a view of the scene has no features.
    """

    store: FeatureStore
    stored_key: StoredKey
    bundle: Bundle
    scene_row: SceneRow
    rows: tuple[int, ...]
    views: tuple[ViewRow, ...]
    layers: dict[str, str]
    missing: dict[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def scene(self) -> str:
        return self.scene_row.id

    @property
    def members(self) -> tuple[ViewRow, ...]:
        """The views of all its rows, those without features too: of whole sets, the members in order."""
        return self.store.catalog.views(self.bundle)[self.scene_row.start : self.scene_row.stop]

    @property
    def names(self) -> tuple[str, ...]:
        """Frame names, in the order of the rows."""
        return tuple(view.name for view in self.views)

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the views in the scene."""
        return tuple(view.position for view in self.views)

    @property
    def image_digests(self) -> tuple[str, ...]:
        return tuple(view.image_digest for view in self.views)

    @property
    def grid(self) -> tuple[int, int]:
        return self.bundle.grid

    @property
    def patch(self) -> int:
        return self.stored_key.patch_size

    @property
    def stride(self) -> int:
        """Pixels between the centres of neighbouring tokens: the patch, unless patches overlap."""
        return self.stored_key.stride

    def width(self, layer: str) -> int:
        """Channels of a layer."""
        return self._layer(layer).array("tokens").spec.shape[-1]

    def tokens(
        self, layer: str, rows: Sequence[int] | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """[V, R, C, D] tokens, f16 or f32 as stored (bf16 as f32); `rows` picks views of the block."""
        return _floats(self._layer(layer).read("tokens", self._rows(rows), out), self.layers[layer])

    def prefix(self, layer: str, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, T, D] prefix tokens; their names are `prefix_names(layer)`."""
        return _floats(self._layer(layer).read("prefix", self._rows(rows)), self.layers[layer])

    def prefix_names(self, layer: str) -> tuple[str, ...]:
        group = self._layer(layer)
        return tuple(group.array_attributes("prefix").get("names", ())) if group.has("prefix") else ()

    def provenance(self, layer: str) -> dict[str, str]:
        """What a layer was made with: libraries, device, and where the weights came from."""
        return dict(self._layer(layer).array_attributes("tokens").get("provenance", {}))

    def token_points(self, rows: Sequence[int] | None = None) -> TokenPoints:
        """Token points of the block's views.

        Raises:
            SelectionError: the store has none for the current geometry.
        """
        group, wanted = self._points, self._rows(rows)
        return TokenPoints(
            world=group.read("token_point_world", wanted),
            valid=group.read("token_valid", wanted),
            spread_m=group.read("token_spread_m", wanted),
        )

    def geometry(self, rows: Sequence[int] | None = None) -> ViewGeometry:
        """Depth and cameras of the preprocessed views.

        Raises:
            SelectionError: they were not kept (`views=none`), or not for the current geometry.
        """
        group, wanted = self._view_geometry, self._rows(rows)
        return ViewGeometry(
            depth_m=group.read("depth_m", wanted),
            valid=group.read("valid", wanted),
            K_px=group.read("K_px", wanted),
            cam_from_world=group.read("cam_from_world", wanted),
        )

    def cameras(self, rows: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(K_px [V, 3, 3], cam_from_world [V, 4, 4]) alone, without reading depth."""
        wanted = self._rows(rows)
        return self._view_geometry.read("K_px", wanted), self._view_geometry.read("cam_from_world", wanted)

    def images(self, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, H, W, 3] u8, as the encoder saw them.

        Raises:
            SelectionError: they were not kept (`views=geometry` or `views=none`).
        """
        return self._pixels("image").read("image", self._rows(rows))

    def token_from_source_px(self, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, 2, 3] f64: [col, row] = A [u, v, 1] for pixels of the original source image."""
        return self._pixels("token_from_source_px").read("token_from_source_px", self._rows(rows))

    @property
    def scene_scale_m(self) -> float | None:
        """The median positive source depth of the scene, None when it has no depth."""
        return self._points.attributes["scene_scale_m"].get(self.scene)

    def _rows(self, rows: Sequence[int] | None) -> list[int]:
        return list(self.rows) if rows is None else [self.rows[i] for i in rows]

    def _layer(self, layer: str) -> StoredGroup:
        if layer not in self.layers:
            raise LayerError(
                f"layer {layer!r} is not part of this selection.",
                where=f"{self.stored_key.name}, {self.scene}",
                fix=did_you_mean(layer, self.layers),
            )
        return self._layer_groups[layer]

    @cached_property
    def _layer_groups(self) -> dict[str, StoredGroup]:
        return {
            layer: layer_group(self.store, self.stored_key, self.bundle, layer, storage)
            for layer, storage in self.layers.items()
        }

    @cached_property
    def _points(self) -> StoredGroup:
        return self._there(
            f"{self.stored_key.points_folder}/{self.bundle.geometry_folder}",
            "points",
            "run `strata extract run` again with the shards as they are now",
        )

    @cached_property
    def _view_geometry(self) -> StoredGroup:
        return self._there(
            f"{self.stored_key.pixels_folder}/{self.bundle.geometry_folder}",
            "depth and cameras",
            "run `strata extract run` again with views=geometry or views=all",
        )

    def _pixels(self, array: str) -> StoredGroup:
        return self._there(
            f"{self.stored_key.pixels_folder}/{self.bundle.folder}",
            "images" if array == "image" else "image maps",
            "run `strata extract run` again with views=all",
            array,
        )

    def _there(self, folder: str, what: str, fix: str, array: str | None = None) -> StoredGroup:
        group = self.store.group(self.store.root / folder)
        if not group.committed or (array is not None and not group.has(array)):
            raise SelectionError(
                f"the store has no {what} for these views.", where=self.store.root / folder, fix=fix
            )
        return group


def layer_group(
    store: FeatureStore, stored: StoredKey, bundle: Bundle, layer: str, storage: str
) -> StoredGroup:
    """The group of one stored layer of one bundle."""
    folder = store.root / "features" / stored.folder / stored.folders[stored.at(bundle)]
    return store.group(folder / stored_name(layer, storage))


def best_storage(storages: Sequence[str]) -> str:
    """The most exact storage of a layer: f32, f16, bf16, u8."""
    return min(storages, key=STORAGES.index)


def _floats(values: np.ndarray, storage: str) -> np.ndarray:
    if storage != "bf16":
        return values
    return (values.astype(np.uint32) << 16).view(np.float32)
