"""Choosing: from the words of `select` to the current rows of one key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import LayerError, SelectionError, did_you_mean, first_few
from .block import Block, best_storage, layer_group
from .catalog import natural
from .feature_store import FeatureStore
from .layers import STORAGES, layer_order, resolve_layers
from .schema import Bundle, SceneRow, ViewRow, ViewSet
from .selection import Selection
from .set_runs import Run, is_set, set_runs
from .split_lists import split_scenes
from .stored_key import StoredKey
from .view_sets import read_sets


def select(
    store: FeatureStore,
    encoder: str,
    *,
    layers: Sequence[str] | None = None,
    scene: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    sets: Iterable[ViewSet] | str | Path | None = None,
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
        split: a split kept in the store, `test` for every `test/<dataset>`; or a .json or .txt file.
        sets: keep the views of these sets, or of the sets in this file, only; of an encoder that sees
            whole sets, keep these very sets.
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
    asked = None if layers is None else resolve_layers(layers, stored.layers, stored.depth)
    wanted = _scene_filter(store, scene, dataset, split)
    scenes = [scene_id for scene_id in sorted(store.catalog.rows, key=natural) if wanted(scene_id)]
    rows = {scene_id: _rows_of(store, stored, scene_id, version, asked) for scene_id in scenes}
    sets = read_sets(sets) if isinstance(sets, str | Path) else sets
    found = [row for of_scene in rows.values() for row in of_scene]
    if stored.key.context == "set" and sets is not None:
        found, sets = _of_sets(store, found, list(sets)), None
    names = _layer_names(stored, [_layers_of(stored, bundle) for bundle, _ in found], asked)
    keep, missing = _view_filter(sets, views), cache(partial(_missing, store, stored))
    parts = [_block(store, stored, bundle, row, names, storage, keep, missing) for bundle, row in found]
    absent = [scene_id for scene_id, of_scene in rows.items() if not of_scene and version is None]
    selection = Selection(
        store=store,
        stored_key=stored,
        layers=names,
        parts=tuple(part for part in parts if len(part) or part.missing),
        stale=tuple(scene_id for scene_id in absent if _has_older(store, stored, scene_id)),
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
    if version is not None:
        rows = [(bundle, row) for bundle, row in rows if row.digest.startswith(version)]
    have = {bundle.id: set(_layers_of(stored, bundle)) for bundle, _ in rows}
    rows = [(bundle, row) for bundle, row in rows if have[bundle.id]]

    def fullness(pair: tuple[Bundle, SceneRow]) -> tuple[int, int, int, str]:
        bundle, row = pair
        layers = have[bundle.id]
        return -len(layers & set(asked or layers)), -len(layers), row.start - row.stop, bundle.id

    rows.sort(key=fullness)
    if stored.key.context == "set":
        return set_runs(catalog, rows)
    taken: set[int] = set()
    chosen = []
    for bundle, row in rows:
        positions = {view.position for view in catalog.views(bundle)[row.start : row.stop]}
        if not positions & taken:
            taken |= positions
            chosen.append((min(positions), bundle, row))
    return [(bundle, row) for _, bundle, row in sorted(chosen, key=lambda item: item[0])]


def _of_sets(store: FeatureStore, runs: list[Run], sets: list[ViewSet]) -> list[Run]:
    """The runs that are one of these sets."""
    views = store.catalog.views
    return [
        (bundle, run)
        for bundle, run in runs
        if any(is_set(one, run.id, views(bundle)[run.start : run.stop]) for one in sets)
    ]


def _layers_of(stored: StoredKey, bundle: Bundle) -> dict[str, tuple[str, ...]]:
    return stored.bundles.get(stored.at(bundle), {})


def _has_older(store: FeatureStore, stored: StoredKey, scene_id: str) -> bool:
    """Whether the key has features of other images or another geometry of a scene."""
    return any(bundle.id in stored.bundle_ids for bundle, _ in store.catalog.rows[scene_id])


def _layer_names(
    stored: StoredKey, stored_layers: list[dict[str, tuple[str, ...]]], asked: Sequence[str] | None
) -> tuple[str, ...]:
    common = set.intersection(*map(set, stored_layers)) if stored_layers else set()
    if asked is None:
        return tuple(sorted(common, key=layer_order))
    absent = [name for name in asked if name not in common] if stored_layers else []
    if absent:
        raise LayerError(
            f"layer {absent[0]!r} is stored for some of the scenes only.",
            where=stored.name,
            why=f"all of them have {', '.join(sorted(common, key=layer_order)) or 'none in common'}",
            fix=f"extract layers={absent[0]} of {stored.key.encoder} for all of them",
        )
    return tuple(asked)


def _block(
    store: FeatureStore,
    stored: StoredKey,
    bundle: Bundle,
    row: SceneRow,
    names: tuple[str, ...],
    storage: str | None,
    keep: Any,
    missing_of: Any,
) -> Block:
    have = _layers_of(stored, bundle)
    layers = {name: _storage(have[name], storage, name, stored) for name in names}
    views = store.catalog.views(bundle)
    missing = missing_of(bundle, tuple(layers.items()))
    rows = [r for r in range(row.start, row.stop) if keep(row.id, views[r])]
    there = tuple(r for r in rows if r not in missing)
    return Block(
        store=store,
        stored_key=stored,
        bundle=bundle,
        scene_row=row,
        rows=there,
        views=tuple(views[r] for r in there),
        layers=layers,
        missing={views[r].name: missing[r] for r in rows if r in missing},
    )


def _missing(
    store: FeatureStore, stored: StoredKey, bundle: Bundle, layers: tuple[tuple[str, str], ...]
) -> dict[int, str]:
    missing: dict[int, str] = {}
    for layer, storage in layers:
        attributes = layer_group(store, stored, bundle, layer, storage).array_attributes("tokens")
        missing.update({int(row): why for row, why in attributes.get("missing", {}).items()})
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
    named = None
    if split is not None:
        splits = {name: kept.scenes for name, kept in store.splits().items()}
        named = split_scenes(split, splits, store.root / "splits")

    def wanted(scene_id: str) -> bool:
        of_dataset, _, name = scene_id.partition("/")
        return (
            (named is None or scene_id in named)
            and (dataset is None or of_dataset == dataset)
            and (scene is None or fnmatchcase(scene_id, scene) or fnmatchcase(name, scene))
        )

    return wanted


def _view_filter(sets: Iterable[ViewSet] | None, views: Iterable[str] | None) -> Any:
    in_sets = None if sets is None else {(s.scene, d) for s in sets for d in s.images}
    named = None if views is None else set(views)

    def wanted(scene_id: str, view: ViewRow) -> bool:
        images = {(scene_id, view.image_digest), (scene_id, view.source_digest)}
        return (in_sets is None or not images.isdisjoint(in_sets)) and (
            named is None or f"{scene_id}/{view.name}" in named
        )

    return wanted


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
        fix=did_you_mean(asked, scenes) if asked and asked not in scenes else "extract features first",
    )
