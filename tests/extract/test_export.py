"""Exports hold what the store holds, in files that other programs read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from strata.configs.schema import ExportConfig
from strata.errors import ConfigError, SelectionError, StoreError
from strata.extract.export.command import export
from strata.extract.scenes.colmap import ColmapSource
from strata.store.feature_store import FeatureStore
from webdataset.compat import WebDataset


@pytest.fixture
def filled(pipeline, new_view):
    for name in ("a", "b"):
        pipeline.add(name)
    upright = [new_view("p", np.random.default_rng(1), 16, 24)]
    pipeline.change("b", lambda views: [*views, *upright])
    pipeline.extract()
    return pipeline


def run(pipeline, console, **words):
    words = {"store": str(pipeline.root), "encoder": "colour", "out": str(pipeline.folder / "out"), **words}
    assert export(ExportConfig(**words), console) == 0
    return pipeline.folder / "out"


def select(pipeline, **words):
    return FeatureStore.open(pipeline.root).select("colour", **words)


FIELDS = ["tokens", "prefix", "depth_m", "token_valid"]


def test_npz(filled, console):
    out = run(filled, console, fields=FIELDS)
    assert {str(p.relative_to(out)) for p in out.rglob("*.*")} == {
        "export.json", "toy/a.4x6.npz", "toy/b.4x6.npz", "toy/b.6x4.npz"
    }  # fmt: skip
    with np.load(out / "toy" / "b.4x6.npz") as file:
        assert set(file) == {
            "views", "block0", "norm", "block0.prefix", "norm.prefix", "depth_m", "token_valid"
        }  # fmt: skip
        expected = select(filled, scene="b").read(file["views"].tolist(), FIELDS)
        assert list(expected.views) == [f"toy/b/00{k}" for k in range(3)]
        np.testing.assert_array_equal(file["norm"], expected.tokens["norm"])
        np.testing.assert_array_equal(file["block0.prefix"], expected.prefix["block0"])
        np.testing.assert_array_equal(file["depth_m"], expected.depth_m)
    about = json.loads((out / "export.json").read_text())
    assert (about["selection"], about["views"]) == (select(filled).fingerprint, 7)


@pytest.mark.parametrize("storage", ["f16", "bf16"])
def test_safetensors_are_as_stored(filled, console, storage):
    filled.extract(storage=storage)
    out = run(filled, console, format="safetensors", storage=storage, scene="a", layers=["norm"])
    with safe_open(out / "toy" / "a.4x6.safetensors", "pt") as file:
        assert json.loads(file.metadata()["views"]) == [f"toy/a/00{k}" for k in range(3)]
        (expected,) = select(filled, storage=storage, scene="a", layers=["norm"]).to_torch()
        assert list(file.keys()) == ["norm"]
        found = file.get_tensor("norm")
        assert found.dtype == (torch.float16 if storage == "f16" else torch.bfloat16)
        assert torch.equal(found, expected.tokens["norm"])


def test_webdataset(filled, console):
    out = run(filled, console, format="webdataset", fields=["tokens", "image"], scene="b")
    url = str(out / "toy" / "b.4x6.tar")
    samples = list(WebDataset(url, shardshuffle=False, empty_check=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"toy/b/00000{k}" for k in range(3)]
    expected = select(filled, scene="b").read([f"toy/b/00{k}" for k in range(3)], ["tokens", "image"])
    for k, sample in enumerate(samples):
        assert sample["json"]["view"] == f"toy/b/00{k}"
        np.testing.assert_array_equal(sample["norm.npy"], expected.tokens["norm"][k])
        np.testing.assert_array_equal(sample["image.npy"], expected.image[k])


def test_colmap_is_read_back_as_scenes(filled, console):
    filled.change("a", lambda views: [views[0], replace(views[1], K_px=None, depth=None), views[2]])
    filled.extract(storage="f16")
    out = run(filled, console, format="colmap", scene="a")
    assert "left out 1 view " in console.file.getvalue()
    (scene,) = [ColmapSource(out).scene(one) for one in ColmapSource(out).ids()]
    (stored,) = select(filled, scene="a").load(
        ["tokens", "K_px", "cam_from_world", "image", "token_point_world"]
    )
    assert [view.name for view in scene.views] == ["000", "002"]
    for view, k in zip(scene.views, (0, 2), strict=True):
        np.testing.assert_allclose(view.K_px, stored.K_px[k], atol=1e-12)
        np.testing.assert_allclose(np.linalg.inv(view.world_from_cam), stored.cam_from_world[k], atol=1e-12)
        folder = out / "toy" / "a.4x6"
        with np.load(folder / "features" / f"{view.name}.npz") as file:
            np.testing.assert_array_equal(file["norm"].reshape(4, 6, 3), stored.tokens["norm"][k])
            keypoints_px = file["keypoints_px"]
        # A point seen from its camera falls on its token, where the image has its colour.
        lines = (folder / "sparse" / "0" / "points3D.txt").read_text().splitlines()[1:]
        points = np.array([line.split() for line in lines], float)
        mine = points[points[:, 8] == [0, 2].index(k) + 1]
        assert len(mine) == 24
        np.testing.assert_allclose(mine[:, 1:4], stored.token_point_world[k].reshape(-1, 3), rtol=1e-6)
        cam = mine[:, 1:4] @ stored.cam_from_world[k][:3, :3].T + stored.cam_from_world[k][:3, 3]
        uv_px = (cam @ stored.K_px[k].T)[:, :2] / cam[:, 2:]
        seen_px = keypoints_px[mine[:, 9].astype(int)]
        assert np.abs(uv_px + 0.5 - seen_px).max() <= 2
        u, v = seen_px.astype(int).T
        np.testing.assert_array_equal(mine[:, 4:7], stored.image[k][v, u])


def test_again_writes_what_is_missing(filled, console):
    out = run(filled, console)
    kept, lost = out / "toy" / "a.4x6.npz", out / "toy" / "b.6x4.npz"
    before, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    run(filled, console)
    assert "2 of 3 were there already" in console.file.getvalue()
    assert lost.read_bytes() == before
    assert kept.stat().st_mtime_ns == stamp


def test_another_export_is_not_mixed_in(filled, console):
    out = run(filled, console)
    with pytest.raises(StoreError, match="another export") as caught:
        run(filled, console, layers=["norm"])
    assert "layers" in caught.value.why
    run(filled, console, layers=["norm"], overwrite=True)
    with np.load(out / "toy" / "a.4x6.npz") as file:
        assert set(file) == {"views", "norm"}
    mine = filled.folder / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="no export"):
            run(filled, console, out=str(mine), overwrite=overwrite)
    assert (mine / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("words", "error", "what"),
    [
        ({"format": "npy"}, ConfigError, "format=npy"),
        ({"fields": ["depth"]}, SelectionError, "no field 'depth'"),
        ({"scene": "z"}, SelectionError, "no view fits"),
    ],
)
def test_what_cannot_be_exported(filled, console, words, error, what):
    with pytest.raises(error, match=what):
        run(filled, console, **words)
    assert not (filled.folder / "out").exists()


def test_scenes_without_cameras_are_no_model(filled, console):
    filled.change("a", lambda views: [replace(view, K_px=None, depth=None) for view in views])
    filled.extract()
    with pytest.raises(SelectionError, match="no view of the scene has a camera"):
        run(filled, console, format="colmap", scene="a")
