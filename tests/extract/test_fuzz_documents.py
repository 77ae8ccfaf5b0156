"""scene_meta.json and transforms.json, changed at random: an error of ours, or a scene that is sound."""

import json

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.nerfstudio import NerfstudioSource
from strata.extract.scenes.scene import Scene
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_write import write_wai

ROOM = SyntheticSource(1, views=2, width=16, height=12).analytic("synthetic/room_0")


def write_transforms(folder):
    folder.mkdir(parents=True)
    frames = []
    for view in ROOM.views:
        Image.fromarray(view.image).save(folder / f"{view.name}.png")
        Image.fromarray((view.depth_m * 1000).astype(np.uint16)).save(folder / f"{view.name}_depth.png")
        Image.fromarray(view.image[..., 0]).save(folder / f"{view.name}_mask.png")
        frames.append(
            {
                "file_path": f"{view.name}.png",
                "depth_file_path": f"{view.name}_depth.png",
                "mask_path": f"{view.name}_mask.png",
                "transform_matrix": view.world_from_cam.tolist(),
                "fl_x": 12.0,
            }
        )
    shared = {"camera_model": "OPENCV", "w": 16, "h": 12, "cx": 8, "cy": 6.0, "k1": 0, "camera_angle_x": 1.0}
    applied = {
        "applied_transform": np.eye(4)[:3].tolist(),
        "applied_scale": 1.0,
        "train_filenames": ["0000.png"],
    }
    (folder / "transforms.json").write_text(
        json.dumps({**shared, **applied, "depth_unit_scale_factor": 0.001, "frames": frames})
    )


@pytest.fixture(params=["scene_meta.json", "transforms.json"])
def scene(request, tmp_path):
    """(document, source class) of a sound scene, read once so that all imports are done."""
    folder = tmp_path / "synthetic" / "room_0"
    if request.param == "scene_meta.json":
        write_wai(ROOM.encoded(), folder)
    else:
        write_transforms(folder)
    kind = WaiSource if request.param == "scene_meta.json" else NerfstudioSource
    assert sound(everything(kind, folder))
    return folder / request.param, kind


def everything(kind, folder):
    """All that a command would ask of the scene."""
    source = kind(folder)
    (scene_id,) = source.ids()
    source.splits()
    scene = source.scene(scene_id)
    # As ls and pack do.
    assert scene.digest
    decoded = [decode_view(view) for view in scene.views]
    digests = [view.geometry_digest(scene.scale_type, scene.rules) for view in scene.views]
    return scene, decoded, digests


def sound(result):
    scene, decoded, _ = result
    assert isinstance(scene, Scene)
    assert scene.views
    assert len({view.name for view in scene.views}) == len(scene)
    assert scene.covisibility is None or scene.covisibility.shape == (len(scene), len(scene))
    for view, arrays in zip(scene.views, decoded, strict=True):
        assert view.name
        assert arrays.image.shape == (12, 16, 3)
        assert arrays.depth_m is None or np.isfinite(arrays.depth_m).all()
        if view.K_px is not None:
            assert np.isfinite(view.K_px).all()
            assert (np.diagonal(view.K_px) > 0).all()
        if view.world_from_cam is not None:
            rotation = view.world_from_cam[:3, :3]
            assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 2e-3
            assert np.isfinite(view.world_from_cam).all()
    return True


def test_documents_changed_in_places(fuzz, scene):
    path, kind = scene
    document = json.loads(path.read_text())

    @fuzz
    def _(data):
        path.write_text(json.dumps(fuzz.document(data, document)))
        result = fuzz.read(lambda: everything(kind, path.parent), path.parent, path.stat().st_size)
        assert result is None or sound(result)


def test_documents_changed_in_bytes(fuzz, scene):
    path, kind = scene
    whole = path.read_bytes()

    @fuzz
    def _(data):
        path.write_bytes(fuzz.bytes(data, whole))
        result = fuzz.read(lambda: everything(kind, path.parent), path.parent, path.stat().st_size)
        assert result is None or sound(result)


def test_a_document_of_lists_in_lists(scene):
    path, kind = scene
    for text in ("[" * 200_000, '{"frames":' * 50_000, "1" * 10_000, "9e999999", "\x00"):
        path.write_text(text)
        with pytest.raises(SceneError):
            everything(kind, path.parent)
