"""COLMAP models that are no scene are refused, with their faults named."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.scenes.colmap_binary import read_binary
from strata.extract.scenes.decode import decode_view

from .room_model import ROOM, Model, read, write_binary, write_text


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


@pytest.mark.parametrize(
    "data", [b"", b"64&48&1", b"64&48&1&123", b"48&64&2&" + bytes(8), b"9" * 4000 + b"&1&1&"]
)
def test_depth_maps_that_are_none(folder, data):
    write_text(folder, Model())
    (folder / "stereo" / "depth_maps").mkdir(parents=True)
    (folder / "stereo" / "depth_maps" / "a.png.geometric.bin").write_bytes(data)
    with pytest.raises(SceneError, match="depth cannot be decoded"):
        decode_view(read(folder).views[0])


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
