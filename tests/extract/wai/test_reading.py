"""WAI scenes: what is read of a sound one."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from strata.errors import SceneError
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_write import write_wai

from .room_folder import ID, SYNTHETIC, change, change_frame, read
from .test_faults import refused


def test_what_was_written_is_read_back(folder):
    scene, origin = read(folder), SYNTHETIC.scene(ID)
    assert (scene.id, scene.scale_type, scene.rules) == (ID, "metric", 1)
    np.testing.assert_array_equal(scene.covisibility, origin.covisibility)
    assert scene.digest == origin.digest
    for view, known in zip(scene.views, origin.views, strict=True):
        assert view.geometry_digest("metric", 1) == known.geometry_digest("metric", 1)
    truth = SYNTHETIC.analytic(ID).views[2]
    decoded = decode_view(scene.views[2])
    np.testing.assert_array_equal(decoded.image, truth.image)
    np.testing.assert_array_equal(decoded.depth_m, truth.depth_m)


def test_writing_again_keeps_the_scene_and_never_replaces_another(folder):
    before = (folder / "scene_meta.json").stat().st_mtime_ns
    write_wai(SYNTHETIC.scene(ID), folder)
    assert (folder / "scene_meta.json").stat().st_mtime_ns == before
    other = SyntheticSource(1, views=4, width=24, height=18, seed=1).scene(ID)
    with pytest.raises(SceneError, match="another scene is at"):
        write_wai(other, folder)
    assert read(folder).digest == SYNTHETIC.scene(ID).digest
    assert [path.name for path in folder.parent.iterdir()] == ["room_0"]


def test_golden_scenes(shared):
    source = WaiSource(shared / "golden" / "wai")
    assert source.ids() == ["blendedmvs/toy_c", "eth3d/toy_a", "eth3d/toy_b", "scannetppv2/toy_d"]
    assert source.splits() == {
        "test/eth3d": ("eth3d/toy_a", "eth3d/toy_b"),
        "val/blendedmvs": ("blendedmvs/toy_c",),
        "val/scannetppv2": ("scannetppv2/toy_d",),
    }
    masked, plain, _, rendered = list(source)
    assert list(masked.views[0].masks) == ["moge2"]
    assert plain.views[0].masks == {}
    assert rendered.views[0].depth.path.parent.name == "rendered_depth"
    np.testing.assert_array_equal(plain.views[0].K_px, [[140, 0, 79.5], [0, 140, 59.5], [0, 0, 1]])
    assert plain.covisibility.shape == (6, 6)
    assert np.allclose(np.diag(plain.covisibility), 1, atol=0.02)


def test_a_mask_takes_depth_away(shared):
    view = WaiSource(shared / "golden" / "wai").scene("blendedmvs/toy_c").views[0]
    decoded = decode_view(view)
    with_mask, without = decoded.valid.sum(), (decode_view(replace(view, masks={})).depth_m > 0).sum()
    assert 0 < with_mask < without


def test_masks_are_written_and_read_for_datasets_that_ask_for_them(shared, tmp_path):
    origin = WaiSource(shared / "golden" / "wai").scene("blendedmvs/toy_c")
    write_wai(origin, tmp_path / "blendedmvs" / "toy_c")
    copy = WaiSource(tmp_path / "blendedmvs").scene("blendedmvs/toy_c")
    assert copy.views[0].masks["moge2"].sha256 == origin.views[0].masks["moge2"].sha256
    shutil.move(tmp_path / "blendedmvs", tmp_path / "eth3d")
    assert WaiSource(tmp_path / "eth3d").scene("eth3d/toy_c").views[0].masks == {}


def test_the_frame_says_more_than_the_scene(folder):
    def edit(meta):
        meta.update(fl_x=50.0, fl_y=60.0, cx=11.0, cy=9.0)
        del meta["frames"][0]["fl_x"], meta["frames"][0]["cy"]

    change(folder, edit)
    K = read(folder).views[0].K_px
    truth = SYNTHETIC.analytic(ID).views[0].K_px
    assert (K[0, 0], K[1, 1], K[0, 2], K[1, 2]) == (50, truth[1, 1], truth[0, 2], 9)


def test_only_images_are_needed(folder):
    def edit(meta):
        for frame in meta["frames"]:
            for key in ("depth", "transform_matrix", "fl_x", "fl_y", "cx", "cy"):
                del frame[key]
        del meta["frame_modalities"], meta["scene_modalities"]

    change(folder, edit)
    shutil.rmtree(folder / "covisibility")
    scene = read(folder)
    assert scene.covisibility is None
    assert not any(view.depth or view.has_geometry for view in scene.views)


def test_linked_images_are_followed(folder, tmp_path):
    image = folder / "images" / "0000.png"
    target = tmp_path / "raw.png"
    image.rename(target)
    image.symlink_to(target)
    assert decode_view(read(folder).views[0]).image.shape == (18, 24, 3)


def test_zero_distortion_is_a_pinhole(folder):
    change_frame(folder, k1=0.0, p2=0)
    assert read(folder).views[1].K_px is not None
    change_frame(folder, camera_model="OPENCV")
    assert read(folder).views[1].K_px is not None


def test_distortion_of_the_scene_holds_for_every_frame_that_says_nothing_else(folder):
    change(folder, lambda meta: meta.update(k1=0.1))
    for number in range(4):
        change_frame(folder, number, k1=0.0)
    assert read(folder).views[0].has_geometry
    change_frame(folder, 2, k1=None)
    error = refused(folder)
    assert "non-zero k1" in error.why
    assert "frame 0002" in error.where


def test_names_with_dots_are_welcome(tmp_path):
    folder = tmp_path / "my.data" / "room.v1.2"
    write_wai(SYNTHETIC.scene(ID), folder)
    change_frame(folder, 0, frame_name="0000.left.crop")
    change(folder, lambda meta: meta.update(scene_name="room.v1.2"))
    scene = WaiSource(tmp_path).scene("my.data/room.v1.2")
    assert scene.views[0].name == "0000.left.crop"
