"""COLMAP models of an analytic room, written here by hand as text and as bytes, read back as the room."""

import struct
import tracemalloc
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.scenes.agreement import scene_agreement
from strata.extract.scenes.check import check_scene
from strata.extract.scenes.colmap import ColmapSource
from strata.extract.scenes.colmap_binary import read_binary
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource

ROOM = SyntheticSource(1, views=3, width=64, height=48).analytic("synthetic/room_0")
ID = "rooms/lounge"
# Model name -> id and parameters of fx, fy, cx, cy without distortion.
CAMERAS = {
    "SIMPLE_PINHOLE": (0, lambda fx, fy, cx, cy: (fx, cx, cy)),
    "PINHOLE": (1, lambda *K: K),
    "SIMPLE_RADIAL": (2, lambda fx, fy, cx, cy: (fx, cx, cy, 0)),
    "RADIAL": (3, lambda fx, fy, cx, cy: (fx, cx, cy, 0, 0)),
    "OPENCV": (4, lambda *K: (*K, 0, 0, 0, 0)),
    "OPENCV_FISHEYE": (5, lambda *K: (*K, 0, 0, 0, 0)),
    "FULL_OPENCV": (6, lambda *K: (*K, 0, 0, 0, 0, 0, 0, 0, 0)),
}
# Which points each image sees: 4 of the first's 5 are in the second, none in the third.
SEEN = ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7, 8, 9], [9])
SHARES = [[1, 0.8, 0], [0.5, 1, 0.125], [0, 1, 1]]


@dataclass
class Model:
    """What is written: by image name, and by id."""

    names: list = field(default_factory=lambda: ["a.png", "b.png", "c.png"])
    camera: str = "PINHOLE"
    params: dict = field(default_factory=dict)  # by image, in place of the room's
    seen: tuple = SEEN
    points: bool = True

    def parameters(self, i):
        K = ROOM.views[i].K_px
        exact = (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
        return self.params.get(i, CAMERAS[self.camera][1](*map(float, exact)))

    def poses(self):
        for view in ROOM.views:
            cam_from_world = np.linalg.inv(view.world_from_cam)
            yield [*quaternion(cam_from_world[:3, :3]), *map(float, cam_from_world[:3, 3])]

    def tracks(self):
        for point in sorted({p for seen in self.seen for p in seen}):
            yield point, [(i + 1, seen.index(point)) for i, seen in enumerate(self.seen) if point in seen]


def quaternion(rotation):
    """wxyz, by the axis and angle of the rotation."""
    angle = np.arccos((np.trace(rotation) - 1) / 2)
    skew = rotation - rotation.T
    axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    axis /= np.linalg.norm(axis)
    return [float(np.cos(angle / 2)), *map(float, axis * np.sin(angle / 2))]


def write_text(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    cameras, images, points = "# Camera list\n", "# Image list\n# two lines\n\n", "# points\n"
    for i, pose in enumerate(model.poses()):
        numbers = " ".join(map(repr, model.parameters(i)))
        cameras += f"{i + 1} {model.camera} 64 48 {numbers}\n"
        images += f"{i + 1} {' '.join(map(repr, pose))} {i + 1} {model.names[i]}\n"
        images += " ".join(f"1.5 2.5 {point}" for point in (-1, *model.seen[i])) + "\n"
    for point, track in model.tracks():
        points += f"{point} 0 0 0 9 9 9 0.5 " + " ".join(f"{i} {k}" for i, k in track) + "\n"
    for name, text in (("cameras", cameras), ("images", images), ("points3D", points)):
        if name != "points3D" or model.points:
            (folder / f"{name}.txt").write_text(text)


def write_binary(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    cameras = images = struct.pack("<Q", 3)
    for i, pose in enumerate(model.poses()):
        numbers = model.parameters(i)
        cameras += struct.pack(f"<IiQQ{len(numbers)}d", i + 1, CAMERAS[model.camera][0], 64, 48, *numbers)
        images += struct.pack("<I7dI", i + 1, *pose, i + 1) + model.names[i].encode() + b"\0"
        images += struct.pack("<Q", len(model.seen[i]) + 1)
        for point in (-1, *model.seen[i]):
            images += struct.pack("<ddq", 1.5, 2.5, point)
    tracks = list(model.tracks())
    points = struct.pack("<Q", len(tracks))
    for point, track in tracks:
        points += struct.pack("<Q3d3BdQ", point, 0, 0, 0, 9, 9, 9, 0.5, len(track))
        points += b"".join(struct.pack("<II", *seen) for seen in track)
    for name, data in (("cameras", cameras), ("images", images), ("points3D", points)):
        if name != "points3D" or model.points:
            (folder / f"{name}.bin").write_bytes(data)


WRITERS = {"text": write_text, "binary": write_binary}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "rooms" / "lounge"
    (folder / "images").mkdir(parents=True)
    for name, view in zip(Model().names, ROOM.views, strict=True):
        Image.fromarray(view.image).save(folder / "images" / name)
    return folder


def known(array: np.ndarray | None) -> np.ndarray:
    """The array, which is there."""
    assert array is not None
    return array


def read(folder):
    return ColmapSource(folder).scene(ID)


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


@pytest.mark.parametrize(
    ("camera", "params"),
    [
        ("SIMPLE_RADIAL", (50.0, 32.0, 24.0, 1e-6)),
        ("OPENCV", (50.0, 50.0, 32.0, 24.0, 0, 0, 0, -0.1)),
        ("OPENCV_FISHEYE", (50.0, 50.0, 32.0, 24.0, 0, 0, 0, 0)),
    ],
)
def test_distortion_names_the_undistorter(folder, write, camera, params):
    write(folder, Model(camera=camera, params={1: params}))
    with pytest.raises(SceneError, match="undistorted") as caught:
        read(folder)
    assert "colmap image_undistorter" in caught.value.fix
    assert camera in caught.value.why


@pytest.mark.parametrize(
    "params", [(0.0, 50.0, 1.0, 1.0), (float("nan"), 50.0, 1.0, 1.0), (9.0, 9.0, 1e300, 1.0)]
)
def test_intrinsics_out_of_range(folder, write, params):
    write(folder, Model(params={0: params}))
    with pytest.raises(SceneError, match="out of range"):
        read(folder)


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


@pytest.mark.parametrize(
    "data", [b"", b"64&48&1", b"64&48&1&123", b"48&64&2&" + bytes(8), b"9" * 4000 + b"&1&1&"]
)
def test_depth_maps_that_are_none(folder, data):
    write_text(folder, Model())
    (folder / "stereo" / "depth_maps").mkdir(parents=True)
    (folder / "stereo" / "depth_maps" / "a.png.geometric.bin").write_bytes(data)
    with pytest.raises(SceneError, match="depth cannot be decoded"):
        decode_view(read(folder).views[0])


def test_names_with_spaces_and_folders(folder, write):
    names = ["left cam/10.png", "left cam/9.png", "right/9.png"]
    for name, view in zip(names, ROOM.views, strict=True):
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        Image.fromarray(view.image).save(folder / "images" / name)
    write(folder, Model(names=names))
    scene = read(folder)
    assert [view.name for view in scene.views] == ["left cam_9", "left cam_10", "right_9"]
    np.testing.assert_allclose(known(scene.views[0].world_from_cam), ROOM.views[1].world_from_cam, atol=1e-9)


def test_missing_images_are_named_at_once(folder, write):
    write(folder, Model())
    for name in ("a.png", "c.png"):
        (folder / "images" / name).unlink()
    with pytest.raises(SceneError, match="rooms/lounge lacks 2 files") as caught:
        read(folder)
    assert "a.png, c.png" in caught.value.why


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd"])
def test_names_that_lead_outside(folder, write, name):
    write(folder, Model(names=[name, "b.png", "c.png"]))
    with pytest.raises(SceneError, match="not a path in the scene's folder"):
        read(folder)


def test_images_of_another_size(folder, write):
    write(folder, Model())
    Image.fromarray(ROOM.views[0].image[::2, ::2]).save(folder / "images" / "b.png")
    with pytest.raises(SceneError, match="another size") as caught:
        read(folder)
    assert "64 x 48, the image 32 x 24" in caught.value.why


def test_every_truncation_of_a_binary_model_is_a_scene_error(folder):
    write_binary(folder, Model())
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        whole = (folder / name).read_bytes()
        for size in range(len(whole)):
            (folder / name).write_bytes(whole[:size])
            with pytest.raises(SceneError):
                read_binary(folder)
        (folder / name).write_bytes(whole + b"\0")
        with pytest.raises(SceneError, match="longer than it should be"):
            read_binary(folder)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_huge_count_is_refused_before_memory_is_taken(folder, name):
    write_binary(folder, Model())
    data = (folder / f"{name}.bin").read_bytes()
    (folder / f"{name}.bin").write_bytes(struct.pack("<Q", 2**62) + data[8:])
    tracemalloc.start()
    with pytest.raises(SceneError, match="ends too early"):
        read(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("cameras.txt", "1 PINHOLE 64 48 50 50 32", "PINHOLE with 3 parameters"),
        ("cameras.txt", "1 LENS 64 48 50 50 32 24", "LENS with 4 parameters"),
        ("cameras.txt", "one PINHOLE 64 48 50 50 32 24", "invalid literal"),
        ("cameras.txt", "-1 PINHOLE 64 48 50 50 32 24", "out of range"),
        ("cameras.txt", "1", "not enough values"),
        ("images.txt", "1 1 0 0 0 0 0 0 1", "a name are expected"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 a.png\n1 2", "2 numbers are not"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 a.png\n1 2 x", "invalid literal"),
        ("images.txt", f"1 1 0 0 0 0 0 0 1 a.png\n1 2 {2**70}", "too large|too big|out of range"),
        ("points3D.txt", "1 2 3", "not a point and its track"),
    ],
)
def test_lines_that_are_malformed(folder, file, line, said):
    write_text(folder, Model())
    (folder / file).write_text(line + "\n")
    with pytest.raises(SceneError, match="malformed") as caught:
        read(folder)
    assert said.partition("|")[0] in caught.value.why or any(s in caught.value.why for s in said.split("|"))
    assert caught.value.why.startswith("line ")


@pytest.mark.parametrize("pose", ["0 0 0 0 0 0 0", "nan 0 0 0 0 0 0", "1 0 0 0 inf 0 0"])
def test_poses_that_are_none(folder, pose):
    write_text(folder, Model())
    (folder / "images.txt").write_text(f"1 {pose} 1 a.png\n\n")
    with pytest.raises(SceneError, match="the pose is not rigid"):
        read(folder)


def test_a_quaternion_of_another_length_is_brought_to_one(folder):
    write_text(folder, Model())
    (folder / "images.txt").write_text("1 3 0 0 0 1 2 3 1 a.png\n\n")
    np.testing.assert_allclose(
        known(read(folder).views[0].world_from_cam)[:3],
        np.eye(4)[:3] - [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]],
    )


def test_models_that_do_not_fit_together(folder, write):
    write(folder, Model(names=["a.png", "a.png", "c.png"]))
    with pytest.raises(SceneError, match="there twice"):
        read(folder)
    write_text(folder, Model())
    (folder / "cameras.txt").write_text("7 PINHOLE 64 48 50 50 32 24\n")
    (folder / "cameras.bin").unlink(missing_ok=True)
    with pytest.raises(SceneError, match="no camera"):
        read(folder)
    (folder / "images.txt").write_text("# none\n")
    with pytest.raises(SceneError, match="no images"):
        read(folder)
