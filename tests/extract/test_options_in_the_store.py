"""Taps, prefix tokens and overlapping patches on their way through extraction, store, selection and probe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from strata.configs.schema import CorrespondenceConfig, ExtractConfig, PackConfig, SetsConfig, SynthConfig
from strata.errors import LayerError, SelectionError, StoreMismatchError
from strata.extract.encoders.registry import create
from strata.extract.forward import encode
from strata.extract.pack import pack
from strata.extract.prepare import Request, prepare
from strata.extract.run import Summary, extract
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.extract.shards import ShardIndex
from strata.probes.base import Record
from strata.probes.correspondence import run as probe
from strata.store.feature_store import FeatureStore
from strata.store.key import Preprocess

TAPS = ["block1.attn", "block1.keys", "block1.mlp", "block1.norm", "1/2"]
VIT = "vit_tiny_demo"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic room, and a store with plain and overlapping patches of it."""
    root, quiet = tmp_path_factory.mktemp("rooms"), Console(quiet=True)
    scenes = str(root / "scenes")
    synth(SynthConfig(out=scenes, scenes=1, views=4, width=64, height=48), quiet)
    make(SetsConfig(scenes=scenes, out=str(root / "sets.json"), set_count=2, set_views=3), quiet)
    pack(PackConfig(scenes=scenes, out=str(root / "shards")), quiet)
    extracted(root, VIT, layers=TAPS)
    extracted(root, VIT, layers=["norm"], stride=7)
    extracted(root, "oracle_world", stride=7)
    return root


def extracted(root: Path, encoder: str, **words: object) -> Summary:
    paths = {"shards": str(root / "shards"), "store": str(root / "feats.zarr")}
    options = {"encoder": encoder, "weights": "random:0", "grid": "aspect:8", "storage": "f32", **words}
    return extract(ExtractConfig(**paths, **options))  # type: ignore[arg-type]


def store_of(root: Path) -> FeatureStore:
    return FeatureStore.open(root / "feats.zarr")


def test_taps_are_stored_as_they_are_computed(made: Path):
    features = store_of(made).select(f"{VIT}@{plain_key(made)}", layers=TAPS)
    assert features.layers == ("block1.attn", "block1.keys", "block1.mlp", "block1.norm", "block1")
    (scene,) = ShardIndex.open(made / "shards").scenes
    request = Request(preprocess=Preprocess(grid="aspect:8"), grid=(6, 8), patch=14)
    views = [prepare(scene, view, request) for view in scene.views]
    maps = encode(create(VIT, "random:0"), [[view] for view in views], features.layers)
    (part,) = features.load()
    for layer in features.layers:
        np.testing.assert_allclose(part.tokens[layer], maps[layer].tokens[:, 0].numpy(), atol=1e-5)
        prefix = maps[layer].prefix
        assert prefix is not None
        for i, name in enumerate(("cls", "reg0")):
            np.testing.assert_allclose(features.prefix(name)[layer], prefix[:, 0, i].numpy(), atol=1e-5)


def plain_key(made: Path) -> str:
    return next(k.key.id for k in store_of(made).keys() if k.key.encoder == VIT and k.key.stride is None)


def test_a_prefix_token_that_is_not_there(made: Path):
    features = store_of(made).select(VIT, stride=7)
    with pytest.raises(SelectionError, match="no prefix token 'reg1'") as caught:
        features.prefix("reg1")
    assert caught.value.why == "it has cls, reg0"
    with pytest.raises(SelectionError, match="no prefix token 'cls'") as caught:
        store_of(made).select("oracle_world").prefix("cls")
    assert caught.value.why == "it has none"


def test_taps_that_are_not_there(made: Path):
    with pytest.raises(LayerError) as caught:
        extracted(made, VIT, layers=["block1.key"])
    assert "block0 to block3 (each also .attn, .keys, .mlp, .norm)" in caught.value.why
    assert "block1.keys" in caught.value.fix
    with pytest.raises(LayerError) as caught:
        extracted(made, "oracle_rgb", layers=["block1.keys"])
    assert caught.value.why == "it has norm"
    with pytest.raises(LayerError) as caught:
        store_of(made).select(f"{VIT}@{plain_key(made)}", layers=["block1.kyes"])
    assert "block1.keys" in caught.value.fix


def test_a_stride_is_a_key_of_its_own(made: Path):
    keys = [k for k in store_of(made).keys() if k.key.encoder == VIT]
    assert sorted(k.stride for k in keys) == [7, 14]
    with pytest.raises(SelectionError, match="2 keys") as caught:
        store_of(made).select(VIT)
    assert "stride" in caught.value.why
    with pytest.raises(StoreMismatchError, match="other settings") as caught:
        store_of(made).select(VIT, stride=2)
    assert "asked 2" in caught.value.why
    assert extracted(made, VIT, layers=["norm"], stride=7).computed == 0
    assert extracted(made, VIT, layers=["1/2"], stride=14).computed == 0


def test_tokens_lie_where_they_look(made: Path):
    features = store_of(made).select(VIT, stride=7)
    (block,) = features.blocks()
    assert block.images().shape[1:3] == (49, 63)
    assert "-p14s7" in features.stored_key.pixels_folder
    (A,) = block.token_from_source_px([0])
    cols, rows = np.meshgrid(np.arange(8), np.arange(6))
    uv_px = (np.stack([cols, rows], -1).reshape(-1, 2) - A[:, 2]) @ np.linalg.inv(A[:, :2]).T
    sampled = features.sample(block.scene, block.names[0], uv_px)["norm"]
    np.testing.assert_allclose(sampled, block.tokens("norm", [0])[0].reshape(48, -1), atol=1e-4)


def test_points_lie_in_the_cells_of_their_tokens(made: Path):
    (block,) = store_of(made).select("oracle_world").blocks()
    points, geometry = block.token_points(), block.geometry()
    world = np.concatenate([points.world, np.ones((*points.world.shape[:3], 1))], -1)
    cam = np.einsum("vij,vrcj->vrci", geometry.cam_from_world[:, :3], world)
    uvw = np.einsum("vij,vrcj->vrci", geometry.K_px, cam)
    cols, rows = np.meshgrid(np.arange(8), np.arange(6))
    centres = np.stack([cols, rows], -1) * 7 + 6.5
    off_px = np.abs(uvw[..., :2] / uvw[..., 2:] - centres)
    # Half a cell; and the size in pixels of the resized image is rounded, the cells of the source are not.
    assert off_px[points.valid].max() <= 3.5 + 0.75
    assert points.valid.mean() > 0.9


def test_the_oracle_is_the_ceiling_with_overlap_too(made: Path, tmp_path: Path):
    config = CorrespondenceConfig(
        store=str(made / "feats.zarr"),
        sets=str(made / "sets.json"),
        encoder="oracle_world",
        protocol=["visible", "voxel", "reference"],
        out=str(tmp_path),
        ranking=False,
        pictures=0,
        resamples=20,
    )
    assert probe(config, Console(quiet=True)) == 0
    records = [Record.from_json(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    found = {(r.protocol, r.metric): r.value for r in records if r.value is not None}
    assert found["voxel", "corr"] > 0.9
    assert found["voxel", "noncorr"] < 0.2
    assert found["visible", "corr"] > 0.5
    assert found["reference", "corr"] > found["reference", "noncorr"] + 0.2
