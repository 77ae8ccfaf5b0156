"""Derived features put into the store, under a key of their own and through the writer of all layers.

They lie in the bundles of what they were derived from. Rows of a bundle that are not in the selection are
named missing; deriving more views later writes their shards anew, with the old views and the new ones.

Shapes: R C token rows and columns, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from rich.console import Console

from ..errors import SelectionError, StoreError
from ..progress import Progress
from .array_reader import ArrayReader
from .atomic import make_folder
from .block import Block
from .derived import DerivedPlace, DerivedTokens, Source
from .feature_store import FeatureStore
from .layout import GroupSpec, bundle_identity, layer_group, shard_views, unit_views
from .lock import locked
from .remote.path import written
from .schema import Bundle
from .selection import Selection
from .shard_io import present_chunks
from .view_groups import layer_group as stored_group
from .writer import GroupWriter, UnitBuffer, row_labels

STORAGES = {"f16": np.dtype(np.float16), "f32": np.dtype(np.float32)}
LEFT_OUT = "the view was not in the selection that was derived"

Rows = dict[int, tuple[Block, int]]
"""By row of the bundle, the block that has it and its place there."""


def materialise(derived: Selection, *, storage: str = "f16", console: Console | None = None) -> Selection:
    """Write a derived selection into its store, and select it there.

    Shards that hold all the views that are wanted of them stay as they are, so a call that was broken off is
    continued by the same call.

    Args:
        derived: what `concat`, `pca` or `l2` gave.
        storage: f16 | f32.
        console: where progress is shown; None = stdout.

    Raises:
        SelectionError: the selection is stored, not derived, or the storage is unknown.
        StoreError: values do not fit into the storage.
    """
    _check(derived, storage)
    store, key, stored = derived.store, derived.key, derived.stored_key
    store.declare_key(key, stored.patch_size, stored.depth)
    jobs = [
        (bundle, layer, rows)
        for bundle, rows in _by_bundle(derived)
        for layer in derived.layers
        if not _has(derived, bundle, layer, storage, rows)
    ]
    views = sum(len(rows) for _, _, rows in jobs)
    root = written(store.root)
    with Progress(console or Console(), "derive", views, unit="maps") as progress:
        for bundle, layer, rows in jobs:
            # Rows that are there are read and written again with the new ones: by one process at a time.
            make_folder(root / "runs")  # a copy of a store has none
            with locked(root / "runs" / f".derive-{key.id}"):
                _write(derived, bundle, layer, storage, rows, progress)
    # Opened anew: shards that were open before may have been replaced.
    store = FeatureStore(store.root, store.check)
    return store.select(stored.name, layers=derived.layers, views=_names(derived), storage=storage)


def _check(derived: Selection, storage: str) -> None:
    tokens = [_tokens(block, layer) for block in derived.parts for layer in derived.layers]
    if not all(isinstance(one, DerivedTokens) for one in tokens):
        raise SelectionError(
            "this selection is not a derived one.",
            where=derived.stored_key.name,
            fix="give what `concat`, `pca` or `l2` returned",
        )
    if storage not in STORAGES:
        raise SelectionError(
            f"derived features are not stored as {storage!r}.", where="storage", fix="f16 or f32"
        )


def _by_bundle(derived: Selection) -> Iterator[tuple[Bundle, Rows]]:
    bundles: dict[str, Bundle] = {}
    rows: dict[str, Rows] = {}
    for block in derived.parts:
        bundles[block.bundle.id] = block.bundle
        rows.setdefault(block.bundle.id, {}).update({row: (block, i) for i, row in enumerate(block.rows)})
    return ((bundle, rows[one]) for one, bundle in bundles.items())


def _has(derived: Selection, bundle: Bundle, layer: str, storage: str, rows: Rows) -> bool:
    """Whether the store has the layer of all these rows."""
    group = derived.store.group(derived.store.root / _spec(derived, bundle, layer, storage).folder)
    if not group.committed:
        return False
    missing = group.array_attributes("tokens").get("missing", {})
    return not set(rows) & set(map(int, missing))


def _write(
    derived: Selection, bundle: Bundle, layer: str, storage: str, rows: Rows, progress: Progress
) -> None:
    spec = _spec(derived, bundle, layer, storage)
    writer, tokens = GroupWriter(written(derived.store.root), spec), spec.arrays["tokens"]
    writer.prepare()
    for unit in range(tokens.units):
        path = writer.folder / "tokens" / tokens.file(unit)
        present = present_chunks(path, tokens.unit)
        there = {row for i, row in enumerate(tokens.rows(unit)) if present is not None and present[i]}
        wanted = set(rows) & set(tokens.rows(unit))
        if present is None or wanted - there:
            old = {row: _stored_map(derived, spec, row) for row in there - wanted} if there else {}
            new = {row: _made_map(rows[row], layer, storage) for row in wanted}
            writer.write(_buffer(spec, unit, old | new))
        progress.advance(len(wanted))
    missing = {str(row): LEFT_OUT for row in writer.empty_rows("tokens")}
    about = {"missing": missing, "provenance": _provenance(derived)}
    labels = row_labels(bundle, derived.store.catalog.views(bundle))
    writer.commit(labels, attributes={"tokens": about})


def _buffer(spec: GroupSpec, unit: int, maps: dict[int, np.ndarray]) -> UnitBuffer:
    buffer = UnitBuffer(spec, unit)
    for row in spec.arrays["tokens"].rows(unit):
        buffer.add(row, {"tokens": maps[row]} if row in maps else None)
    return buffer


def _stored_map(derived: Selection, spec: GroupSpec, row: int) -> np.ndarray:
    folder = written(derived.store.root) / spec.folder / "tokens"
    return ArrayReader(folder, spec.arrays["tokens"]).read([row])[0]


def _made_map(at: tuple[Block, int], layer: str, storage: str) -> np.ndarray:
    """[R, C, D] of a view, in the dtype that is stored.

    Raises:
        StoreError: a value does not fit into it.
    """
    block, i = at
    values = block.tokens(layer, [i])[0]
    with np.errstate(over="ignore"):
        cast = values.astype(STORAGES[storage])
    if (np.isinf(cast) & np.isfinite(values)).any():
        raise StoreError(
            f"a value of {np.abs(values).max():,.0f} does not fit into {storage}.",
            where=f"{block.stored_key.name}, {layer}, {block.scene}/{block.names[i]}",
            fix="materialise with storage='f32'",
        )
    return cast


def _spec(derived: Selection, bundle: Bundle, layer: str, storage: str) -> GroupSpec:
    tokens = _tokens(derived.parts[0], layer)
    row_bytes = int(np.prod(bundle.grid)) * tokens.map_shape[-1] * STORAGES[storage].itemsize
    geometry = _geometry(derived, bundle)
    return layer_group(
        derived.key,
        bundle,
        layer,
        storage=storage,
        width=tokens.map_shape[-1],
        prefix=0,
        unit=min(len(bundle), shard_views(unit_views(row_bytes), row_bytes)),
        needs_geometry=geometry is not None,
        attributes={**tokens.function.attributes(), **(geometry or {})},
    )


def _geometry(derived: Selection, bundle: Bundle) -> dict[str, Any] | None:
    """What the sources say of the geometry they were made from; None when it is of images alone."""
    for block in derived.parts:
        if block.bundle.id == bundle.id:
            for source, layer in _stored_sources(block, derived.layers[0]):
                place = source.places[layer]
                folder, _ = source.stored_key.bundles.find(place.bundle)
                if bundle_identity(folder)[1] is not None:
                    group = stored_group(source.store, source.stored_key, place.bundle, layer, place.storage)
                    return {one: group.attributes[one] for one in ("scene_geometry", "scene_scale_m")}
    return None


def _stored_sources(block: Block, layer: str) -> Iterator[Source]:
    """What is read from the store for a layer, through all that was derived on the way."""
    place = block.places[layer]
    if not isinstance(place, DerivedPlace):
        yield block, layer
        return
    for source in place.sources:
        yield from _stored_sources(*source)


def _tokens(block: Block, layer: str) -> Any:
    return block.places[layer].open(block.store, block.stored_key, layer)


def _provenance(derived: Selection) -> dict[str, str]:
    try:
        release = version("strata3d")
    except PackageNotFoundError:
        release = "unknown"
    return {"derived": str(derived.key.derived), "strata3d": release, "numpy": np.__version__}


def _names(derived: Selection) -> list[str]:
    return [f"{block.scene}/{view.name}" for block in derived.parts for view in block.views]
