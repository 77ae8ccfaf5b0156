"""One bundle of four layers in a store, and the same numbers in plain files.

Shapes: [32 views, 37 rows, 37 columns, D channels] f16 a layer.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from strata.store.block import Block
from strata.store.feature_store import FeatureStore
from strata.store.key import FeatureKey, Preprocess
from strata.store.layout import GroupSpec, layer_group
from strata.store.schema import Bundle, SceneViews, ViewRow, make_bundle
from strata.store.writer import GroupWriter, UnitBuffer, commit_layers, row_labels

VIEWS, LAYERS, GRID = 32, ("block2", "block5", "block8", "norm"), (37, 37)
KEY = FeatureKey(encoder="random", weights="0" * 64, preprocess=Preprocess())


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder with `store.zarr` and `raw/<layer>.bin`; `written` is for what is written again and again."""

    folder: Path
    width: int

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """By layer, [V, R, C, D] f16."""
        draw = np.random.default_rng(0)
        return {name: draw.standard_normal(self.shape, np.float32).astype(np.float16) for name in LAYERS}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (VIEWS, *GRID, self.width)

    @property
    def nbytes(self) -> int:
        """Of one layer."""
        return int(np.prod(self.shape)) * 2

    @property
    def root(self) -> Path:
        return self.folder / "store.zarr"

    def raw(self, layer: str) -> Path:
        return self.folder / "raw" / f"{layer}.bin"

    def prepare(self) -> Case:
        """Write the store and the plain files."""
        store = FeatureStore.create(self.root)
        store.declare_key(KEY, 14, 12)
        store.catalog.write(self.bundle, self.views)
        self.write_bundle(self.root)
        self.write_raw(self.folder / "raw")
        return self

    def block(self, check: str = "first") -> Block:
        """The bundle in a store that was opened just now."""
        return FeatureStore.open(self.root, check).select("random").parts[0]

    @cached_property
    def views(self) -> list[ViewRow]:
        return [
            ViewRow(name=f"{i:03d}", position=i, image_digest=f"{i:064x}", geometry_digest="0" * 64)
            for i in range(VIEWS)
        ]

    @cached_property
    def bundle(self) -> Bundle:
        digests = {"digest": "1" * 64, "geometry": "2" * 64}
        scene = SceneViews(id="random/scene", generation=1, views=tuple(self.views), **digests)
        return make_bundle(GRID, [scene])

    def spec(self, layer: str) -> GroupSpec:
        words = {"storage": "f16", "width": self.width, "prefix": 0, "unit": VIEWS}
        return layer_group(KEY, self.bundle, layer, needs_geometry=False, attributes={}, **words)

    def write_bundle(self, root: Path) -> None:
        """All layers as extraction writes them: shards, labels, documents, commits."""
        written = []
        for layer, values in self.values.items():
            spec = self.spec(layer)
            buffer, writer = UnitBuffer(spec, 0), GroupWriter(root, spec)
            for row in range(VIEWS):
                buffer.add(row, {"tokens": values[row]})
            writer.write(buffer)
            written.append((writer, {"tokens": {"missing": {}}}))
        commit_layers(written, row_labels(self.bundle, self.views))

    def write_raw(self, folder: Path) -> None:
        """The same numbers, one file a layer: write, fsync, rename."""
        folder.mkdir(parents=True, exist_ok=True)
        for layer, values in self.values.items():
            partial = folder / f"{layer}.partial"
            with partial.open("wb", buffering=0) as file:
                rest = memoryview(values).cast("B")
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            partial.rename(folder / f"{layer}.bin")

    def write_npy(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for layer, values in self.values.items():
            np.save(folder / f"{layer}.npy", values)

    def forget_written(self) -> None:
        shutil.rmtree(self.folder / "written", ignore_errors=True)

    def forget_pages(self) -> None:
        """Drop the tokens from the page cache, those of the store and the plain ones."""
        for path in [*self.root.glob("features/*/*/*/tokens/c.*"), *self.folder.glob("raw/*")]:
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
