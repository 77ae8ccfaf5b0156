"""What is planted into sound scenes is named, what is sound is left alone, and a copy is sound again."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

import json
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from strata.configs.schema import CheckConfig
from strata.extract.scenes.check import check, examine
from strata.extract.scenes.consistency import measure, placed
from strata.extract.scenes.decode import decode_depth, decode_image
from strata.extract.scenes.diagnose import diagnose
from strata.extract.scenes.exr import read_exr, write_exr
from strata.extract.scenes.hypotheses import OPENGL, ray_per_z
from strata.extract.scenes.mend import write_mended
from strata.extract.scenes.scene import Blob, SceneSource
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_write import write_wai

ROOM = SyntheticSource(1, views=4, width=64, height=48).scene("synthetic/room_0")


class One(SceneSource):
    """One scene in memory."""

    def __init__(self, scene):
        self.only = scene

    def ids(self):
        return [self.only.id]

    def scene(self, scene_id):
        return self.only


def changed(scene, pose=lambda p: p, K=lambda K: K, depth=None):
    def view(v):
        blob = v.depth
        if depth:
            blob = Blob(suffix="exr", data=write_exr(depth(read_exr(blob.read()), v.K_px), half=False))
        return replace(v, world_from_cam=pose(v.world_from_cam), K_px=K(v.K_px), depth=blob)

    return replace(scene, views=tuple(map(view, scene.views)))


def moved(pose, factor):
    pose = pose.copy()
    pose[:3, 3] *= factor
    return pose


def centred(K, cx, cy):
    K = K.copy()
    K[:2, 2] = cx, cy
    return K


def half(K):
    return centred(K, K[0, 2] + 0.5, K[1, 2] + 0.5)


def long_rays(depth_m, K):
    return depth_m * ray_per_z(K, *depth_m.shape)


PLANTED = {
    "inverted": ({"pose": np.linalg.inv}, ["the poses are cam_from_world"]),
    "opengl": ({"pose": lambda p: p @ OPENGL}, ["the poses have OpenGL axes (y up, z back)"]),
    "inverted opengl": (
        {"pose": lambda p: np.linalg.inv(p @ OPENGL)},
        ["the poses are cam_from_world with OpenGL axes (y up, z back)"],
    ),
    "mm depth": (
        {"depth": lambda d, K: d * 1000},
        ["the depth is in millimetres, the poses are in metres"],
    ),
    "mm poses": (
        {"pose": lambda p: moved(p, 1000)},
        ["the translations are in millimetres, the depth is in metres"],
    ),
    "mm both": (
        {"pose": lambda p: moved(p, 1000), "depth": lambda d, K: d * 1000},
        ["depth and poses are not in metres"],
    ),
    "scale": ({"pose": lambda p: moved(p, 2.5)}, ["poses and depth have different scales"]),
    "swapped": ({"K": lambda K: centred(K, K[1, 2], K[0, 2])}, ["cx and cy are swapped"]),
    "rays": ({"depth": long_rays}, ["the depth is the length of rays, not z"]),
    "two": (
        {"pose": lambda p: p @ OPENGL, "depth": long_rays},
        ["the poses have OpenGL axes (y up, z back)", "the depth is the length of rays, not z"],
    ),
}
HALF = {
    "half more": ({"K": half}, ["cx and cy are half a pixel too large"]),
    "half less": (
        {"K": lambda K: centred(K, K[0, 2] - 0.5, K[1, 2] - 0.5)},
        ["cx and cy are half a pixel too small"],
    ),
}


def found(scene):
    return [fault.what for fault in examine(One(scene), scene.id).faults]


def assert_named(scene, expected):
    whats = found(scene)
    assert len(whats) == len(expected), whats
    assert all(what.startswith(text) for what, text in zip(whats, expected, strict=True)), whats


@pytest.mark.parametrize("name", [*PLANTED, *HALF])
def test_what_is_planted_into_a_room_is_named(name):
    change, expected = {**PLANTED, **HALF}[name]
    assert_named(changed(ROOM, **change), expected)


@pytest.fixture(scope="module")
def livingroom(real_scenes):
    """Every fourth pixel of a real scene, so that it is quick."""
    scene = WaiSource(real_scenes).scene("icl_nuim/livingroom")

    def thinned(view):
        image, png = decode_image(view), BytesIO()
        depth_m = decode_depth(view, image.shape[:2])
        Image.fromarray(image[::4, ::4]).save(png, "PNG")
        return replace(
            view,
            image=Blob(suffix="png", data=png.getvalue()),
            depth=Blob(suffix="exr", data=write_exr(depth_m[::4, ::4], half=False)),
            K_px=view.K_px / np.array([[4], [4], [1]]),
        )

    return replace(scene, views=tuple(map(thinned, scene.views)))


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in ("opengl", "mm both")])
def test_what_is_planted_into_a_real_scene_is_named(livingroom, name):
    change, expected = PLANTED[name]
    assert_named(changed(livingroom, **change), expected)


def test_half_a_pixel_that_cannot_be_measured_is_a_hint(livingroom):
    """Depth of a sensor is too coarse for half a pixel; but the middle by corners gives it away."""
    height, width = decode_image(livingroom.views[0]).shape[:2]
    report = examine(One(changed(livingroom, K=lambda K: centred(K, width / 2, height / 2))), livingroom.id)
    assert report.faults == ()
    assert "half a pixel too large" in report.hints[0]


def test_sound_scenes_have_no_faults_and_no_hints(livingroom, shared):
    rooms = list(SyntheticSource(3, views=4, width=64, height=48, seed=3))
    toys = list(WaiSource(shared / "golden" / "wai"))
    for scene in (ROOM, livingroom, *rooms, *toys):
        report = examine(One(scene), scene.id)
        assert (report.faults, report.hints) == ((), ()), scene.id


def test_the_factor_between_poses_and_depth_is_estimated():
    (finding,) = diagnose(changed(ROOM, pose=lambda p: moved(p, 2.5))).findings
    factor = float(re.search(r"by a factor of ([\d.]+)", finding.change.what)[1])
    assert factor == pytest.approx(0.4, rel=2e-3)
    (finding,) = diagnose(changed(ROOM, pose=lambda p: moved(p, 1.08))).findings
    assert "factor of 0.92" in finding.change.what


def test_looks_tell_a_scale_that_depth_cannot(shared):
    """Before a wall, depth agrees whatever the scale of the poses; the pictures do not."""
    wall = WaiSource(shared / "golden" / "wai").scene("eth3d/toy_a")
    wrong = diagnose(changed(wall, pose=lambda p: moved(p, 2.0)))
    assert wrong.fit.agreement > 0.95
    assert "factor of 0.5" in wrong.findings[0].change.what


def test_agreement_and_looks_by_hand():
    view = placed(ROOM.views[0])
    fit = measure({0: view}, [(0, 0)])
    assert (fit.agreement, fit.looks) == (1, pytest.approx(1))
    assert fit.depth == pytest.approx(1, abs=1e-6)
    # One percent off is half way to the tolerance.
    fit = measure({0: view, 1: replace(view, depth_m=view.depth_m * 1.01)}, [(0, 1)])
    assert fit.agreement == 1
    assert fit.depth == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("matrix", [np.ones, np.eye, np.zeros], ids=["all", "self", "nothing"])
def test_covisibility_that_cannot_be_is_named(matrix):
    n = len(ROOM)
    wrong = matrix((n, n)) if matrix is not np.eye else np.eye(n)
    whats = found(replace(ROOM, covisibility=wrong.astype(np.float32)))
    assert whats == [f"the covisibility of {ROOM.id} does not match its depth."]


def test_covisibility_of_other_frames_is_named(livingroom):
    order = [2, 4, 1, 0, 3]
    whats = found(replace(livingroom, covisibility=livingroom.covisibility[np.ix_(order, order)]))
    assert whats == [f"the covisibility of {livingroom.id} does not match its depth."]


@pytest.mark.parametrize("name", ["inverted opengl", "mm both", "rays in mm"])
def test_a_corrected_copy_is_sound(tmp_path, name):
    change = {"depth": lambda d, K: 1000 * long_rays(d, K)} if name == "rays in mm" else PLANTED[name][0]
    broken = changed(ROOM, **change)
    write_mended(broken, diagnose(broken).changes, (), tmp_path)
    copy = WaiSource(tmp_path).scene(ROOM.id)
    assert found(copy) == []
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]
    for view, truth in zip(copy.views, ROOM.views, strict=True):
        assert view.image.sha256 == truth.image.sha256
        np.testing.assert_allclose(view.world_from_cam, truth.world_from_cam, atol=0.01)
        np.testing.assert_allclose(read_exr(view.depth.read()), read_exr(truth.depth.read()), rtol=1e-5)


def test_a_copy_leaves_out_what_is_broken_and_computes_covisibility(tmp_path, console):
    source, out = tmp_path / "in" / "synthetic" / "room_0", tmp_path / "out"
    write_wai(ROOM, source)
    (source / "images" / "0001.png").write_bytes(b"no picture")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    lists = tmp_path / "in" / "metadata" / "test" / "synthetic_scene_list_test.txt"
    lists.parent.mkdir(parents=True)
    lists.write_text("room_0")
    words = {"scenes": str(tmp_path / "in"), "fix": str(out), "covisibility": "make"}
    assert check(CheckConfig(**words), console) == 1
    printed = console.file.getvalue()
    assert "- leave out frame 0001" in printed
    assert "- compute covisibility" in printed
    copy = WaiSource(out).scene(ROOM.id)
    assert [view.name for view in copy.views] == ["0000", "0002", "0003"]
    assert found(copy) == []
    kept = [0, 2, 3]
    np.testing.assert_allclose(copy.covisibility, ROOM.covisibility[np.ix_(kept, kept)], atol=1e-6)
    assert WaiSource(out).splits() == {"test/synthetic": (ROOM.id,)}
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}


def test_repeated_frames_are_left_out_of_the_copy(tmp_path, console):
    source, out = tmp_path / "in" / "synthetic" / "room_0", tmp_path / "out"
    twice = (*ROOM.views, replace(ROOM.views[1], name="again"))
    rows = [0, 1, 2, 3, 1]
    write_wai(replace(ROOM, views=twice, covisibility=ROOM.covisibility[np.ix_(rows, rows)]), source)
    check(CheckConfig(scenes=str(tmp_path / "in"), fix=str(out)), console)
    assert "same pixels: again = 0001" in console.file.getvalue()
    copy = WaiSource(out).scene(ROOM.id)
    assert len(copy) == 4
    np.testing.assert_array_equal(copy.covisibility, ROOM.covisibility)
    assert json.loads((out / ROOM.id / "scene_meta.json").read_text())["camera_convention"] == "opencv"
