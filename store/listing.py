"""`strata store ls` and `strata store info`: what a store holds, for people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import SelectionError
from .feature_store import FeatureStore
from .group import StoredGroup
from .key import canonical_json
from .selection import Selection
from .stored_key import StoredKey


def ls(path: str, console: Console) -> int:
    """One row per key: layers, scenes, views, token grids, bytes."""
    store = FeatureStore.open(path)
    table = Table("key", "layers", "scenes", "views", "grids", "features", box=None, pad_edge=False)
    for stored in store.keys():
        table.add_row(stored.name, ", ".join(stored.layers), *_counts(store, stored))
    console.print(table if table.row_count else "the store has no features yet", highlight=False)
    catalog = store.catalog
    console.print(f"{len(catalog.rows):,} scenes in {len(catalog.bundles):,} bundles", highlight=False)
    return 0


def _counts(store: FeatureStore, stored: StoredKey) -> list[str]:
    try:
        selection = store.select(stored.name)
    except SelectionError as error:
        return ["0", "0", error.what]
    grids = sorted({block.grid for block in selection.parts})
    return [
        f"{len(selection.scenes):,}",
        f"{len(selection):,}",
        ", ".join(f"{rows}x{cols}" for rows, cols in grids),
        f"{selection.nbytes / 1e6:,.1f} MB",
    ]


def info(path: str, console: Console) -> int:
    """Everything: keys with their fields, storages, missing and stale views, splits, sets, bytes on disk."""
    store = FeatureStore.open(path)

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"store {store.root}: {_size(store.root)} in {_files(store.root):,} files")
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
    say(f"\n{stored.name}  patch {stored.patch_size}, {stored.depth} blocks")
    say(f"  hashed    {canonical_json(stored.key.to_dict())}")
    say(f"  made by   {_provenance(store, stored)}")
    try:
        selection = store.select(stored.name)
    except SelectionError as error:
        say(f"  views     0: {error.what}")
        return
    say(f"  layers    {', '.join(_layer_text(stored, layer, selection) for layer in stored.layers)}")
    say(
        f"  views     {len(selection):,} of {len(selection.scenes):,} scenes, "
        f"{selection.nbytes / 1e6:,.1f} MB"
    )
    reasons = Counter(selection.left_out.values())
    for why, count in reasons.most_common():
        say(f"  missing   {count:,} views: {why}")
    for scene in selection.stale:
        say(f"  stale     {scene}: run the extraction again")


def _layer_text(stored: StoredKey, layer: str, selection: Selection) -> str:
    storages = sorted({s for layers in stored.bundles.values() for s in layers.get(layer, ())})
    width = f" {selection.parts[0].width(layer)}" if layer in selection.layers else " (some scenes)"
    return f"{layer}{width} {'+'.join(storages)}"


def _provenance(store: FeatureStore, stored: StoredKey) -> str:
    folder = store.root / "features" / stored.folder
    group = next(
        path.parent.parent
        for path in sorted(folder.glob("*/*/tokens/zarr.json"))
        if (path.parent.parent / "zarr.json").exists()
    )
    made = StoredGroup(group).array_attributes("tokens").get("provenance", {})
    return ", ".join(f"{name} {value}" for name, value in made.items())


def _size(path: Path) -> str:
    total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{total:,} bytes ({total / 1e6:,.1f} MB)"


def _files(path: Path) -> int:
    return sum(file.is_file() for file in path.rglob("*"))
