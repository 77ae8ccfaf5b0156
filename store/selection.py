"""Selections: an encoder's current features of some scenes, lazy until loaded.

Shapes: V views, R C token rows and columns, D channels, N points.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import LayerError, SelectionError, did_you_mean, first_few
from .block import Block, best_storage
from .feature_store import FeatureStore, StoredKey
from .group import StoredGroup
from .key import FeatureKey, digest
from .layers import STORAGES, layer_order, resolve_layers, stored_name
from .layout import find_folder
from .schema import Bundle, SceneRow, ViewSet


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
            len(b) * b.grid[0] * b.grid[1] * b.width(layer) * (2 if b.layers[layer] == "f16" else 4)
            for b in self.parts
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
        by_grid: dict[tuple[int, int], list[Block]] = defaultdict(list)
        for block in self.parts:
            by_grid[block.grid].append(block)
        return [
            GridFeatures(
                grid=grid,
                views=tuple(f"{block.scene}/{name}" for block in blocks for name in block.names),
                tokens={layer: _joined(blocks, layer) for layer in self.layers},
            )
            for grid, blocks in by_grid.items()
        ]

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
        for block in part.parts:
            if view in block.names:
                return block, block.names.index(view)
        raise SelectionError(
            f"view {view!r} is not in the selection.",
            where=scene,
            why=part.left_out.get(f"{scene}/{view}", ""),
            fix=did_you_mean(view, [name for block in part.parts for name in block.names]),
        )


def select(
    store: FeatureStore,
    encoder: str,
    *,
    layers: Sequence[str] | None = None,
    scene: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    sets: Iterable[ViewSet] | None = None,
    views: Iterable[str] | None = None,
    storage: str | None = None,
    version: str | None = None,
    **fields: Any,
) -> Selection:
    """Current features of one key.

    Args:
        store: the store.
        encoder: name, or `name@` and first digits of a key.
        layers: layer names; None = all that every selected scene has.
        scene: glob over scene ids `<dataset>/<scene>`, or over scene names alone.
        dataset: dataset name.
        split: name of a split kept in the store.
        sets: keep the views of these sets only.
        views: keep these `<dataset>/<scene>/<frame>` only.
        storage: f32 | f16 | bf16 | u8; None = the most exact one that is stored.
        version: digest (or its first digits) of an older version of a scene.
        fields: fields of the key, such as `grid="aspect:24"`, where an encoder has several.

    Raises:
        SelectionError: nothing fits, or the encoder has several keys.
        StoreMismatchError: the encoder is stored, but with other fields.
        LayerError: a layer is not stored for some of the scenes.
    """
    stored = store.stored_key(encoder, **fields)
    wanted = _scene_filter(store, scene, dataset, split)
    found, stale = [], []
    for scene_id in sorted(store.catalog.rows, key=_natural):
        if not wanted(scene_id):
            continue
        rows = _rows_of(store, stored, scene_id, version, layers)
        found += rows
        if not rows and _rows_of(store, stored, scene_id, "any", None):
            stale.append(scene_id)
    names = _layer_names(stored, [_layers_of(stored, bundle) for bundle, _ in found], layers)
    keep = _view_filter(sets, views)
    parts = [_block(store, stored, bundle, row, names, storage, keep) for bundle, row in found]
    selection = Selection(
        store=store,
        stored_key=stored,
        layers=names,
        parts=tuple(part for part in parts if len(part) or part.missing),
        stale=tuple(stale),
    )
    if not len(selection):
        raise _nothing(selection, scene or split or dataset)
    return selection


def _rows_of(
    store: FeatureStore, stored: StoredKey, scene_id: str, version: str | None, asked: Sequence[str] | None
) -> list[tuple[Bundle, SceneRow]]:
    """Rows of a scene that have features: each view once, the fullest bundles first."""
    catalog = store.catalog
    rows = catalog.current(scene_id) if version is None else catalog.rows[scene_id]
    if version not in (None, "any"):
        rows = [(bundle, row) for bundle, row in rows if row.digest.startswith(str(version))]
    have = {bundle.id: set(_layers_of(stored, bundle)) for bundle, _ in rows}
    rows = [(bundle, row) for bundle, row in rows if have[bundle.id]]

    def fullness(pair: tuple[Bundle, SceneRow]) -> tuple[int, int, int, str]:
        bundle, row = pair
        layers = have[bundle.id]
        return -len(layers & set(asked or layers)), -len(layers), row.start - row.stop, bundle.id

    rows.sort(key=fullness)
    taken: set[int] = set()
    chosen = []
    for bundle, row in rows:
        positions = {view.position for view in catalog.views(bundle)[row.start : row.stop]}
        if not positions & taken:
            taken |= positions
            chosen.append((min(positions), bundle, row))
    return [(bundle, row) for _, bundle, row in sorted(chosen, key=lambda item: item[0])]


def _layers_of(stored: StoredKey, bundle: Bundle) -> dict[str, tuple[str, ...]]:
    by_image = stored.bundles.get((bundle.id, None), {})
    return by_image or stored.bundles.get((bundle.id, bundle.geometry), {})


def _layer_names(
    stored: StoredKey, stored_layers: list[dict[str, tuple[str, ...]]], asked: Sequence[str] | None
) -> tuple[str, ...]:
    common = set.intersection(*map(set, stored_layers)) if stored_layers else set()
    if asked is None:
        return tuple(sorted(common, key=layer_order))
    if not stored_layers:
        return ()
    names = resolve_layers(asked, stored.layers, stored.depth)
    absent = [name for name in names if name not in common]
    if absent:
        raise LayerError(
            f"layer {absent[0]!r} is stored for some of the scenes only.",
            where=stored.name,
            why=f"all of them have {', '.join(sorted(common, key=layer_order)) or 'none in common'}",
            fix=f"extract layers={absent[0]} of {stored.key.encoder} for all of them",
        )
    return names


def _block(
    store: FeatureStore,
    stored: StoredKey,
    bundle: Bundle,
    row: SceneRow,
    names: tuple[str, ...],
    storage: str | None,
    keep: Any,
) -> Block:
    have = _layers_of(stored, bundle)
    layers = {name: _storage(have[name], storage, name, stored) for name in names}
    views = store.catalog.views(bundle)
    missing = _missing(store, stored, bundle, layers)
    rows = [r for r in range(row.start, row.stop) if keep(row.id, views[r])]
    there = tuple(r for r in rows if r not in missing)
    return Block(
        root=store.root,
        stored_key=stored,
        bundle=bundle,
        scene_row=row,
        rows=there,
        views=tuple(views[r] for r in there),
        layers=layers,
        missing={views[r].name: missing[r] for r in rows if r in missing},
        check=store.check,
    )


def _missing(
    store: FeatureStore, stored: StoredKey, bundle: Bundle, layers: dict[str, str]
) -> dict[int, str]:
    geometry = None if (bundle.id, None) in stored.bundles else bundle.geometry
    ident = bundle.id + (f"-{geometry}" if geometry else "")
    folder = find_folder(store.root / "features" / stored.folder, ident)
    missing: dict[int, str] = {}
    for layer, storage in layers.items():
        assert folder is not None
        group = StoredGroup(folder / stored_name(layer, storage))
        missing.update(
            {int(r): why for r, why in group.array_attributes("tokens").get("missing", {}).items()}
        )
    return missing


def _storage(have: tuple[str, ...], asked: str | None, layer: str, stored: StoredKey) -> str:
    if asked is None:
        return best_storage(have)
    if asked not in have:
        raise SelectionError(
            f"layer {layer!r} is not stored as {asked!r}.",
            where=stored.name,
            why=f"it is stored as {', '.join(have)}",
            fix=did_you_mean(asked, have if asked in STORAGES else STORAGES),
        )
    return asked


def _scene_filter(store: FeatureStore, scene: str | None, dataset: str | None, split: str | None) -> Any:
    names: set[str] | None = None
    if split is not None:
        splits = store.splits()
        if split not in splits:
            raise SelectionError(
                f"the store has no split {split!r}.",
                where=store.root / "splits",
                fix=did_you_mean(split, splits),
            )
        names = set(splits[split].scenes)

    def wanted(scene_id: str) -> bool:
        of_dataset, _, name = scene_id.partition("/")
        return (
            (names is None or scene_id in names)
            and (dataset is None or of_dataset == dataset)
            and (scene is None or fnmatchcase(scene_id, scene) or fnmatchcase(name, scene))
        )

    return wanted


def _view_filter(sets: Iterable[ViewSet] | None, views: Iterable[str] | None) -> Any:
    in_sets = None if sets is None else {(s.scene, d) for s in sets for d in s.images}
    named = None if views is None else set(views)
    return lambda scene_id, view: (
        (in_sets is None or (scene_id, view.image_digest) in in_sets)
        and (named is None or f"{scene_id}/{view.name}" in named)
    )


def _joined(blocks: list[Block], layer: str) -> np.ndarray:
    if len(blocks) == 1:
        return blocks[0].tokens(layer)
    return np.concatenate([block.tokens(layer) for block in blocks])


def _nothing(selection: Selection, asked: str | None) -> SelectionError:
    stale, scenes = selection.stale, selection.store.catalog.rows
    if stale:
        return SelectionError(
            f"{first_few(stale)} changed since these features were extracted.",
            where=selection.stored_key.name,
            why="the stored rows are stale",
            fix="run the extraction again, or name an old version with version=<scene digest>",
        )
    if selection.left_out:
        reasons = Counter(selection.left_out.values())
        return SelectionError(
            f"all {len(selection.left_out):,} views that fit have no features.",
            where=selection.stored_key.name,
            why="\n".join(f"{count:,}: {why}" for why, count in reasons.most_common(5)),
            fix="mend the cause and extract again with retry=failed",
        )
    return SelectionError(
        f"no view fits {asked!r}." if asked else "the selection is empty.",
        where=selection.stored_key.name,
        why=f"the store knows {first_few(scenes) or 'no scenes'}",
        fix=did_you_mean(asked, scenes) if asked else "extract features first",
    )


def _natural(scene_id: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", scene_id)]
