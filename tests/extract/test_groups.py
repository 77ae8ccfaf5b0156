"""The groups that a bundle gets: folders, units, attributes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from strata.extract.encoders.base import EncoderInfo
from strata.extract.groups import Groups
from strata.store.key import FeatureKey, Preprocess, digest
from strata.store.schema import SceneViews, ViewRow, make_bundle


def bundle_of(views: int, grid=(37, 37)):
    rows = tuple(
        ViewRow(name=str(p), position=p, image_digest=digest(p), geometry_digest=digest(p))
        for p in range(views)
    )
    scene = SceneViews(id="toy/a", digest=digest("d"), geometry=digest("g"), generation=1, views=rows)
    return make_bundle(grid, [scene])


def encoder(width=768, prefix=1, patch=14, needs_geometry=False) -> Any:
    return SimpleNamespace(
        width=lambda layer: width,
        prefix_names=lambda: ("cls",) * prefix,
        needs_geometry=needs_geometry,
        info=EncoderInfo(name="e", patch_size=patch, depth=4),
    )


def groups(**changes: Any) -> Groups:
    key = FeatureKey(encoder="e", weights="0" * 64, preprocess=Preprocess())
    return Groups(
        **{
            "key": key,
            "encoder": encoder(),
            "storages": {f"block{k}": "f16" for k in range(4)},
            "views": "all",
            "unit_views": None,
            "packed": {"toy/a": SimpleNamespace(scene_scale_m=2.5)},
            **changes,
        }
    )


def unit_of(specs) -> int:
    (unit,) = {spec.unit for group in specs.values() for spec in group.by_unit.values()}
    return unit


@pytest.mark.parametrize(
    ("width", "storage", "layers", "views", "unit"),
    [
        (768, "f16", 4, 4096, 2**30 // (4 * 1370 * 768 * 2)),
        (768, "f16", 1, 4096, 2**28 // (1369 * 768 * 2)),
        (8, "f16", 1, 4096, 2048),
        (768, "f16", 4, 10, 10),
        (768, "f32", 4, 4096, 2**30 // (4 * 1370 * 768 * 4)),
        (10_000_000, "f32", 1, 9, 1),
    ],
)
def test_units_follow_the_bytes_of_a_view(width, storage, layers, views, unit):
    made = groups(encoder=encoder(width), storages={f"block{k}": storage for k in range(layers)})
    specs = made.layers(bundle_of(views))
    assert abs(unit_of(specs) - unit) <= (unit > 100 and layers == 1)
    assert all(
        s.arrays["tokens"].row_bytes * s.arrays["tokens"].unit <= max(2**28, width * 1369 * 4)
        for s in specs.values()
    )


def test_no_shard_of_pixels_exceeds_256_mb():
    specs = groups(encoder=encoder(patch=32)).others(bundle_of(4096))
    for spec in specs.values():
        for array in spec.by_unit.values():
            assert array.row_bytes * array.unit <= 2**28


def test_unit_views_overrides_but_not_beyond_the_bundle():
    made = groups(unit_views=3)
    assert unit_of(made.layers(bundle_of(10))) == 3
    assert unit_of(made.layers(bundle_of(2))) == 2
    assert made.others(bundle_of(10))["points"].arrays["token_valid"].unit == 3


def test_what_depends_on_geometry_lies_at_its_digest():
    bundle = bundle_of(3)
    by_image, by_geometry = groups(), groups(encoder=encoder(needs_geometry=True))
    assert (
        by_image.layers(bundle)["block0"].folder == f"features/{by_image.key.folder}/{bundle.folder}/block0"
    )
    assert by_image.layers(bundle)["block0"].attributes == {}
    spec = by_geometry.layers(bundle)["block0"]
    assert spec.folder == f"features/{by_image.key.folder}/{bundle.geometry_folder}/block0"
    assert spec.attributes == {
        "scene_geometry": {"toy/a": digest("g")},
        "scene_scale_m": {"toy/a": 2.5},
    }
    others = by_image.others(bundle)
    pre = by_image.key.preprocess.folder
    assert others["images"].folder == f"pixels/{pre}-p14/{bundle.folder}"
    assert others["geometry"].folder == f"pixels/{pre}-p14/{bundle.geometry_folder}"
    assert others["points"].folder == f"points/{pre}/{bundle.geometry_folder}"
    assert others["points"].attributes == spec.attributes
    assert by_image.geometry_attributes(bundle) == replace(by_image, views="none").geometry_attributes(bundle)


def test_what_is_kept_of_views():
    bundle = bundle_of(3)
    arrays = {
        views: {name: set(spec.arrays) for name, spec in groups(views=views).others(bundle).items()}
        for views in ("all", "geometry", "none")
    }
    points = {"token_point_world", "token_valid", "token_spread_m"}
    geometry = {"depth_m", "valid", "K_px", "cam_from_world"}
    only_map = {"token_from_source_px"}
    assert arrays["all"] == {"images": only_map | {"image"}, "geometry": geometry, "points": points}
    assert arrays["geometry"] == {"images": only_map, "geometry": geometry, "points": points}
    assert arrays["none"] == {"images": only_map, "points": points}


def test_arrays_are_those_of_the_format():
    bundle = bundle_of(3)
    made = groups(storages={"block0": "f16", "norm": "bf16"})
    layers, others = made.layers(bundle), made.others(bundle)
    assert layers["norm"].folder.endswith("/norm@bf16")
    assert (layers["norm"].arrays["tokens"].dtype, layers["norm"].arrays["tokens"].fill) == ("uint16", 0x7FC0)
    assert layers["block0"].arrays["tokens"].shape == (3, 37, 37, 768)
    assert layers["block0"].arrays["prefix"].shape == (3, 1, 768)
    fills = {name: spec.fill for group in others.values() for name, spec in group.arrays.items()}
    assert fills == {
        "image": 0, "token_from_source_px": "NaN", "depth_m": 0.0, "valid": False, "K_px": "NaN",
        "cam_from_world": "NaN", "token_point_world": "NaN", "token_valid": False, "token_spread_m": "NaN",
    }  # fmt: skip
    assert "prefix" not in groups(encoder=encoder(prefix=0)).layers(bundle)["block0"].arrays
