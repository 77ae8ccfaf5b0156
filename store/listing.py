"""`strata store ls` and `strata store info`: what a store holds, for people."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

from rich.console import Console
from rich.table import Table

from ..configs.schema import ListConfig
from ..errors import LayerError, SelectionError, counted
from .extract_command import made_by
from .feature_store import FeatureStore
from .key import canonical_json
from .layers import layer_text
from .remote.path import Place
from .select import select
from .selection import Selection
from .stored_key import StoredKey


@dataclass(frozen=True, kw_only=True)
class KeyFacts:
    """What a store has of one key.

    Attributes:
        name, encoder: `<encoder>@<key>`, and the encoder alone.
        derived: how it was computed from other features; None = by an encoder.
        layers: by layer, its storages.
        scenes, views, grids, bytes: of what was asked for, with the layers that all of it has.
        note: why there are no views.
    """

    name: str
    encoder: str
    derived: str | None
    layers: dict[str, list[str]]
    scenes: int = 0
    views: int = 0
    grids: list[str] = field(default_factory=list)
    bytes: int = 0
    note: str = ""


def ls(path: str, console: Console, asked: ListConfig | None = None, *, as_json: bool = False) -> int:
    """One row per key: layers, scenes, views, token grids, bytes."""
    store, asked = FeatureStore.open(path), asked or ListConfig()
    found = [facts for stored in store.keys() if (facts := _facts(store, stored, asked))]
    if as_json:
        print(json.dumps([asdict(facts) for facts in found], indent=2))
        return 0
    table = Table("key", "layers", "scenes", "views", "grids", "features", box=None, pad_edge=False)
    for facts in found:
        size = facts.note or f"{facts.bytes / 1e6:,.1f} MB"
        counts = [f"{facts.scenes:,}", f"{facts.views:,}", ", ".join(facts.grids)]
        layers = (layer_text(layer, storages) for layer, storages in facts.layers.items())
        table.add_row(facts.name, ", ".join(layers), *counts, size)
    nothing = "nothing fits" if store.keys() else "the store has no features yet"
    console.print(table if table.row_count else nothing, highlight=False)
    scenes, bundles = counted(len(store.catalog.rows), "scene"), counted(len(store.catalog.bundles), "bundle")
    console.print(f"{scenes} in {bundles}", highlight=False)
    return 0


def _facts(store: FeatureStore, stored: StoredKey, asked: ListConfig) -> KeyFacts | None:
    """None where the key has nothing of what was asked for."""
    if asked.encoder and not any(fnmatchcase(n, asked.encoder) for n in (stored.key.encoder, stored.name)):
        return None
    layers = {
        layer: sorted({s for one in stored.bundles.values() for s in one.get(layer, ())})
        for layer in stored.layers
    }
    about = {"name": stored.name, "encoder": stored.key.encoder, "derived": stored.key.derived}
    try:
        selection = select(
            store,
            stored.name,
            scene=asked.scene,
            dataset=asked.dataset,
            layers=None if asked.layer is None else [asked.layer],
        )
    except (SelectionError, LayerError) as error:
        narrowed = asked.scene or asked.dataset or asked.layer
        return None if narrowed else KeyFacts(**about, layers=layers, note=error.what)
    return KeyFacts(
        **about,
        layers=layers if asked.layer is None else {one: layers[one] for one in selection.layers},
        scenes=len(selection.scenes),
        views=len(selection),
        grids=[f"{rows}x{cols}" for rows, cols in sorted(selection.grids)],
        bytes=selection.stored_bytes,
    )


def info(path: str, console: Console) -> int:
    """Everything: keys with their fields, storages, missing and stale views, splits, sets, bytes on disk."""
    store = FeatureStore.open(path)

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"store {store.root}: {_size(store.root)} in {counted(_files(store.root), 'file')}")
    for part in ("features", "pixels", "points", "catalog"):
        say(f"  {part:<9} {_size(store.root / part)}")
    for stored in store.keys():
        _say_key(store, stored, say)
    stale = store.catalog.stale()
    say(f"\nscenes    {len(store.catalog.rows):,}, stale versions of {len(stale):,}")
    for scene in stale:
        say(f"  {scene}: generation {store.catalog.generation(scene)} is current")
    say(f"splits    {', '.join(store.splits()) or 'none'}")
    say(f"sets      {', '.join(path.stem for path in sorted(store.root.glob('sets/*.json'))) or 'none'}")
    return 0


def _say_key(store: FeatureStore, stored: StoredKey, say) -> None:
    say(f"\n{stored.name}  patch {stored.patch_size}, {counted(stored.depth, 'block')}")
    say(f"  hashed    {canonical_json(stored.key.to_dict())}")
    made = ", ".join(f"{name} {value}" for name, value in made_by(store, stored).items())
    say(f"  made by   {made}")
    try:
        selection = select(store, stored.name)
    except SelectionError as error:
        say(f"  views     0: {error.what}")
        return
    say(f"  layers    {', '.join(_layer_text(stored, layer, selection) for layer in stored.layers)}")
    say(
        f"  views     {len(selection):,} of {counted(len(selection.scenes), 'scene')}, "
        f"{selection.stored_bytes / 1e6:,.1f} MB"
    )
    reasons = Counter(selection.left_out.values())
    for why, count in reasons.most_common():
        say(f"  missing   {counted(count, 'view')}: {why}")
    for scene in selection.stale:
        say(f"  stale     {scene}: run the extraction again")


def _layer_text(stored: StoredKey, layer: str, selection: Selection) -> str:
    storages = sorted({s for layers in stored.bundles.values() for s in layers.get(layer, ())})
    width = f" {selection.parts[0].width(layer)}" if layer in selection.layers else " (some scenes)"
    return f"{layer}{width} {'+'.join(storages)}"


def _size(path: Place) -> str:
    total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{total:,} bytes ({total / 1e6:,.1f} MB)"


def _files(path: Place) -> int:
    return sum(file.is_file() for file in path.rglob("*"))
