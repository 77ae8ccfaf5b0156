"""Jobs done by a worker in this process: the bytes of a local run, and what a worker refuses."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from strata.configs.schema import ExtractConfig
from strata.errors import ClusterError, SceneError
from strata.extract import groups, ray_run
from strata.extract.pack import pack_scenes
from strata.extract.prepare import prepare
from strata.extract.ray_worker import RemoteWorker
from strata.extract.run import Summary, extract
from strata.store.feature_store import FeatureStore
from strata.store.group import StoredGroup

NODE = {"Alive": True, "Resources": {"CPU": 2}}


class HereCrew:
    """A crew of one, without Ray; it may be told something else than the driver says."""

    told: ClassVar[dict] = {}

    def __init__(self, ray, shape, setup, foreman) -> None:
        self.setup, self.foreman = replace(setup, **self.told), foreman

    def run(self) -> None:
        worker = RemoteWorker()
        self.foreman.started(worker.open(self.setup))
        while (job := self.foreman.take(())) is not None:
            self.foreman.done(job, worker.work(job))


@pytest.fixture
def shards(pipeline, monkeypatch) -> Path:
    monkeypatch.setattr(ray_run, "session", lambda *_: nullcontext(SimpleNamespace(nodes=lambda: [NODE])))
    monkeypatch.setattr(ray_run, "Crew", HereCrew)
    monkeypatch.setattr(HereCrew, "told", {})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pipeline.add("a", views=5)
    pipeline.add("b", views=3, size=(16, 24))
    pack_scenes(pipeline.source, pipeline.folder / "shards", shard_bytes=1 << 30)
    return pipeline.folder / "shards"


def run(shards: Path, store: str, **words) -> Summary:
    usual = {"encoder": "oracle_world", "grid": "aspect:6", "unit_views": 2, "batch": 2}
    paths = {"shards": str(shards), "store": str(shards.parent / store)}
    return extract(ExtractConfig(**{**usual, **paths, **words}))


@pytest.mark.parametrize(
    ("encoder", "views"), [("oracle_world", "all"), ("oracle_world", "none"), ("oracle_rgb", "geometry")]
)
def test_the_bytes_are_those_of_a_local_run(shards: Path, tree, encoder: str, views: str):
    local = run(shards, "local.zarr", encoder=encoder, views=views)
    ray = run(shards, "ray.zarr", encoder=encoder, views=views, backend="ray")
    assert (ray.computed, ray.bytes) == (local.computed, local.bytes) == (8, local.bytes)
    assert tree(shards.parent / "ray.zarr") == tree(shards.parent / "local.zarr")


def test_whole_sets_are_encoded_as_in_a_local_run(shards: Path, tree):
    words = {"encoder": "vggt_tiny_demo", "weights": "random:0", "set_views": 2, "unit_views": 3}
    local = run(shards, "local.zarr", **words)
    ray = run(shards, "ray.zarr", backend="ray", **words)
    assert ray.computed == local.computed > 4
    assert tree(shards.parent / "ray.zarr") == tree(shards.parent / "local.zarr")


def test_units_of_pixels_may_be_of_another_size(shards: Path, tree, monkeypatch):
    monkeypatch.setattr(groups, "unit_views", lambda view_bytes: 3 if view_bytes > 10_000 else 2)
    words = {"encoder": "oracle_rgb", "unit_views": None}
    run(shards, "local.zarr", **words)
    summary = run(shards, "ray.zarr", backend="ray", **words)
    assert summary.computed == 8
    assert tree(shards.parent / "ray.zarr") == tree(shards.parent / "local.zarr")
    stored = {path.parent.name: path for path in (shards.parent / "ray.zarr").glob("*/*/toy.a@*/*/c.1.*")}
    assert stored.keys() == {
        "image",
        "depth_m",
        "valid",
        "token_point_world",
        "token_valid",
        "token_spread_m",
    }
    assert not list((shards.parent / "ray.zarr").glob("pixels/*/toy.a@*/*/c.2.*"))
    assert list((shards.parent / "ray.zarr").glob("features/*/toy.a@*/norm/tokens/c.2.*"))


def test_failed_views_are_named_and_tried_again(shards: Path, tree, monkeypatch):
    run(shards, "local.zarr")

    def failing(scene, view, request):
        if (scene.id, view.name) == ("toy/a", "003"):
            raise SceneError("the image is torn.")
        return prepare(scene, view, request)

    with monkeypatch.context() as patch:
        patch.setattr("strata.extract.bundle_pass.prepare", failing)
        summary = run(shards, "ray.zarr", backend="ray")
    root = shards.parent / "ray.zarr"
    assert (summary.failed, summary.computed) == (1, 8)
    reasons = [p.read_text() for p in (root / "runs").glob(f"{summary.run}.*-*.json")]
    assert len(reasons) == 1
    assert "the image is torn." in reasons[0]
    missing = [
        StoredGroup(path.parent).array_attributes("tokens")["missing"]
        for path in root.glob("features/*/*/*/tokens")
    ]
    assert {"3": "the image is torn."} in missing
    again = run(shards, "ray.zarr", backend="ray", retry="failed")
    assert again.failed == 0
    features = {name: path for name, path in tree(root).items() if name.startswith("features/")}
    assert features == {
        name: path
        for name, path in tree(shards.parent / "local.zarr").items()
        if name.startswith("features/")
    }


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({"nonce": "another", "patience_s": 0.0}, r"node \S+ does not see the store"),
        ({"index": "0" * 64}, r"node \S+ does not see the shards"),
    ],
)
def test_another_folder_is_refused(shards: Path, monkeypatch, told: dict, what: str):
    monkeypatch.setattr(HereCrew, "told", told)
    with pytest.raises(ClusterError, match=what) as caught:
        run(shards, "ray.zarr", backend="ray")
    assert caught.value.where in (str(shards), str(shards.parent / "ray.zarr"))
    assert "shared file system" in caught.value.fix
    assert not FeatureStore.open(shards.parent / "ray.zarr").keys()


def test_other_weights_are_refused(shards: Path, monkeypatch):
    key = run(shards, "local.zarr").key
    monkeypatch.setattr(HereCrew, "told", {"key": replace(key, weights="e" * 64)})
    with pytest.raises(ClusterError, match=r"node \S+ has other weights of oracle_world"):
        run(shards, "ray.zarr", backend="ray")
