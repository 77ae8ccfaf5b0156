"""Selections: an encoder's current features of some scenes, lazy until loaded.

Shapes: V views, R C token rows and columns, D channels, N points.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import SelectionError, did_you_mean
from .block import Block
from .feature_store import FeatureStore
from .key import FeatureKey, digest
from .prefix_tokens import prefix_tokens
from .schema import ViewSet
from .set_runs import is_set
from .stored_key import StoredKey


@dataclass(frozen=True, kw_only=True, eq=False)
class GridFeatures:
    """Features of all selected views that share one token grid.

    Attributes:
        grid: (R, C).
        views: `<dataset>/<scene>/<frame>` of each row.
        tokens: by layer, [V, R, C, D] f16 or f32.
    """

    grid: tuple[int, int]
    views: tuple[str, ...]
    tokens: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Current features of one key: some layers, some scenes. Nothing is read before it is asked for.

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
    def left_out(self) -> dict[str, str]:
        """By view, why it has no features."""
        return {f"{b.scene}/{name}": why for b in self.parts for name, why in b.missing.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that `load` will hold."""
        return sum(
            math.prod(_loaded_shape(blocks, layer)) * _loaded_dtype(blocks, layer).itemsize
            for blocks in self._by_grid().values()
            for layer in self.layers
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the key, the layers with their storage, and every view's digest."""
        views = [
            [b.scene, b.image_digests, b.scene_row.geometry, sorted(b.layers.items())] for b in self.parts
        ]
        return digest([self.key.to_dict(), self.layers, views])[:16]

    def __repr__(self) -> str:
        return (
            f"Selection({self.stored_key.name}, layers {', '.join(self.layers)}, "
            f"{len(self.scenes):,} scenes, {len(self):,} views, {self.nbytes / 1e6:,.1f} MB, "
            f"fingerprint {self.fingerprint})"
        )

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

    def of_set(self, view_set: ViewSet) -> Selection | None:
        """Of an encoder that sees whole sets, the features of this very set; None where there are none."""
        parts = tuple(block for block in self.parts if is_set(view_set, block.scene, block.members))
        return replace(self, parts=parts) if parts else None

    def table(self) -> list[dict[str, Any]]:
        """One row per view: scene, frame, position, grid, bundle, row, image digest."""
        return [
            {
                "scene": block.scene,
                "frame": view.name,
                "position": view.position,
                "grid": block.grid,
                "bundle": block.bundle.id,
                "row": row,
                "image_digest": view.image_digest,
            }
            for block in self.parts
            for row, view in zip(block.rows, block.views, strict=True)
        ]

    def load(self) -> list[GridFeatures]:
        """All tokens in memory, one entry per token grid, views in the order of `table`."""
        return [
            GridFeatures(
                grid=grid,
                views=tuple(f"{block.scene}/{name}" for block in blocks for name in block.names),
                tokens={layer: _joined(blocks, layer) for layer in self.layers},
            )
            for grid, blocks in self._by_grid().items()
        ]

    def prefix(self, name: str) -> dict[str, np.ndarray]:
        """By layer, [V, D] of the prefix token `cls`, `reg0`, ..., views in the order of `table`.

        Raises:
            SelectionError: the encoder has none of that name.
        """
        return {layer: prefix_tokens(self.parts, layer, name) for layer in self.layers}

    def _by_grid(self) -> dict[tuple[int, int], list[Block]]:
        by_grid: dict[tuple[int, int], list[Block]] = defaultdict(list)
        for block in self.parts:
            by_grid[block.grid].append(block)
        return by_grid

    def sample(self, scene: str, view: str, uv_px: np.ndarray) -> dict[str, np.ndarray]:
        """Features at pixels of the original source image, bilinear between token centres.

        Args:
            scene: scene id.
            view: frame name.
            uv_px: [N, 2] (u, v), integer = pixel centre.

        Returns:
            By layer, [N, D] f32; NaN where the pixel lies outside the encoder's view.
        """
        import torch

        from ..kernels.sample_tokens import sample_tokens

        block, i = self._find(scene, view)
        uv1 = np.concatenate([np.asarray(uv_px, np.float64), np.ones((len(uv_px), 1))], axis=1)
        colrow = uv1 @ block.token_from_source_px([i])[0].T
        rowcol = torch.from_numpy(np.ascontiguousarray(colrow[:, ::-1], np.float32))
        return {
            layer: sample_tokens(torch.from_numpy(block.tokens(layer, [i])[0]).float(), rowcol).numpy()
            for layer in self.layers
        }

    def _find(self, scene: str, view: str) -> tuple[Block, int]:
        part = self.scene(scene)
        found = [block for block in part.parts if view in block.names]
        if len(found) > 1:
            raise SelectionError(
                f"view {view!r} is in {len(found)} of the selected sets, and has other features in each.",
                where=scene,
                why=f"{self.key.encoder} sees whole sets",
                fix="select one of them with sets=[view_set]",
            )
        for block in found:
            return block, block.names.index(view)
        raise SelectionError(
            f"view {view!r} is not in the selection.",
            where=scene,
            why=part.left_out.get(f"{scene}/{view}", ""),
            fix=did_you_mean(view, [name for block in part.parts for name in block.names]),
        )


def _joined(blocks: list[Block], layer: str) -> np.ndarray:
    out, start = np.empty(_loaded_shape(blocks, layer), _loaded_dtype(blocks, layer)), 0
    for block in blocks:
        out[start : start + len(block)] = block.tokens(layer)
        start += len(block)
    return out


def _loaded_shape(blocks: list[Block], layer: str) -> tuple[int, ...]:
    return sum(map(len, blocks)), *blocks[0].grid, blocks[0].width(layer)


def _loaded_dtype(blocks: list[Block], layer: str) -> np.dtype:
    """f16 where all of them are; bf16 is widened to f32."""
    return np.dtype(np.float16 if all(block.layers[layer] == "f16" for block in blocks) else np.float32)
