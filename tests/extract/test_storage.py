"""How layers are stored: what was asked, what is there, or what a few views tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from strata.errors import ShardError
from strata.extract import storage as storage_module
from strata.extract.pack import pack_scenes
from strata.extract.shards import ShardIndex
from strata.extract.storage import Sample, choose_storages, sample_views, undecided
from strata.store.key import FeatureKey, Preprocess

KEY = FeatureKey(encoder="colour", weights="0" * 64, preprocess=Preprocess(grid="aspect:6"))


def test_large_layers_are_bf16(tmp_path):
    sample = Sample(largest={"block0": 16_000.0, "norm": 16_000.5}, views_per_s=1, device="cpu")
    chosen = choose_storages("auto", tmp_path, KEY, ["block0", "norm"], sample)
    assert chosen == {"block0": "f16", "norm": "bf16"}
    assert choose_storages("auto", tmp_path, KEY, ["norm"], None) == {"norm": "f16"}
    assert choose_storages("f32", tmp_path, KEY, ["block0", "norm"], sample) == {
        "block0": "f32",
        "norm": "f32",
    }


def test_what_is_stored_stays_as_it_is(tmp_path):
    for folder in ("norm@bf16", "block0", "block1@f32"):
        (tmp_path / "features" / KEY.folder / "toy.a@00" / folder).mkdir(parents=True)
    sample = Sample(largest={"block0": 1e6, "block1": 1.0, "norm": 1.0}, views_per_s=1, device="cpu")
    chosen = choose_storages("auto", tmp_path, KEY, ["block0", "block1", "norm"], sample)
    assert chosen == {"block0": "f16", "block1": "f32", "norm": "bf16"}
    assert not undecided("auto", tmp_path, KEY, ["block0", "norm"])
    assert undecided("auto", tmp_path, KEY, ["block0", "block2"])
    assert not undecided("f16", tmp_path, KEY, ["block2"])
    other = replace(KEY, compute="bfloat16")
    assert undecided("auto", tmp_path, other, ["norm"])


@pytest.fixture
def scenes(pipeline):
    for k in range(3):
        pipeline.add(f"s{k}", views=5)
    pack_scenes(pipeline.source, pipeline.folder / "shards", shard_bytes=1 << 30)
    return ShardIndex.open(pipeline.folder / "shards").scenes


def test_views_are_sampled_over_all_scenes(scenes, colour, monkeypatch):
    seen, prepare = [], storage_module.prepare

    def noted(scene, view, request):
        seen.append((scene.id, view.position))
        return prepare(scene, view, request)

    monkeypatch.setattr(storage_module, "prepare", noted)
    sample = sample_views(colour(), KEY, ("block0", "norm"), scenes, "cpu")
    assert seen == [
        ("toy/s0", 0), ("toy/s0", 1), ("toy/s0", 3), ("toy/s1", 0),
        ("toy/s1", 2), ("toy/s1", 4), ("toy/s2", 1), ("toy/s2", 3),
    ]  # fmt: skip
    assert 0 < sample.largest["block0"] <= 1
    assert 2 < sample.largest["norm"] <= 3
    assert sample.views_per_s > 0


def test_prefix_tokens_count_and_infinities_are_large(scenes, colour):
    class Registers(colour):
        def forward(self, batch, layers):
            maps = super().forward(batch, layers)
            return {layer: replace(m, prefix=m.prefix * 1e5) for layer, m in maps.items()}

    assert sample_views(Registers(), KEY, ("norm",), scenes, "cpu").largest["norm"] > 16_000
    encoder = colour()
    encoder.poison = lambda tokens: tokens / torch.zeros(())
    assert sample_views(encoder, KEY, ("norm",), scenes, "cpu").largest["norm"] > 1e38


def test_views_that_cannot_be_read_are_passed_over(scenes, colour, monkeypatch):
    prepare = storage_module.prepare

    def broken(scene, view, request):
        if scene.id == "toy/s1":
            raise ShardError("the camera of a view is damaged.")
        return prepare(scene, view, request)

    monkeypatch.setattr(storage_module, "prepare", broken)
    encoder = colour()
    sample_views(encoder, KEY, ("norm",), scenes, "cpu")
    assert sum(encoder.seen) == 5
