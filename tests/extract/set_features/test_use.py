"""Features of whole view sets, found again: selections, scores, trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.configs.schema import CorrespondenceConfig, TrainVGGTConfig
from strata.errors import ConfigError, ProbeError, SelectionError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.registry import create
from strata.probes.correspondence import Correspondence, run
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet
from strata.train.data import open_data

from .together import WORDS, extract, sets_file, view_sets


def test_sets_are_chosen_by_themselves(rooms):
    extract(rooms, "a:012", "a:210", "b:10")
    store, (first, turned, other) = FeatureStore.open(rooms.root), view_sets(rooms, "a:012", "a:210", "b:10")
    chosen = store.select("together", sets=[turned])
    assert [block.names for block in chosen.blocks()] == [("002", "001", "000")]
    assert len(store.select("together", sets=[first, other])) == 5
    missing = replace(first, members=("000", "001"), images=first.images[:2])
    assert store.select("together").of_set(missing) is None
    with pytest.raises(SelectionError):
        store.select("together", sets=[missing])
    uv = np.array([[3.0, 4.0]])
    with pytest.raises(SelectionError, match="is in 2 of the selected sets"):
        store.select("together").sample("toy/a", "000", uv)
    assert chosen.sample("toy/a", "000", uv)["norm"].shape == (1, 3)


def test_a_set_is_scored_on_its_own_features(rooms):
    extract(rooms, "a:012", "a:210", "a:123")
    features, sets = (
        FeatureStore.open(rooms.root).select("together"),
        view_sets(rooms, "a:012", "a:210", "a:123"),
    )

    def scores(selection, some: list[ViewSet]) -> dict[tuple[str, str, str], float | None]:
        probe = Correspondence({"toy/a": some}, [VoxelProtocol(edge=VoxelEdge(size=0.1))], ranking=False)
        return {(r.set, r.layer, r.metric): r.value for r in probe.evaluate(selection)}

    alone = [scores(features.of_set(one), [one]) for one in sets]
    assert scores(features, sets) == {key: value for part in alone for key, value in part.items()}
    assert len({part[one.digest[:16], "norm", "noncorr"] for part, one in zip(alone, sets, strict=True)}) > 1


def test_training_takes_no_features_of_whole_sets(rooms):
    extract(rooms, "a:012")
    words = {"source": "store", "store": str(rooms.root), "encoder": "together", "layer": "norm"}
    with pytest.raises(ConfigError, match="together cannot be the patch embedding of VGGT"):
        open_data(TrainVGGTConfig(out=str(rooms.folder / "run"), **words), print)


def test_vggt_from_shards_to_scores(rooms, console, tmp_path: Path):
    chosen = ("a:012", "a:123", "b:10")
    encoder = create("vggt_tiny_demo", "random:0")
    words = {
        **WORDS,
        "layers": ["patch_embed", "frame0", "1/2", "last"],
        "grid": "aspect:4",
        "storage": "f32",
    }
    summary, _ = extract(rooms, *chosen, encoder=encoder, **words)
    assert (summary.views, summary.failed) == (8, 0)
    store = FeatureStore.open(rooms.root)
    features = store.select("vggt_tiny_demo")
    assert (features.layers, features.key.context) == (("patch_embed", "frame0", "global0", "norm"), "set")
    for one in view_sets(rooms, *chosen):
        (block,) = features.of_set(one).blocks()
        assert block.prefix_names("norm") == ("camera", "reg0", "reg1")
        images = torch.from_numpy(block.images()).permute(0, 3, 1, 2)[None] / 255
        maps = encoder.forward(ViewBatch(images=images, grid=block.grid), features.layers)
        for layer in features.layers:
            np.testing.assert_allclose(block.tokens(layer), maps[layer].tokens[0].numpy(), atol=1e-5)
            np.testing.assert_allclose(block.prefix(layer), maps[layer].prefix[0].numpy(), atol=1e-5)
    config = CorrespondenceConfig(store=str(rooms.root), out=str(tmp_path / "run"), protocol=["voxel"])
    assert run(config, console) == 0
    assert "vggt_tiny_demo" in console.file.getvalue()


def test_sets_that_were_not_extracted_come_with_the_command_that_adds_them(rooms, console, tmp_path: Path):
    encoder = create("vggt_tiny_demo", "random:0")
    extract(rooms, "a:012", encoder=encoder, weights="random:0", layers=["last"], grid="aspect:6")
    others, store = sets_file(rooms, "b:012"), FeatureStore.open(rooms.root)
    command = (
        f"strata extract run shards={rooms.folder / 'shards'} store={rooms.root} encoder=vggt_tiny_demo "
        f"weights=random:0 grid=aspect:6 compute=float32 sets={others}"
    )
    with pytest.raises(SelectionError, match="for these view sets") as caught:
        store.select("vggt_tiny_demo", sets=others)
    assert command in caught.value.fix
    words = {"store": str(rooms.root), "sets": others, "protocol": ["voxel"], "ranking": False, "pictures": 0}
    with pytest.raises(ProbeError, match="no view set") as refused:
        run(CorrespondenceConfig(**words, out=str(tmp_path / "none")), console)
    assert refused.value.fix == command
    both = sets_file(rooms, "a:012", "a:123")
    words |= {"sets": both, "out": str(tmp_path / "some"), "resamples": 5}
    assert run(CorrespondenceConfig(**words), console) == 0
    added = f"to add these sets: {command.partition(' sets=')[0]} sets={both}\n"
    assert added in console.file.getvalue()
