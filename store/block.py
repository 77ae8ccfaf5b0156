"""A block: rows of one scene in one bundle, and the arrays that belong to them.

Shapes: V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LayerError, SelectionError, did_you_mean
from .feature_store import FeatureStore
from .group import StoredGroup
from .layer_tokens import LayerTokens
from .layers import STORAGES, stored_name
from .layout import pixels_folder
from .schema import Bundle, SceneRow, ViewRow
from .stored_key import StoredKey
from .view_values import TokenPoints, ViewGeometry

if TYPE_CHECKING:
    import torch

    from ..kernels.quantized import QuantizedTokens


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

    def width(self, layer: str) -> int:
        """Channels of a layer."""
        return self._tokens(layer).map_shape[-1]

    def dtype(self, layer: str) -> np.dtype:
        """Of `tokens`: f16 where they are stored so, else f32."""
        return self._tokens(layer).dtype

    def stored_dtype(self, layer: str) -> np.dtype:
        """Of `read_maps_into`: f16, f32, u16 for bf16, u8."""
        return self._tokens(layer).stored_dtype

    def tokens(
        self, layer: str, rows: Sequence[int] | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """[V, R, C, D] tokens, f16 or f32 as stored (bf16 and u8 as f32); `rows` picks views of the block."""
        return self._tokens(layer).tokens(self._rows(rows), out)

    def read_maps_into(self, rows: Sequence[int], layer: str, out: np.ndarray) -> None:
        """Maps of one layer as they are stored, copied once: from the page cache into the caller's buffer.

        Args:
            rows: N views of the block, in any order.
            layer: name.
            out: [N, R, C, D] in `stored_dtype(layer)`, each map contiguous; a part of a batch will do. u8
                needs `affine` to become numbers.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        self._tokens(layer).stored(self._rows(rows), out)

    def tensor(
        self, layer: str, rows: Sequence[int] | None = None, device: str | torch.device = "cpu"
    ) -> torch.Tensor | QuantizedTokens:
        """[V, R, C, D] tokens as they are stored, f16, bf16, f32 or quantized, on a device.

        A GPU gets them through pinned memory (see `device_read`), and u8 is widened there.
        """
        from .device_read import read_to

        return read_to(self._tokens(layer), self._rows(rows), device)

    def affine(self, rows: Sequence[int] | None, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """(scale, offset) [V, D] f32 of a layer that is stored as u8: its tokens are u8 * scale + offset."""
        return self._tokens(layer).affine(self._rows(rows))

    def gather(self, layer: str, views: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """[N, D] single tokens, f16 or f32 as `tokens`, without reading whole maps.

        With `check=first` a map is verified, which reads all of it, when it is touched for the first time.
        With `check=never` only the tokens' own pages are read.

        Args:
            layer: name.
            views: [N] views of the block, as `rows` elsewhere.
            row, col: [N] token rows and columns.

        Raises:
            SelectionError: a token lies outside the block.
            StoreError: a shard is missing or damaged.
        """
        try:
            view, row, col = (np.asarray(axis, np.int64) for axis in (views, row, col))
            # Of numbers one of which is negative the bits together are.
            if len(view) and (view | row | col).min() < 0:
                raise IndexError("a negative place")
            return self._tokens(layer).gather(self._row_array[view], row, col)
        except (IndexError, ValueError) as error:
            raise SelectionError(
                f"not all of {len(views):,} places are tokens of the block.",
                where=f"{self.scene}, {layer}",
                why=str(error),
                fix=f"views, row and col are as many; there are {len(self)} views of "
                f"{self.grid[0]} x {self.grid[1]} tokens",
            ) from None

    @cached_property
    def _row_array(self) -> np.ndarray:
        return np.array(self.rows, np.int64)

    def prefix(self, layer: str, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, T, D] prefix tokens; their names are `prefix_names(layer)`."""
        return self._tokens(layer).prefix(self._rows(rows))

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
        return self._tokens(layer).group

    def _tokens(self, layer: str) -> LayerTokens:
        if layer not in self.layers:
            raise LayerError(
                f"layer {layer!r} is not part of this selection.",
                where=f"{self.stored_key.name}, {self.scene}",
                fix=did_you_mean(layer, self.layers),
            )
        return self._layer_tokens[layer]

    @cached_property
    def _layer_tokens(self) -> dict[str, LayerTokens]:
        return {
            layer: LayerTokens(layer_group(self.store, self.stored_key, self.bundle, layer, storage), storage)
            for layer, storage in self.layers.items()
        }

    @cached_property
    def _points(self) -> StoredGroup:
        folder = f"points/{self.stored_key.key.preprocess.folder}/{self.bundle.geometry_folder}"
        return self._there(folder, "points", "run `strata extract run` again with the shards as they are now")

    @cached_property
    def _view_geometry(self) -> StoredGroup:
        return self._there(
            f"{self._pixels_folder}/{self.bundle.geometry_folder}",
            "depth and cameras",
            "run `strata extract run` again with views=geometry or views=all",
        )

    def _pixels(self, array: str) -> StoredGroup:
        return self._there(
            f"{self._pixels_folder}/{self.bundle.folder}",
            "images" if array == "image" else "image maps",
            "run `strata extract run` again with views=all",
            array,
        )

    @property
    def _pixels_folder(self) -> str:
        return pixels_folder(self.stored_key.key.preprocess, self.patch)

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
    folder = store.root / "features" / stored.folder / stored.bundles.find(bundle)[0]
    return store.group(folder / stored_name(layer, storage))


def best_storage(storages: Sequence[str]) -> str:
    """The most exact storage of a layer: f32, f16, bf16, u8."""
    return min(storages, key=STORAGES.index)
