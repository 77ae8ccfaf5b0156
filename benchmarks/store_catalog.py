"""Opening a store of 10,000 scenes of 100 views, choosing one of them, and how both grow to 100,000 scenes.

    python benchmarks/store_catalog.py [--check] [--pairs 15]

The store has its real documents, and one shard under the names of all. In each round it is opened in a fresh
`FeatureStore`: the catalog is read, then one scene and one layer are selected, then another. CPU
milliseconds, medians; the anchor is `json.loads` of the catalog's bytes, in the same rounds. Of the larger
store the views of the selected bundles alone are written: nothing else is to be read.

Goals: read below 50 ms, select below 20 ms; to 100,000 scenes reading grows with them, selecting one by at
most half.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from judge import Row, cpu_seconds, median_interval, run_alone
from strata.store.arrays import group_document
from strata.store.feature_store import FeatureStore
from strata.store.key import FeatureKey, Preprocess
from strata.store.layout import layer_group
from strata.store.schema import Bundle, SceneViews, ViewRow, make_bundle

SCENES, MANY, VIEWS, IN_BUNDLE = 10_000, 100_000, 100, 40
LAYERS = ("block2", "block5", "block8", "norm")
READ_MS, SELECT_MS, GROWTH = 50, 20, 1.5
KEY = FeatureKey(encoder="vit_small", weights="0" * 64, preprocess=Preprocess())


def write_store(root: Path, scenes: int, with_views: tuple[int, ...]) -> FeatureStore:
    """A store of that many scenes; the views of these bundles, by number, are written."""
    store = FeatureStore.create(root)
    store.declare_key(KEY, 14, 12)
    (root / "catalog").mkdir()
    first = _bundle(0)
    for number in range(scenes // IN_BUNDLE):
        bundle = _renamed(first, number)
        (root / "catalog" / f"{bundle.id}.json").write_text(json.dumps(bundle.to_dict(), indent=2))
        if number in with_views:
            document = {"views": [view.to_dict() for view in _views()] * IN_BUNDLE}
            (root / "catalog" / f"{bundle.id}.views.json").write_text(json.dumps(document, indent=2))
        _write_layers(root, bundle)
    return store


def _views() -> list[ViewRow]:
    return [
        ViewRow(name=f"{i:06d}", position=i, image_digest=f"{i:064x}", geometry_digest=f"{i + 7:064x}")
        for i in range(VIEWS)
    ]


def _bundle(number: int) -> Bundle:
    rows = [
        SceneViews(
            id=scene_id(number, i), digest="1" * 64, geometry="2" * 64, generation=1, views=tuple(_views())
        )
        for i in range(IN_BUNDLE)
    ]
    return make_bundle((28, 37), rows)


def scene_id(bundle: int, place: int) -> str:
    return f"scannet/scene{bundle * IN_BUNDLE + place:06d}_00"


def _renamed(bundle: Bundle, number: int) -> Bundle:
    """The bundle of other scenes; its id is not the digest that it should be, which no reader computes."""
    scenes = tuple(replace(row, id=scene_id(number, i)) for i, row in enumerate(bundle.scenes))
    return replace(bundle, id=f"{number:016x}", scenes=scenes)


def _write_layers(root: Path, bundle: Bundle) -> None:
    for layer in LAYERS:
        spec = layer_group(
            KEY,
            bundle,
            layer,
            storage="f16",
            width=384,
            prefix=0,
            unit=128,
            needs_geometry=False,
            attributes={},
        )
        tokens = root / spec.folder / "tokens"
        tokens.mkdir(parents=True)
        (tokens / "zarr.json").write_text(json.dumps(spec.arrays["tokens"].document({"missing": {}})))
        (tokens.parent / "zarr.json").write_text(json.dumps(group_document({})))


def rounds(root: Path, pairs: int, scenes: int) -> dict[str, list[float]]:
    """CPU milliseconds by step."""
    last = scenes // IN_BUNDLE - 1
    spent: dict[str, list[float]] = {"json": [], "read": [], "select": [], "select another": []}
    for _ in range(pairs + 1):
        texts = [path.read_bytes() for path in root.glob("catalog/*.json") if "views" not in path.name]
        store = FeatureStore.open(root)
        # Else a round pays for looking at what the rounds before it made, which no process has that opens a store.
        gc.collect()
        work = {
            "json": lambda texts=texts: [json.loads(text) for text in texts],
            "read": lambda store=store: store.catalog.rows,
            "select": lambda store=store: store.select("vit_small", layers=["norm"], scene=scene_id(0, 7)),
            "select another": lambda store=store: store.select(
                "vit_small", layers=["norm"], scene=scene_id(last, 3)
            ),
        }
        for name, step in work.items():
            spent[name].append(1e3 * cpu_seconds(step))
    return {name: values[1:] for name, values in spent.items()}


def measure(pairs: int) -> list[Row]:
    """The rows of both stores."""
    with tempfile.TemporaryDirectory() as folder, patch.object(os, "fsync"):
        spent = {}
        for scenes in (SCENES, MANY):
            root = Path(folder) / f"{scenes}.zarr"
            write_store(root, scenes, (0, scenes // IN_BUNDLE - 1))
            spent[scenes] = rounds(root, pairs, scenes)
            shutil.rmtree(root)
    few, many = spent[SCENES], spent[MANY]
    name = f"{SCENES:,} scenes of {VIEWS} views"
    return [
        _row(f"{name}: read the catalog", few["read"], READ_MS, f"json.loads alone {_ms(few['json'])}"),
        _row(f"{name}: select one scene, then", few["select"], SELECT_MS),
        _row(f"{name}: select another, of another bundle", few["select another"], SELECT_MS),
        _row(
            f"{MANY:,} scenes: read the catalog", many["read"], None, f"json.loads alone {_ms(many['json'])}"
        ),
        _growth(f"{MANY:,} over {SCENES:,} scenes: select one", few["select"], many["select"]),
        _growth("the same, another", few["select another"], many["select another"]),
    ]


def _ms(values: list[float]) -> str:
    return f"{statistics.median(values):,.1f} ms"


def _row(name: str, values: list[float], goal: float | None, note: str = "") -> Row:
    value, low, high = median_interval(values)
    return Row(name=name, value=value, low=low, high=high, unit="CPU ms", goal=goal, below=True, note=note)


def _growth(name: str, few: list[float], many: list[float]) -> Row:
    value, low, high = median_interval([b / a for a, b in zip(few, many, strict=True)])
    note = f"{_ms(many)} against {_ms(few)}"
    return Row(name=name, value=value, low=low, high=high, unit="times", goal=GROWTH, below=True, note=note)


if __name__ == "__main__":
    sys.exit(run_alone(measure, __doc__ or "", pairs=15))
