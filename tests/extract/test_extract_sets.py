"""Features of whole view sets, from shards to scores: encoded together, stored, reused and found again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from strata.configs.schema import CorrespondenceConfig, TrainVGGTConfig
from strata.errors import ConfigError, ProbeError, SceneError, SelectionError, SetsError
from strata.extract import bundle_pass
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from strata.extract.encoders.registry import create
from strata.extract.scenes.scene import Blob
from strata.probes.correspondence import Correspondence, run
from strata.probes.voxel_protocol import VoxelEdge, VoxelProtocol
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet
from strata.store.view_sets import read_sets, write_sets
from strata.train.data import open_data


class Together(Encoder):
    """Mean colour of each cell minus that of the set; remembers what it saw, and can be made to fail."""

    info = EncoderInfo(name="together", patch_size=4, depth=1, context="set")

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.poisoned = False

    def width(self, layer: str) -> int:
        return 3

    def layers(self) -> tuple[str, ...]:
        return ("frame0", "global0", "norm")

    def prefix_names(self) -> tuple[str, ...]:
        return ("camera",)

    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        self.seen.append(tuple(batch.images.shape[:2]))
        rows, cols = batch.grid
        cells = batch.images.unflatten(-1, (cols, 4)).unflatten(-3, (rows, 4)).mean((-1, -3))
        tokens = (cells - cells.mean((1, 3, 4), keepdim=True)).permute(0, 1, 3, 4, 2)
        if self.poisoned:
            tokens = torch.where(torch.arange(tokens.shape[1])[:, None, None, None] == 1, torch.inf, tokens)
        prefix = tokens.mean((2, 3))[:, :, None]
        return {name: FeatureMap(tokens=tokens, prefix=prefix, prefix_names=("camera",)) for name in layers}

    def weights_digest(self) -> str:
        return "1" * 64

    def to(self, device: Any, dtype: torch.dtype) -> Encoder:
        return self


WORDS: dict[str, Any] = {"layers": ["global0", "norm"], "unit_views": None, "batch": 4}


@pytest.fixture
def rooms(pipeline) -> Any:
    pipeline.add("a", views=5)
    pipeline.add("b", views=4, seed=1)
    return pipeline


def view_sets(rooms, *chosen: str) -> list[ViewSet]:
    """Sets of views by number: `a:031` is scene toy/a, frames 000, 003 and 001."""
    images = {}
    for scene in rooms.source.scenes.values():
        images |= {(scene.id, view.name): digest(view.image) for view in scene.views}
    made = []
    for one in chosen:
        name, _, numbers = one.partition(":")
        scene, members = f"toy/{name}", tuple(f"00{k}" for k in numbers)
        made.append(ViewSet(scene=scene, members=members, images=tuple(images[scene, m] for m in members)))
    return made


def digest(image: Blob) -> str:
    return hashlib.sha256(image.read()).hexdigest()


def sets_file(rooms, *chosen: str) -> str:
    path = rooms.folder / f"{'-'.join(chosen).replace(':', '')}.json"
    write_sets(path, view_sets(rooms, *chosen), sampler={"by": "hand"})
    return str(path)


def extract(rooms, *chosen: str, encoder: Encoder | None = None, **words: Any) -> tuple[Any, Together]:
    encoder = encoder or Together()
    words = {**WORDS, **({"sets": sets_file(rooms, *chosen)} if chosen else {}), **words}
    return rooms.extract(encoder, **words), encoder  # type: ignore[return-value]


def tokens_of(rooms, one: ViewSet, layer: str = "norm") -> np.ndarray:
    part = FeatureStore.open(rooms.root).select("together").of_set(one)
    (block,) = part.blocks()
    assert block.names == one.members
    return block.tokens(layer)


def expected(rooms, one: ViewSet) -> np.ndarray:
    """Straight from the stored images of these views, encoded together."""
    store = FeatureStore.open(rooms.root)
    (block,) = store.select("together").of_set(one).blocks()
    images = torch.from_numpy(block.images()).permute(0, 3, 1, 2)[None] / 255
    return Together().forward(ViewBatch(images=images, grid=block.grid), ("norm",))["norm"].tokens[0].numpy()


def test_views_are_encoded_with_those_of_their_set(rooms):
    chosen = ("a:012", "a:204", "b:10", "b:0123")
    summary, encoder = extract(rooms, *chosen)
    assert (summary.views, summary.computed, summary.failed) == (12, 12, 0)
    # Sets of one size share a batch of four views at most; the first forward looks at values.
    assert sorted(encoder.seen[-4:]) == [(1, 2), (1, 3), (1, 3), (1, 4)]
    for one in view_sets(rooms, *chosen):
        np.testing.assert_allclose(tokens_of(rooms, one), expected(rooms, one), atol=1e-3)
    a_view_in_two_sets = [
        tokens_of(rooms, one)[one.members.index("002")] for one in view_sets(rooms, *chosen[:2])
    ]
    assert np.abs(a_view_in_two_sets[0] - a_view_in_two_sets[1]).max() > 0.01


def test_sets_of_one_size_share_bundles_and_batches(rooms):
    chosen = ("a:01", "a:12", "b:01", "b:32", "b:20")
    _, encoder = extract(rooms, *chosen)
    bundles = [b for b in FeatureStore.open(rooms.root).catalog.bundles.values() if b.sets]
    assert [(len(b), b.together, len(b.sets)) for b in bundles] == [(10, 2, 5)]
    assert encoder.seen[-3:] == [(2, 2), (2, 2), (1, 2)]


@pytest.mark.parametrize("unit_views", [1, 3, 4])
def test_no_unit_ends_inside_a_set(rooms, unit_views: int):
    extract(rooms, "a:012", "a:123", "b:012", unit_views=unit_views)
    (folder,) = rooms.root.glob("features/*/*/norm/tokens")
    assert len(list(folder.glob("c.*"))) == 3


def test_the_same_command_again_computes_nothing(rooms, tree):
    extract(rooms, "a:012", "b:10")
    before = tree(rooms.root)
    summary, encoder = extract(rooms, "a:012", "b:10")
    assert (summary.computed, encoder.seen, tree(rooms.root)) == (0, [], before)


def test_only_new_sets_are_encoded(rooms):
    extract(rooms, "a:012", "a:123")
    summary, encoder = extract(rooms, "a:123", "a:234")
    assert summary.computed == 3
    assert encoder.seen == [(1, 3)]
    for one in view_sets(rooms, "a:012", "a:123", "a:234"):
        np.testing.assert_allclose(tokens_of(rooms, one), expected(rooms, one), atol=1e-3)


def test_a_layer_added_later_joins_the_same_bundle(rooms):
    extract(rooms, "a:012", "b:10")
    summary, _ = extract(rooms, "a:012", "b:10", layers=["frame0"])
    assert summary.computed == 5
    features = FeatureStore.open(rooms.root).select("together")
    assert features.layers == ("frame0", "global0", "norm")


def test_views_alone_and_in_sets_live_side_by_side(rooms, colour):
    rooms.extract(colour())
    extract(rooms, "a:012", "b:10")
    store = FeatureStore.open(rooms.root)
    assert len(store.select("colour")) == 9
    assert len(store.select("together")) == 5
    labels = [str(name) for name in _labels(rooms.root, "together")]
    assert len(set(labels)) == 5
    assert all("@" in name for name in labels)


def _labels(root: Path, encoder: str) -> list[str]:
    found = []
    for bundle in root.glob(f"features/{encoder}@*/*"):
        if bundle.is_dir():
            found += list(zarr.open_array(bundle / "view", mode="r")[:])
    return found


def test_sets_are_sampled_where_none_are_given(rooms):
    summary, _ = extract(rooms, set_views=2, set_count=3)
    (name,) = FeatureStore.open(rooms.root).set_names()
    kept = read_sets(rooms.root / "sets" / f"{name}.json")
    assert summary.views == 2 * len(kept) > 0
    for one in kept:
        assert tokens_of(rooms, one).shape == (2, 4, 6, 3)


def test_a_broken_view_takes_its_set_with_it_and_no_other(rooms, monkeypatch, tree):
    prepare = bundle_pass.prepare

    def broken(scene, view, request):
        if (scene.id, view.name) == ("toy/a", "001"):
            raise SceneError("the image cannot be decoded.", where="here")
        return prepare(scene, view, request)

    monkeypatch.setattr(bundle_pass, "prepare", broken)
    summary, encoder = extract(rooms, "a:01", "a:23", storage="f16")
    assert (summary.failed, summary.computed, encoder.seen) == (2, 4, [(1, 2)])
    features = FeatureStore.open(rooms.root).select("together")
    assert features.left_out == {
        "toy/a/000": "001, a view of its set, cannot be used: the image cannot be decoded.",
        "toy/a/001": "the image cannot be decoded.",
    }
    assert [block.names for block in features.blocks()] == [(), ("002", "003")]
    monkeypatch.undo()
    summary, encoder = extract(rooms, "a:01", "a:23", storage="f16", retry="failed")
    assert (summary.failed, summary.computed, encoder.seen) == (0, 2, [(1, 2)])
    repaired, rooms.store = tree(rooms.root / "features"), "whole.zarr"
    extract(rooms, "a:01", "a:23", storage="f16")
    assert tree(rooms.root / "features") == repaired


def test_a_view_whose_numbers_do_not_fit_is_missing_alone(rooms):
    encoder = Together()
    encoder.poisoned = True
    summary, _ = extract(rooms, "a:01", "a:23", encoder=encoder, storage="f16")
    assert summary.failed == 2
    features = FeatureStore.open(rooms.root).select("together")
    assert [block.names for block in features.blocks()] == [("000",), ("002",)]
    assert set(features.left_out) == {"toy/a/001", "toy/a/003"}
    summary, encoder = extract(rooms, "a:01", "a:23", storage="f16", retry="failed")
    assert (summary.failed, summary.computed, encoder.seen) == (0, 2, [(2, 2)])
    for one in view_sets(rooms, "a:01", "a:23"):
        np.testing.assert_allclose(tokens_of(rooms, one), expected(rooms, one), atol=1e-3)


def test_a_scene_that_grew_keeps_the_sets_that_it_had(rooms, new_view):
    extract(rooms, "a:012", "b:10")
    rooms.change("a", lambda views: [*views, new_view("009", np.random.default_rng(9), 24, 16, 5)])
    summary, encoder = extract(rooms, "a:012", "b:10")
    assert (summary.computed, encoder.seen) == (0, [])
    assert len(FeatureStore.open(rooms.root).select("together")) == 5


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


def test_mixed_orientations_need_one_grid(pipeline, new_view):
    pipeline.add("a", views=3)
    pipeline.change("a", lambda views: [*views, new_view("009", np.random.default_rng(9), 16, 24, 4)])
    pipeline.source.scenes["toy/a"] = replace(
        pipeline.source.scenes["toy/a"], covisibility=np.ones((4, 4), np.float32)
    )
    with pytest.raises(SetsError, match="several token grids") as caught:
        pipeline.extract(Together(), **WORDS, set_views=4, set_count=2)
    assert "orient=scene" in caught.value.fix
    summary = pipeline.extract(Together(), **WORDS, set_views=4, set_count=2, orient="scene")
    assert summary.views > 0


def test_scenes_without_covisibility_need_sets(rooms):
    for name, scene in rooms.source.scenes.items():
        rooms.source.scenes[name] = replace(scene, covisibility=None)
    with pytest.raises(SetsError, match="no view sets to encode") as caught:
        extract(rooms)
    assert "sets=FILE" in caught.value.fix
    assert extract(rooms, "a:012")[0].views == 3


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
        f"strata extract run shards=... store={rooms.root} encoder=vggt_tiny_demo weights=random:0 "
        f"grid=aspect:6 compute=float32 sets={others}"
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
    assert f"to add these sets: strata extract run shards=... store={rooms.root} " in console.file.getvalue()
    assert f" sets={both}\n" in console.file.getvalue()
