"""`pack max_side=`: the whole pipeline, beside that of the scenes as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from strata.configs.schema import CorrespondenceConfig, ExtractConfig
from strata.extract.pack import pack_scenes
from strata.extract.packed_scene import PackedScene, PackedView
from strata.extract.prepare import Request, prepare
from strata.extract.run import extract
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.scene import Scene
from strata.extract.scenes.synthetic import SyntheticSource, SyntheticView
from strata.extract.sets import sample_sets
from strata.extract.shards import ShardIndex
from strata.extract.shrink import nearest_pixels
from strata.kernels.geometry import (
    invert_rigid,
    project,
    transform,
    unproject_depth,
)
from strata.probes.base import Record
from strata.probes.correspondence import run as probe
from strata.store.feature_store import FeatureStore
from strata.store.key import Preprocess
from strata.store.schema import ViewSet
from strata.store.view_sets import read_sets, write_sets

MB = 1_000_000
SIDE = 80
GRID = "aspect:12"


def sets_of(scene: Scene) -> list[ViewSet]:
    names, digests = [view.name for view in scene.views], [view.image_digest for view in scene.views]
    assert scene.covisibility is not None
    return sample_sets(
        scene.id, names, digests, scene.covisibility, views=3, count=3, threshold=0.025, seed=777
    )[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores `whole.zarr` and `small.zarr` of the same rooms, probed with the sets of the source's images."""
    root, source = tmp_path_factory.mktemp("both"), SyntheticSource(scenes=2, views=4, width=160, height=120)
    sets = [view_set for scene in source for view_set in sets_of(scene)]
    write_sets(root / "sets.json", sets, sampler={})
    for name, max_side in (("whole", None), ("small", SIDE)):
        pack_scenes(source, root / name, shard_bytes=MB, max_side=max_side)
        store = str(root / f"{name}.zarr")
        for encoder in ("oracle_world", "oracle_rgb"):
            extract(ExtractConfig(shards=str(root / name), store=store, encoder=encoder, grid=GRID))
        asked = CorrespondenceConfig(
            store=store,
            encoder="oracle_world",
            sets=str(root / "sets.json"),
            out=str(root / f"run_{name}"),
            protocol=["visible", "voxel", "reference"],
            ranking=False,
            pictures=0,
        )
        assert probe(replace(asked, resamples=10), Console(quiet=True)) == 0
    return root


def records(folder: Path) -> dict[tuple, float | None]:
    rows = [Record.from_json(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return {(row.protocol, row.scene, row.set, row.metric): row.value for row in rows}


def test_scores_stay_close_and_depth_still_agrees(both: Path):
    whole, small = records(both / "run_whole"), records(both / "run_small")
    assert set(whole) == set(small)
    overall = [key for key in whole if key[3] in ("corr", "noncorr")]
    assert len(overall) >= 30
    for key in overall:
        assert small[key] == pytest.approx(whole[key], abs=0.05), key
    agreement = [key for key in whole if key[3] == "depth_agreement"]
    assert len(agreement) == 2
    for key in agreement:
        # The network's view is 168 pixels wide, so depth of 80 repeats; wrong cameras give next to nothing.
        assert small[key] == pytest.approx(whole[key], abs=0.08)
        assert (small[key] or 0) > 0.85


def f64(array: np.ndarray | None) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))


def test_pixels_and_token_points_stay_on_the_points_of_the_source(both: Path):
    source = SyntheticSource(scenes=2, views=4, width=160, height=120)
    for scene in ShardIndex.open(both / "small"):
        for exact, packed in zip(source.analytic(scene.id).views, scene.views, strict=True):
            view, depth_m = packed.view(), decode_view(packed.view()).depth_m
            world = unproject_depth(f64(depth_m), f64(view.K_px), f64(view.world_from_cam)).numpy()
            rows = nearest_pixels(exact.depth_m.shape[0], packed.height)
            cols = nearest_pixels(exact.depth_m.shape[1], packed.width)
            apart = np.linalg.norm(world - exact.point_world[rows[:, None], cols], axis=-1)
            # Half a source pixel across and half a pixel down, at most.
            assert (apart <= 0.71 * exact.depth_m[rows[:, None], cols] / exact.K_px[0, 0] + 1e-6).all()
            _check_token_points(scene, packed, exact, world)


def _check_token_points(
    scene: PackedScene, packed: PackedView, exact: SyntheticView, world: np.ndarray
) -> None:
    """Each is the point of a packed pixel, and lies in its own cell of the source's image."""
    grid = (9, 12) if packed.width > packed.height else (12, 9)
    request = Request(preprocess=Preprocess(grid=GRID), grid=grid, patch=14, points=True)
    prepared = prepare(scene, packed, request)
    assert prepared.points is not None
    assert prepared.points.valid.mean() > 0.9
    points = prepared.points.world[prepared.points.valid]
    apart = np.linalg.norm(world.reshape(-1, 3)[None] - points[:, None], axis=-1)
    assert apart.min(1).max() < 1e-5
    uv_px, _ = project(transform(invert_rigid(f64(exact.world_from_cam)), f64(points)), f64(exact.K_px))
    uv1 = np.concatenate([uv_px.numpy(), np.ones((len(points), 1))], axis=1)
    own = np.stack(np.meshgrid(np.arange(grid[1]), np.arange(grid[0])), axis=-1)[prepared.points.valid]
    assert np.abs(uv1 @ prepared.camera.token_from_source_px.T - own).max() <= 0.5 + 1e-6


def test_features_are_sampled_by_pixels_of_the_source(both: Path):
    whole, small = (
        FeatureStore.open(both / f"{name}.zarr").select("oracle_rgb") for name in ("whole", "small")
    )
    for view in whole.table():
        width, height = (158, 118) if view["grid"][1] > view["grid"][0] else (118, 158)
        if view["scene"].endswith("room_1") and view["position"] >= 2:
            width, height = 3 * width // 4, 3 * height // 4
        uv_px = np.random.default_rng(0).uniform(1, [width, height], (40, 2))
        a, b = (part.sample(view["scene"], view["frame"], uv_px)["norm"] for part in (whole, small))
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=0.04)


def test_views_are_selected_by_sets_of_the_source(both: Path):
    one = read_sets(both / "sets.json")[0]
    store = FeatureStore.open(both / "small.zarr")
    assert {view["frame"] for view in store.select("oracle_world", sets=[one]).table()} == set(one.members)
