"""A block: rows of one scene in one bundle, and the arrays that belong to them.

Shapes: V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import LayerError, SelectionError, did_you_mean
from .arrays import DTYPES
from .feature_store import FeatureStore
from .group import StoredGroup
from .layer_place import LayerPlace
from .layer_tokens import LayerTokens
from .schema import Bundle, SceneRow, ViewRow
from .stored_key import StoredKey
from .view_groups import LAYER_ARRAYS, view_group
from .view_values import TokenPoints, ViewGeometry

if TYPE_CHECKING:
    import torch

    from ..kernels.quantized import QuantizedTokens

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Views of one scene that share a token grid, as one encoder's features have them.

    Attributes:
        store: where it lies.
        stored_key: whose features.
        bundle, scene_row: where images, geometry and points of them lie.
        rows: rows of the bundle, without the views that miss a feature.
        views: of those rows.
        places: by layer, where its tokens lie.
        missing: by frame name, why a view of the scene has no features.
    """

    store: FeatureStore
    stored_key: StoredKey
    bundle: Bundle
    scene_row: SceneRow
    rows: tuple[int, ...]
    views: tuple[ViewRow, ...]
    places: dict[str, LayerPlace]
    missing: dict[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, picked: Sequence[int]) -> Block:
        """Only the views at these indices of the block."""
        return replace(
            self,
            rows=_at(self.rows, picked),
            views=_at(self.views, picked),
            places={
                layer: replace(place, rows=_at(place.rows, picked)) for layer, place in self.places.items()
            },
        )

    @property
    def layers(self) -> dict[str, str]:
        """By layer, its storage."""
        return {layer: place.storage for layer, place in self.places.items()}

    @property
    def scene(self) -> str:
        return self.scene_row.id

    @property
    def members(self) -> tuple[ViewRow, ...]:
        """The views of all its rows, those without features too: of whole sets, the members in order."""
        return self.store.catalog.scene_views(self.bundle, self.scene_row)

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
        return self._tokens(layer).map_shape[-1]

    def shape(self, field: str, layer: str = "") -> tuple[tuple[int, ...], np.dtype]:
        """Shape of one view of an array, and its dtype as `read` gives it."""
        if field == "tokens":
            tokens = self._tokens(layer)
            return tokens.map_shape, tokens.stored_dtype
        spec = self._group(field, layer).array(field).spec
        return spec.shape[1:], DTYPES[spec.dtype]

    def read(
        self,
        field: str,
        rows: Sequence[int] | None = None,
        *,
        layer: str = "",
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """[V, ...] of one array of the format, in its stored dtype (bf16 as uint16; u8 needs `affine`).

        Args:
            field: `tokens` or another array of a layer; `image`, `depth_m`, `token_valid`, ...
            rows: which views of the block; None = all.
            layer: of `tokens`, `prefix`, `scale` and `offset`.
            out: where they are read to, each view contiguous: copied once, from the page cache. A part of a
                batch will do.

        Raises:
            LayerError: the layer is not part of the selection.
            SelectionError: the store has no such array of these views.
        """
        if field == "tokens":
            return self._tokens(layer).stored(self._rows(layer, rows), out)
        mine = self.places[layer].rows if layer in self.places else self.rows
        return self._group(field, layer).read(field, _at(mine, rows), out)

    def dtype(self, layer: str) -> np.dtype:
        """Of `tokens`: f16 where they are stored so, else f32."""
        return self._tokens(layer).dtype

    def tokens(
        self, layer: str, rows: Sequence[int] | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """[V, R, C, D] tokens, f16 or f32 as stored (bf16 and u8 as f32); `rows` picks views of the block."""
        return self._tokens(layer).tokens(self._rows(layer, rows), out)

    def tensor(
        self, layer: str, rows: Sequence[int] | None = None, device: str | torch.device = "cpu"
    ) -> torch.Tensor | QuantizedTokens:
        """[V, R, C, D] tokens as they are stored, f16, bf16, f32 or quantized, on a device.

        A GPU gets them through pinned memory (see `device_read`), and u8 is widened there.
        """
        return self._tokens(layer).tensor(self._rows(layer, rows), device)

    def affine(self, rows: Sequence[int] | None, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """(scale, offset) [V, D] f32 of a layer that is stored as u8: its tokens are u8 * scale + offset."""
        return self._tokens(layer).affine(self._rows(layer, rows))

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
            return self._tokens(layer).gather(self._place(layer).row_array[view], row, col)
        except (IndexError, ValueError) as error:
            raise SelectionError(
                f"not all of {len(views):,} places are tokens of the block.",
                where=f"{self.scene}, {layer}",
                why=str(error),
                fix=f"views, row and col are as many; there are {len(self)} views of "
                f"{self.grid[0]} x {self.grid[1]} tokens",
            ) from None

    def prefix(self, layer: str, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, T, D] prefix tokens; their names are `prefix_names(layer)`."""
        return self._tokens(layer).prefix(self._rows(layer, rows))

    def prefix_names(self, layer: str) -> tuple[str, ...]:
        group = self._tokens(layer).group
        return tuple(group.array_attributes("prefix").get("names", ())) if group.has("prefix") else ()

    def provenance(self, layer: str) -> dict[str, str]:
        """What a layer was made with: libraries, device, and where the weights came from."""
        return dict(self._tokens(layer).group.array_attributes("tokens").get("provenance", {}))

    def token_points(self, rows: Sequence[int] | None = None) -> TokenPoints:
        """Token points of the block's views.

        Raises:
            SelectionError: the store has none for the current geometry.
        """
        return TokenPoints(
            world=self.read("token_point_world", rows),
            valid=self.read("token_valid", rows),
            spread_m=self.read("token_spread_m", rows),
        )

    def geometry(self, rows: Sequence[int] | None = None) -> ViewGeometry:
        """Depth and cameras of the preprocessed views.

        Raises:
            SelectionError: they were not kept (`views=none`), or not for the current geometry.
        """
        K_px, cam_from_world = self.cameras(rows)
        valid = self.read("valid", rows)
        return ViewGeometry(
            depth_m=np.where(valid, self.read("depth_m", rows), np.float32(0)),
            valid=valid,
            K_px=K_px,
            cam_from_world=cam_from_world,
        )

    def cameras(self, rows: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(K_px [V, 3, 3], cam_from_world [V, 4, 4]) alone, without reading depth."""
        return self.read("K_px", rows), self.read("cam_from_world", rows)

    def images(self, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, H, W, 3] u8, as the encoder saw them.

        Raises:
            SelectionError: they were not kept (`views=geometry` or `views=none`).
        """
        return self.read("image", rows)

    def token_from_source_px(self, rows: Sequence[int] | None = None) -> np.ndarray:
        """[V, 2, 3] f64: [col, row] = A [u, v, 1] for pixels of the original source image."""
        return self.read("token_from_source_px", rows)

    @property
    def scene_scale_m(self) -> float | None:
        """The median positive source depth of the scene, None when it has no depth."""
        return self._group("token_point_world", "").attributes["scene_scale_m"].get(self.scene)

    def _group(self, field: str, layer: str) -> StoredGroup:
        if field in LAYER_ARRAYS:
            return self._tokens(layer).group
        if field not in self._view_groups:
            self._view_groups[field] = view_group(self.store, self.stored_key, self.bundle, field)
        return self._view_groups[field]

    @cached_property
    def _view_groups(self) -> dict[str, StoredGroup]:
        return {}

    def _rows(self, layer: str, rows: Sequence[int] | None) -> tuple[int, ...]:
        return _at(self._place(layer).rows, rows)

    def _place(self, layer: str) -> LayerPlace:
        if layer not in self.places:
            raise LayerError(
                f"layer {layer!r} is not part of this selection.",
                where=f"{self.stored_key.name}, {self.scene}",
                fix=did_you_mean(layer, self.places),
            )
        return self.places[layer]

    def _tokens(self, layer: str) -> LayerTokens:
        opened = self._layer_tokens.get(layer)
        if opened is None:
            opened = self._place(layer).open(self.store, self.stored_key, layer)
            self._layer_tokens[layer] = opened
        return opened

    @cached_property
    def _layer_tokens(self) -> dict[str, LayerTokens]:
        return {}


def _at(values: tuple[T, ...], picked: Sequence[int] | None) -> tuple[T, ...]:
    return values if picked is None else tuple([values[i] for i in picked])
