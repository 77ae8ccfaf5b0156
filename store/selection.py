"""Selections: an encoder's current features of some scenes, lazy until loaded.

Shapes: V views, R C token rows and columns, D channels, N points.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SelectionError, did_you_mean
from . import algebra
from .block import Block
from .feature_store import FeatureStore
from .filters import ViewFilter
from .grid_features import GridFeatures, ViewBuffers
from .joined import ViewIndex, names_of, read_rows, view_table
from .key import FeatureKey, Size, digest
from .loader import Loader, LoaderOptions
from .prefix_tokens import prefix_tokens
from .schema import ViewSet
from .set_runs import is_set
from .stored_key import StoredKey
from .view_sets import read_sets

if TYPE_CHECKING:
    import xarray

Views = Sequence[int] | Sequence[str] | np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Current features of one key: some layers, some scenes. Nothing is read before it is asked for.

    `a | b`, `a & b` and `a - b` are the views of either, of both, of `a` alone.

    Attributes:
        store: where it comes from.
        stored_key: whose features.
        layers: layer names, in the order asked.
        parts: the blocks, in order of scene id and position.
        stale: ids of scenes whose features were made from an older version of the scene.
    """

    store: FeatureStore
    stored_key: StoredKey
    layers: tuple[str, ...]
    parts: tuple[Block, ...]
    stale: tuple[str, ...] = ()

    @property
    def key(self) -> FeatureKey:
        return self.stored_key.key

    def __len__(self) -> int:
        """Number of views."""
        return sum(map(len, self.parts))

    @property
    def scenes(self) -> tuple[str, ...]:
        """Scene ids in order."""
        return tuple(dict.fromkeys(block.scene for block in self.parts))

    @property
    def grids(self) -> tuple[Size, ...]:
        """The token grids there are."""
        return tuple(self._by_grid())

    @property
    def left_out(self) -> dict[str, str]:
        """By view, why it has no features."""
        return {f"{b.scene}/{name}": why for b in self.parts for name, why in b.missing.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens that `load` will hold."""
        return sum(
            len(block) * math.prod(block.shape("tokens", layer)[0]) * _loaded_bytes(blocks, layer)
            for blocks in self._by_grid().values()
            for layer in self.layers
            for block in blocks
        )

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tokens as they are stored."""
        each = ((len(block), *block.shape("tokens", layer)) for block in self.parts for layer in self.layers)
        return sum(count * math.prod(shape) * dtype.itemsize for count, shape, dtype in each)

    @property
    def storages(self) -> dict[str, tuple[str, ...]]:
        """By layer, how its tokens are stored: f32 | f16 | bf16 | u8; several where bundles differ."""
        found: dict[str, set[str]] = {layer: set() for layer in self.layers}
        for block in self.parts:
            for layer, storage in block.layers.items():
                found[layer].add(storage)
        return {layer: tuple(sorted(storages)) for layer, storages in found.items()}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the key, the layers with their storage, and every view's digest."""
        views = [
            [b.scene, b.image_digests, b.scene_row.geometry, sorted(b.layers.items())] for b in self.parts
        ]
        return digest([self.key.to_dict(), self.layers, views])[:16]

    def __repr__(self) -> str:
        from .notebook import selection_text

        return selection_text(self)

    def _repr_html_(self) -> str:
        from .notebook import selection_html

        return selection_html(self)

    def __or__(self, other: Selection) -> Selection:
        return algebra.union(self, other)

    def __and__(self, other: Selection) -> Selection:
        return algebra.common(self, other)

    def __sub__(self, other: Selection) -> Selection:
        return algebra.minus(self, other)

    def blocks(self) -> Iterator[Block]:
        """The blocks: one scene, one grid each."""
        return iter(self.parts)

    def scene(self, scene_id: str) -> Selection:
        """The part of one scene.

        Raises:
            SelectionError: it is not in the selection.
        """
        parts = tuple(block for block in self.parts if block.scene == scene_id)
        if not parts:
            raise SelectionError(
                f"scene {scene_id!r} is not in the selection.",
                where=repr(self.stored_key.name),
                fix=did_you_mean(scene_id, self.scenes),
            )
        return replace(self, parts=parts)

    def where(
        self,
        *,
        scene: str | None = None,
        dataset: str | None = None,
        split: str | None = None,
        sets: Iterable[ViewSet] | str | Path | None = None,
        views: Iterable[str] | None = None,
        layers: Sequence[str] | None = None,
    ) -> Selection:
        """The part that fits; the words are those of `FeatureStore.select`.

        Views that were left out for want of a layer stay left out when the layer is dropped.

        Raises:
            SelectionError: nothing fits, or there is no such split.
            LayerError: a layer is not in the selection.
        """
        scenes = {"scene": scene, "dataset": dataset, "split": split}
        return algebra.restricted(self, ViewFilter(sets, views), scenes, layers)

    def of_set(self, view_set: ViewSet) -> Selection | None:
        """Of an encoder that sees whole sets, the features of this very set; None where there are none."""
        parts = tuple(block for block in self.parts if is_set(view_set, block.scene, block.members))
        return replace(self, parts=parts) if parts else None

    def table(self) -> list[dict[str, Any]]:
        """One row per view: scene, frame, position, grid, bundle, row, storage by layer, image digest.

        `pandas.DataFrame` takes it. The number of a row is the number of its view in `read` and `gather`.
        """
        return view_table(self.parts)

    @cached_property
    def index(self) -> ViewIndex:
        """Where the views lie, by number."""
        return ViewIndex(self.parts, self.stored_key.name)

    def prefix(self, name: str) -> dict[str, np.ndarray]:
        """By layer, [V, D] of the prefix token `cls`, `reg0`, ..., views in the order of `table`.

        Raises:
            SelectionError: the encoder has none of that name.
        """
        return {layer: prefix_tokens(self.parts, layer, name) for layer in self.layers}

    def load(self, fields: Sequence[str] = ("tokens",)) -> list[GridFeatures[np.ndarray]]:
        """All views in memory, one entry per token grid, in the order of `table`.

        Args:
            fields: `tokens` (f16 where all are stored so, else f32), `prefix`, and of the same rows
                `image`, `token_from_source_px`, `depth_m`, `K_px`, `cam_from_world`, `token_point_world`,
                `token_valid`, `token_spread_m`.

        Raises:
            SelectionError: a field is unknown, or the store does not have it of these views.
        """
        return [buffers.arrays(names) for buffers, names in self._loaded(fields)]

    def to_torch(self, fields: Sequence[str] = ("tokens",)) -> list[GridFeatures[Any]]:
        """As `load`, as tensors in the dtypes stored: bf16 as bfloat16, u8 as `QuantizedTokens`."""
        return [buffers.tensors(names) for buffers, names in self._loaded(fields)]

    def to_xarray(self, fields: Sequence[str] = ("tokens",)) -> list[xarray.Dataset]:
        """As `load`, as labelled datasets: a variable for each layer and each other field.

        Raises:
            SelectionError: xarray is not installed, or as `load`.
        """
        from .labelled import to_dataset

        return [to_dataset(self, features) for features in self.load(fields)]

    def read(self, views: Views, fields: Sequence[str] = ("tokens",)) -> GridFeatures[np.ndarray]:
        """Some views of one token grid, in the order asked; fields as in `load`.

        Args:
            views: their numbers in `table`, or their names `<dataset>/<scene>/<frame>`.
            fields: what is read of them.

        Raises:
            SelectionError: there is no such view or field, or the views have several grids.
        """
        rows = self.index.rows(self.index.numbers(views))
        return read_rows(rows, self.layers, fields, self.stored_key.name).arrays(names_of(rows))

    def gather(self, view: Views, row: np.ndarray, col: np.ndarray) -> dict[str, np.ndarray]:
        """Single tokens.

        Args:
            view: [N] views as in `read`, of any grids.
            row, col: [N] token row and column.

        Returns:
            By layer, [N, D], f16 where all are stored so, else f32.

        Raises:
            SelectionError: there is no such token.
        """
        numbers = self.index.numbers(view)
        return {layer: self.index.gather(layer, numbers, row, col) for layer in self.layers}

    def sample(self, scene: str, view: str, uv_px: np.ndarray) -> dict[str, np.ndarray]:
        """Features at pixels of the original source image, bilinear between token centres.

        Args:
            scene: scene id.
            view: frame name.
            uv_px: [N, 2] (u, v), integer = pixel centre.

        Returns:
            By layer, [N, D] f32; NaN where the pixel lies outside the encoder's view.
        """
        from .sampling import sample

        return sample(self, scene, view, uv_px)

    def loader(self, sets: Iterable[ViewSet] | str | Path | None = None, **options: Any) -> Loader:
        """Batches of tensors for a training, read ahead on threads; see `LoaderOptions` and `Loader`.

        Args:
            sets: batches of these view sets, or of those of a file, [B, V, ...]; None = batches of views,
                [V, ...].
            options: `batch`, `fields`, `seed`, `shuffle`, `drop_last`, `rank`, `ranks`, `pin`.
        """
        if isinstance(sets, str | Path):
            sets = read_sets(sets)
        return Loader(self, LoaderOptions(**options), None if sets is None else list(sets))

    def _loaded(self, fields: Sequence[str]) -> Iterator[tuple[ViewBuffers, tuple[str, ...]]]:
        for blocks in self._by_grid().values():
            rows = [(block, list(range(len(block)))) for block in blocks]
            yield read_rows(rows, self.layers, fields, self.stored_key.name), names_of(rows)

    def _by_grid(self) -> dict[Size, list[Block]]:
        by_grid: dict[Size, list[Block]] = defaultdict(list)
        for block in self.parts:
            by_grid[block.grid].append(block)
        return by_grid


def _loaded_bytes(blocks: list[Block], layer: str) -> int:
    """Of one number: f16 where all of them are; others are f32."""
    return 2 if all(block.layers[layer] == "f16" for block in blocks) else 4
