"""Choosing: from the words of `select` to the current views of one key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LayerError, SelectionError, StaleError, counted, did_you_mean, first_few
from .absent import no_such_sets, stored_layers_of
from .block import Block
from .extract_command import extract_command
from .feature_store import FeatureStore
from .filters import ViewFilter, scene_ids
from .layer_place import LayerPlace
from .layers import STORAGES, best_storage, layer_order
from .placement import Placement, place_scene, stored_layers
from .schema import Bundle, ViewSet
from .selection import Selection
from .stored_key import StoredKey
from .view_groups import layer_group


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
    asked = stored_layers_of(store, stored, layers)
    keep = ViewFilter(sets, views)
    scenes = [one for one in scene_ids(store, scene, dataset, split) if keep.scene(one)]
    words = {"version": version, "asked": asked, "storage": storage}
    placed = {one: place_scene(store.catalog, stored, one, **words) for one in scenes}
    selection = _of_placed(store, stored, placed, keep, **words)
    if not len(selection):
        if sets is not None and stored.key.context == "set" and not selection.stale:
            raise no_such_sets(store, stored, str(sets) if isinstance(sets, str | Path) else "FILE")
        raise _nothing(selection, scene or split or dataset)
    return selection


def _of_placed(
    store: FeatureStore,
    stored: StoredKey,
    placed: Mapping[str, Sequence[Placement]],
    keep: ViewFilter,
    *,
    version: str | None,
    asked: Sequence[str] | None,
    storage: str | None,
) -> Selection:
    """What is kept of the placements of each scene."""
    found = [one for of_scene in placed.values() for one in of_scene]
    if stored.key.context == "set":
        found = [one for one in found if keep.whole(one.home[1].id, one.views)]
    names = _layer_names(store, stored, [set(placement.layers) for placement in found], asked)
    maker = _BlockMaker(store, stored, names, storage, keep)
    parts = tuple(block for block in map(maker.block, found) if len(block) or block.missing)
    absent = [one for one, of_scene in placed.items() if not of_scene and version is None]
    stale = tuple(one for one in absent if _has_older(store, stored, one))
    return Selection(store=store, stored_key=stored, layers=names, parts=parts, stale=stale)


def _has_older(store: FeatureStore, stored: StoredKey, scene_id: str) -> bool:
    """Whether the key has features of other images or another geometry of a scene."""
    return any(bundle.id in stored.bundle_ids for bundle, _ in store.catalog.rows[scene_id])


def _layer_names(
    store: FeatureStore, stored: StoredKey, placed: list[set[str]], asked: Sequence[str] | None
) -> tuple[str, ...]:
    common = set.intersection(*placed) if placed else set()
    if asked is None:
        return tuple(sorted(common, key=layer_order))
    absent = [name for name in asked if name not in common] if placed else []
    if absent:
        raise LayerError(
            f"layer {absent[0]!r} is stored for some of the scenes only.",
            where=stored.name,
            why=f"all of them have {', '.join(sorted(common, key=layer_order)) or 'none in common'}",
            fix=f"add it to all of them: {extract_command(store, stored, layers=[absent[0]])}",
        )
    return tuple(asked)


@dataclass(frozen=True, eq=False)
class _BlockMaker:
    """Makes blocks of placements: the views that are kept and have all layers."""

    store: FeatureStore
    stored: StoredKey
    names: tuple[str, ...]
    storage: str | None
    keep: ViewFilter
    _missing: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)

    def block(self, placed: Placement) -> Block:
        bundle, row = placed.home
        views = dict(enumerate(placed.views, row.start))
        rows = [r for r, view in views.items() if self.keep.view(row.id, view)]
        places = {name: self._place(name, placed, rows) for name in self.names}
        missing = {
            i: self._missing_rows(name, place)[place.rows[i]]
            for name, place in places.items()
            for i in range(len(rows))
            if place.rows[i] in self._missing_rows(name, place)
        }
        whole = Block(
            store=self.store,
            stored_key=self.stored,
            bundle=bundle,
            scene_row=row,
            rows=tuple(rows),
            views=tuple(views[r] for r in rows),
            places=places,
            missing={views[rows[i]].name: missing[i] for i in sorted(missing)},
        )
        return whole.part([i for i in range(len(rows)) if i not in missing]) if missing else whole

    def _place(self, layer: str, placed: Placement, rows: list[int]) -> LayerPlace:
        """The place of the layer's rows that go with these rows of the home bundle."""
        bundle, row = placed.layers[layer]
        storage = _storage(stored_layers(self.stored, bundle)[layer], self.storage, layer, self.stored)
        if bundle.id != placed.home[0].id:
            views = enumerate(self.store.catalog.scene_views(bundle, row), row.start)
            row_of = {view.position: r for r, view in views}
            first = placed.home[1].start
            rows = [row_of[placed.views[r - first].position] for r in rows]
        return LayerPlace(bundle=bundle, rows=tuple(rows), storage=storage)

    def _missing_rows(self, layer: str, place: LayerPlace) -> dict[int, str]:
        known = self._missing.get((place.bundle.id, layer))
        if known is None:
            known = _missing(self.store, self.stored, place.bundle, layer, place.storage)
            self._missing[place.bundle.id, layer] = known
        return known


def _missing(
    store: FeatureStore, stored: StoredKey, bundle: Bundle, layer: str, storage: str
) -> dict[int, str]:
    attributes = layer_group(store, stored, bundle, layer, storage).array_attributes("tokens")
    return {int(row): why for row, why in attributes.get("missing", {}).items()}


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


def _nothing(selection: Selection, asked: str | None) -> SelectionError:
    stale, scenes = selection.stale, selection.store.catalog.rows
    if stale:
        return StaleError(
            f"{first_few(stale)} changed since these features were extracted.",
            where=selection.stored_key.name,
            why="the stored rows are stale",
            fix="run the extraction again, or name an old version with version=<scene digest>",
        )
    if selection.left_out:
        reasons = Counter(selection.left_out.values())
        return SelectionError(
            f"{counted(len(selection.left_out), 'view')} would fit, and none has features.",
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
