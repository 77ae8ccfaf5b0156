"""Views made ready for encoders and writers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strata.errors import ShardError
from strata.extract.pack import pack_scenes
from strata.extract.prepare import Request, placed_camera, prepare, unknown_camera
from strata.extract.scenes.scene import Blob
from strata.extract.shards import ShardIndex
from strata.store.key import Preprocess

REQUEST = Request(preprocess=Preprocess(), grid=(4, 6), patch=4, points=True, depth=True)


@pytest.fixture
def packed(pipeline):
    def pack(edit=lambda views: views):
        pipeline.add("a", views=2, size=(30, 16))
        pipeline.change("a", edit)
        pack_scenes(pipeline.source, pipeline.folder / "shards", shard_bytes=1 << 30)
        return ShardIndex.open(pipeline.folder / "shards").scenes[0]

    return pack


def test_a_whole_view(packed):
    scene = packed()
    view = prepare(scene, scene.views[1], REQUEST)
    assert REQUEST.target == (16, 24)
    assert view.image.shape == (16, 24, 3)
    assert view.depth_m is not None
    assert view.valid is not None
    assert view.points is not None
    np.testing.assert_allclose(view.depth_m, 2.1, rtol=1e-3)
    assert view.valid.all()
    np.testing.assert_allclose(view.points.world[..., 2], 2.1, rtol=1e-3)
    assert view.scene_scale_m == pytest.approx(2.05, abs=0.06)
    # 30 x 16 is cut to 24 x 16: three columns at each side.
    np.testing.assert_allclose(view.camera.K_px, [[20, 0, 11.5], [0, 20, 7.5], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(view.camera.token_from_source_px @ [4.5, 1.5, 1], [0, 0], atol=1e-6)
    assert view.camera.cam_from_world[0, 3] == pytest.approx(-0.1)


def test_only_what_is_wanted_is_made(packed):
    scene = packed()
    view = prepare(scene, scene.views[0], replace(REQUEST, points=False, depth=False))
    assert (view.depth_m, view.valid, view.points) == (None, None, None)


def test_views_without_depth_or_camera(packed):
    scene = packed(lambda views: [replace(views[0], depth=None), replace(views[1], world_from_cam=None)])
    first, second = (prepare(scene, view, REQUEST) for view in scene.views)
    assert (first.depth_m, first.points) == (None, None)
    assert np.isfinite(first.camera.cam_from_world).all()
    assert second.depth_m is not None
    assert second.points is None
    assert np.isnan(second.camera.cam_from_world).all()
    assert np.isfinite(second.camera.token_from_source_px).all()


def test_cameras_need_no_image(packed, monkeypatch):
    scene = packed()
    whole = prepare(scene, scene.views[1], REQUEST).camera
    monkeypatch.setattr("strata.extract.prepare.decode_view", None)
    alone = placed_camera(scene.views[1], REQUEST)
    for name in ("K_px", "cam_from_world", "token_from_source_px"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole, name))
        assert np.isnan(getattr(unknown_camera(), name)).all()
        assert getattr(unknown_camera(), name).shape == getattr(whole, name).shape


def test_an_image_other_than_the_packed_one_is_refused(packed):
    scene = packed()
    broken = replace(scene.views[0], image=Blob(suffix="png", data=b"no picture"))
    with pytest.raises(ShardError, match="damaged"):
        prepare(scene, broken, REQUEST)
