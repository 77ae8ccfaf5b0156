"""COLMAP models are read back as the room that they are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from strata.extract.scenes.agreement import scene_agreement
from strata.extract.scenes.check import check_scene
from strata.extract.scenes.colmap import ColmapSource
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.open import open_scenes

from ..compared import known
from .room_model import ID, ROOM, SHARES, Model, read, write_binary, write_text


def test_a_room_comes_back(folder, write):
    write(folder / "sparse" / "0", Model())
    scene = read(folder)
    assert [view.name for view in scene.views] == ["a", "b", "c"]
    assert scene.scale_type == "colmap"
    for view, truth in zip(scene.views, ROOM.views, strict=True):
        np.testing.assert_allclose(known(view.K_px), truth.K_px, rtol=0, atol=1e-9)
        np.testing.assert_allclose(known(view.world_from_cam), truth.world_from_cam, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(decode_view(view).image, truth.image)
        assert view.depth is None


@pytest.mark.parametrize("part", ["sparse/0", "sparse", "."])
def test_where_a_model_may_lie(folder, write, part):
    write(folder / part, Model())
    for path in (folder, folder.parent, folder.parent.parent):
        source = open_scenes(path)
        assert isinstance(source, ColmapSource)
        assert source.ids() == [ID]
    assert len(open_scenes(folder).scene(ID)) == 3


@pytest.mark.parametrize("camera", ["SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"])
def test_other_models_without_distortion(folder, write, camera):
    write(folder, Model(camera=camera))
    K_px = read(folder).views[1].K_px
    truth = ROOM.views[1].K_px.copy()
    if camera in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        truth[1, 1] = truth[0, 0]
    np.testing.assert_allclose(known(K_px), truth, rtol=0, atol=1e-9)


def test_covisibility_is_the_share_of_points(folder, write):
    write(folder, Model())
    np.testing.assert_allclose(known(read(folder).covisibility), SHARES)
    write(folder, Model(points=False))
    np.testing.assert_allclose(known(read(folder).covisibility), SHARES)


def test_without_points_there_is_no_covisibility(folder, write):
    write(folder, Model(seen=([], [], [])))
    assert read(folder).covisibility is None


def test_tracks_may_be_known_to_the_points_alone(folder):
    write_text(folder, Model())
    lines = (folder / "images.txt").read_text().splitlines()
    bare = [line if "png" in line or line[:1] == "#" else "" for line in lines]
    (folder / "images.txt").write_text("\n".join(bare) + "\n")
    np.testing.assert_allclose(known(read(folder).covisibility), SHARES)


def test_random_tracks_give_the_shares_counted_pair_by_pair(folder):
    rng = np.random.default_rng(0)
    seen = tuple(rng.choice(200, n, replace=False).tolist() for n in (90, 60, 120))
    write_binary(folder, Model(seen=seen))
    shares = [[len({*a} & {*b}) / len(a) for b in seen] for a in seen]
    np.testing.assert_allclose(known(read(folder).covisibility), shares, rtol=1e-6)


@pytest.mark.parametrize("kind", ["exr", "stereo"])
def test_depth_agrees_as_well_as_the_room_s_own(folder, write, kind):
    write(folder / "sparse", Model())
    stereo = folder / "stereo" / "depth_maps"
    for part in (folder / "depth", stereo):
        part.mkdir(parents=True)
    for name, view in zip(Model().names, ROOM.views, strict=True):
        if kind == "exr":
            exr = write_exr(view.depth_m, half=False)
            (folder / "depth" / name.replace(".png", ".exr")).write_bytes(exr)
        else:
            (stereo / f"{name}.geometric.bin").write_bytes(b"64&48&1&" + view.depth_m.tobytes())
    scene = read(folder)
    np.testing.assert_array_equal(decode_view(scene.views[2]).depth_m, ROOM.views[2].depth_m)
    own = scene_agreement(ROOM.encoded())
    assert own is not None
    assert own > 0.9
    assert scene_agreement(replace(scene, covisibility=ROOM.covisibility)) == pytest.approx(own, abs=1e-6)
    assert check_scene(ColmapSource(folder), ID) == []


def test_names_with_spaces_and_folders(folder, write):
    names = ["left cam/10.png", "left cam/9.png", "right/9.png"]
    for name, view in zip(names, ROOM.views, strict=True):
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        Image.fromarray(view.image).save(folder / "images" / name)
    write(folder, Model(names=names))
    scene = read(folder)
    assert [view.name for view in scene.views] == ["left cam_9", "left cam_10", "right_9"]
    np.testing.assert_allclose(known(scene.views[0].world_from_cam), ROOM.views[1].world_from_cam, atol=1e-9)


def test_a_quaternion_of_another_length_is_brought_to_one(folder):
    write_text(folder, Model())
    (folder / "images.txt").write_text("1 3 0 0 0 1 2 3 1 a.png\n\n")
    np.testing.assert_allclose(
        known(read(folder).views[0].world_from_cam)[:3],
        np.eye(4)[:3] - [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]],
    )
