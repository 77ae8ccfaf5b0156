"""A reader of stores written from docs/store-format.md with plain zarr, and what it finds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(value):
    return hashlib.sha256(canonical(value)).hexdigest()


def read_layer(root: Path, encoder: str, layer: str):
    """By view label: (tokens [R, C, D], token points [R, C, 3]) of the current rows of one encoder."""
    records = {
        path.stem: json.loads(path.read_text())
        for path in root.glob("catalog/*.json")
        if not path.name.endswith(".views.json")
    }
    newest = {}
    for record in records.values():
        for scene in record["scenes"]:
            newest[scene["id"]] = max(newest.get(scene["id"], 0), scene["generation"])
    (key,) = root.glob(f"features/{encoder}@*")
    fields = json.loads(str(zarr.open_group(key, mode="r").attrs["feature_key"]))
    assert sha256(fields)[:12] == key.name[-12:]
    found = {}
    for bundle, record in records.items():
        views = json.loads((root / f"catalog/{bundle}.views.json").read_text())["views"]
        rows = [
            [scene["id"], views[row]["position"], views[row]["image_digest"]]
            for scene in record["scenes"]
            for row in range(scene["start"], scene["stop"])
        ]
        assert sha256({"grid": record["grid"], "rows": rows})[:16] == bundle
        g = sha256([scene["geometry"] for scene in record["scenes"]])[:8]
        for folder in key.glob(f"*@{bundle}"):
            tokens = zarr.open_array(folder / layer / "tokens", mode="r")
            labels: Any = zarr.open_array(folder / "view", mode="r")[:]
            (points,) = root.glob(f"points/*@{sha256(fields['preprocess'])[:6]}/*@{bundle}-{g}")
            world = zarr.open_array(points / "token_point_world", mode="r")
            missing: Any = tokens.attrs["missing"]
            for scene in record["scenes"]:
                for row in range(scene["start"], scene["stop"]):
                    if scene["generation"] == newest[scene["id"]] and str(row) not in missing:
                        assert labels[row] == f"{scene['id']}/{views[row]['name']}"
                        found[labels[row]] = tokens[row], world[row]
    return found


@pytest.fixture
def stored(pipeline):
    from strata.store.feature_store import FeatureStore

    for name in ("a", "b", "c"):
        pipeline.add(name)
    pipeline.extract()
    pipeline.change("b", lambda views: views[:2])
    pipeline.extract()
    return FeatureStore.open(pipeline.root)


def test_it_reads_what_strata_reads(stored):
    plain = read_layer(stored.root, "colour", "norm")
    selection = stored.select("colour", layers=["norm"])
    assert len(plain) == len(selection) == 8
    for block in selection.blocks():
        points = block.token_points().world
        for i, (name, tokens) in enumerate(zip(block.names, block.tokens("norm"), strict=True)):
            np.testing.assert_array_equal(plain[f"{block.scene}/{name}"][0], tokens)
            np.testing.assert_array_equal(plain[f"{block.scene}/{name}"][1], points[i])


def test_every_array_reads_the_same_through_zarr(stored):
    from strata.store.group import StoredGroup

    documents = [
        path
        for path in stored.root.rglob("zarr.json")
        if json.loads(path.read_text())["node_type"] == "array"
    ]
    assert len(documents) > 20
    for path in documents:
        if path.parent.name in ("view", "scene"):
            continue
        array = zarr.open_array(path.parent, mode="r")
        group = path.parents[1] if (path.parents[1] / "zarr.json").exists() else path.parent
        ours = StoredGroup(group).read(path.parent.name, range(array.shape[0]))
        np.testing.assert_array_equal(array[:], ours, err_msg=str(path))


def test_xarray_opens_layers_and_bundles(stored):
    xr = pytest.importorskip("xarray")
    bundle = next(path for path in stored.root.glob("features/colour@*/toy.a+2@*"))
    tree = xr.open_datatree(bundle, engine="zarr", consolidated=False)
    tokens = tree["norm"].ds.tokens
    assert tokens.dims == ("view", "row", "col", "channel")
    assert tokens.dtype == np.float16
    one = tokens.sel(view="toy/b/001")
    assert one.shape == (4, 6, 3)
    assert str(tree.ds.scene.sel(view="toy/b/001").values) == "toy/b"
    layer = xr.open_zarr(bundle / "block0", consolidated=False)
    assert dict(layer.sizes) == {"view": 9, "row": 4, "col": 6, "channel": 3, "prefix_token": 1}
    points = xr.open_zarr(next(stored.root.glob("points/*/toy.a+2@*")), consolidated=False)
    assert set(points.coords) == {"view", "scene"}
