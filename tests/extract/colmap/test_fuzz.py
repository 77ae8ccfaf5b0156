"""COLMAP models, changed at random: an error of ours, or a scene that is sound."""

import struct

import numpy as np
import pytest
from PIL import Image
from strata.extract.scenes.colmap import ColmapSource

IMAGES = 3


def write_binary(folder):
    cameras = struct.pack("<Q", 1) + struct.pack("<IiQQ4d", 1, 1, 8, 6, 9.0, 9.0, 4.0, 3.0)
    images = points = struct.pack("<Q", IMAGES)
    for i in range(IMAGES):
        images += struct.pack("<I7dI", i, 1.0, 0.1 * i, 0, 0, 0.5, i, 0, 1) + b"%d.png\0" % i
        images += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1, 2, i, 3, 4, i + 1)
        points += struct.pack("<Q3d3BdQII", i, 0, 0, 0, 1, 2, 3, 0.5, 1, i, 0)
    for name, data in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.bin").write_bytes(data)


def write_text(folder):
    (folder / "cameras.txt").write_text("# cameras\n1 PINHOLE 8 6 9.0 9.0 4.0 3.0\n")
    images = [f"{i} 1.0 {0.1 * i} 0 0 0.5 {i} 0 1 {i}.png\n1 2 {i} 3 4 {i + 1}\n" for i in range(IMAGES)]
    (folder / "images.txt").write_text("# images\n" + "".join(images))
    points = [f"{i} 0 0 0 1 2 3 0.5 {i} 0\n" for i in range(IMAGES)]
    (folder / "points3D.txt").write_text("".join(points))


@pytest.fixture(
    params=["cameras.bin", "images.bin", "points3D.bin", "cameras.txt", "images.txt", "points3D.txt"]
)
def file(request, tmp_path):
    folder = tmp_path / "d" / "s"
    (folder / "images").mkdir(parents=True)
    (write_binary if request.param.endswith("bin") else write_text)(folder)
    for i in range(IMAGES):
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "images" / f"{i}.png")
    assert len(everything(folder)) == IMAGES
    return folder / request.param


def everything(folder):
    source = ColmapSource(folder)
    return source.scene(source.ids()[0])


def test_models(fuzz, file):
    whole = file.read_bytes()

    @fuzz
    def _(data):
        file.write_bytes(fuzz.bytes(data, whole))
        scene = fuzz.read(lambda: everything(file.parent), file.parent, file.stat().st_size)
        if scene is None:
            return
        assert 1 <= len(scene) == len({view.name for view in scene.views})
        shares = scene.covisibility
        assert shares is None or (
            shares.shape == (len(scene),) * 2 and 0 <= shares.min() <= shares.max() <= 1
        )
        for view in scene.views:
            assert np.isfinite(view.K_px).all()
            assert np.isfinite(view.world_from_cam).all()
            rotation = view.world_from_cam[:3, :3]
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
