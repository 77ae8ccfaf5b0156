"""`scenes check`: every fault at once, and nothing said against sound scenes."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from strata.configs.schema import CheckConfig
from strata.errors import ConfigError
from strata.extract.scenes.check import check, check_scene, examine
from strata.extract.scenes.exr import read_exr, write_exr
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai_write import write_wai

ID = "synthetic/room_0"
SCENE = SyntheticSource(1, views=4, width=64, height=48).scene(ID)


@pytest.fixture
def folder(tmp_path):
    write_wai(SCENE, tmp_path / "synthetic" / "room_0")
    return tmp_path / "synthetic" / "room_0"


def faults(folder):
    return check_scene(open_scenes(folder.parent), ID)


def change_poses(folder, change):
    path = folder / "scene_meta.json"
    meta = json.loads(path.read_text())
    for frame in meta["frames"]:
        frame["transform_matrix"] = change(np.array(frame["transform_matrix"])).tolist()
    path.write_text(json.dumps(meta))


def change_depth(folder, change):
    for path in (folder / "depth").iterdir():
        path.write_bytes(write_exr(change(read_exr(path.read_bytes())), half=False))


def test_a_sound_scene_has_no_faults_and_is_good_for_everything(folder):
    report = examine(open_scenes(folder), ID)
    assert report.faults == ()
    assert report.depth_agreement > 0.5
    assert not any(report.lacking.values())


def test_real_scenes_are_sound(real_scenes):
    source = open_scenes(real_scenes)
    for scene_id in ("open3d/chair", "tsdf/bin"):
        report = examine(source, scene_id)
        assert report.faults == ()
        assert report.depth_agreement > 0.7


def test_no_fault_hides_another(folder):
    (folder / "images" / "0000.png").write_bytes(b"\x89PNG damaged")
    exr = folder / "depth" / "0001.exr"
    exr.write_bytes(exr.read_bytes()[:-30])
    (folder / "depth" / "0002.exr").write_bytes(write_exr(np.ones((5, 7), np.float32)))
    (folder / "depth" / "0003.exr").unlink()
    covisibility = folder / "covisibility" / "v0"
    (covisibility / "pairwise_covisibility--4x4.npy").rename(covisibility / "pairwise_covisibility--5x5.npy")
    meta = json.loads((folder / "scene_meta.json").read_text())
    meta["frames"][3]["transform_matrix"][0][0] = float("nan")
    (folder / "scene_meta.json").write_text(json.dumps(meta))
    found = faults(folder)
    said = [fault.what for fault in found]
    for what in (
        "the pose is not a rigid 4 x 4 matrix.",
        f"{ID} lacks 1 file.",
        "the covisibility has the wrong shape.",
        "the picture cannot be decoded.",
        "the EXR file ends in the middle of a block.",
        "the depth is not of the image's size.",
    ):
        assert what in said
    assert len(found) == 6
    assert all(fault.scene == ID and fault.where and fault.fix for fault in found)


def test_wrong_poses_are_found_and_explained(folder):
    change_poses(folder, np.linalg.inv)
    (fault,) = faults(folder)
    assert fault.what == "the poses are cam_from_world."
    assert "of covisible depth agrees" in fault.why
    assert "invert every transform_matrix" in fault.fix
    assert "fix=OUT" in fault.fix


def test_poses_that_nothing_explains(folder):
    rng = np.random.default_rng(0)
    change_poses(folder, lambda pose: np.block([[pose[:3, :3], rng.normal(0, 3, (3, 1))], [pose[3:]]]))
    (fault,) = faults(folder)
    assert fault.what == f"depth and cameras of {ID} do not fit together."
    assert "no common mistake" in fault.why


def test_millimetres_without_cameras_are_found(folder):
    change_depth(folder, lambda depth: depth * 1000)
    meta = json.loads((folder / "scene_meta.json").read_text())
    for frame in meta["frames"]:
        del frame["transform_matrix"]
    (folder / "scene_meta.json").write_text(json.dumps(meta))
    (fault,) = faults(folder)
    assert fault.what == f"the depth of {ID} does not look like metres."
    assert "divide depth by 1,000" in fault.fix


def test_repeated_frames_are_found(folder):
    shutil.copy(folder / "images" / "0001.png", folder / "images" / "0003.png")
    said = [fault.what for fault in faults(folder)]
    assert f"1 frames of {ID} repeat others." in said


def test_intrinsics_of_another_size_are_found(folder):
    for file in (folder / "images").iterdir():
        Image.open(file).resize((200, 150)).save(file)
    shutil.rmtree(folder / "depth")
    meta = json.loads((folder / "scene_meta.json").read_text())
    for frame in meta["frames"]:
        del frame["depth"]
    (folder / "scene_meta.json").write_text(json.dumps(meta))
    found = faults(folder)
    assert len(found) == 4
    assert all("principal point" in fault.what for fault in found)


def test_an_empty_scene_is_a_fault(folder):
    (folder / "scene_meta.json").write_text('{"frames": []}')
    (fault,) = faults(folder)
    assert fault.what == f"the scene {ID} has no frames."


def test_images_alone_are_good_for_extraction(folder):
    source = open_scenes(folder / "images")
    report = examine(source, "room_0/images")
    assert report.faults == ()
    assert report.depth_agreement is None
    assert report.lacking["extract"] == ""
    assert report.lacking["depth"] == "depth"
    assert report.lacking["correspondence"] == "two views with depth and camera and covisibility"


def test_the_command_reports_writes_a_page_and_sets_the_exit_code(folder, tmp_path, console):
    write_wai(SCENE, folder.with_name("room_1"))
    config = CheckConfig(scenes=str(folder.parent), out=str(tmp_path / "page"), views=3)
    assert check(config, console) == 0
    (folder / "depth" / "0001.exr").write_bytes(b"no EXR")
    change_poses(folder.with_name("room_1"), np.linalg.inv)
    assert check(config, console) == 1
    printed = console.file.getvalue()
    assert "2 scenes, 2 faults in 2 of them" in printed
    assert "- the file is not an EXR file." in printed
    assert "good for extract, sets, depth\n" in printed
    assert "not for  correspondence: no geometry that fits together" in printed
    page = (tmp_path / "page" / "check.html").read_text()
    for said in ("2 faults in 2 of them", "the file is not an EXR file.", "the poses are cam_from_world."):
        assert said in page
    assert page.count("data:image/webp;base64,") == 2
    assert "invert every transform_matrix" in page
    # Nothing outside of the file is asked for, and nothing runs.
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)|href=\"(?!#)", page)


def test_names_cannot_write_html(tmp_path, console):
    write_wai(SCENE, tmp_path / "a<b>" / "x&<i>")
    check(CheckConfig(scenes=str(tmp_path), out=str(tmp_path / "page.html")), console)
    page = (tmp_path / "page.html").read_text()
    assert "a&lt;b&gt;/x&amp;&lt;i&gt;" in page
    assert "<i>" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"covisibility": "new"}, "keep or make"),
        ({"covisibility": "make"}, "add fix=OUT"),
        ({"fix": "."}, "another folder"),
    ],
)
def test_options_that_make_no_sense(folder, console, words, said):
    words = {**words, **({"fix": str(folder.parent)} if "fix" in words else {})}
    with pytest.raises(ConfigError) as caught:
        check(CheckConfig(scenes=str(folder.parent), **words), console)
    assert said in caught.value.fix
