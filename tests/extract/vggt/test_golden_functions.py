"""The parts against the reference: rotary positions, maps, correlation, cameras, preprocessing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from strata.errors import ConfigError, SceneError
from strata.extract.encoders.vggt.correlation import correlations, pyramid, sampled
from strata.extract.encoders.vggt.dpt_head import depth_and_confidence, points_and_confidence
from strata.extract.encoders.vggt.pose_encoding import activated, decode_pose, encode_pose
from strata.extract.encoders.vggt.position_map import position_map, uv_grid
from strata.extract.encoders.vggt.preprocess import load_images, load_images_square
from strata.extract.encoders.vggt.rope import grid_positions, rotary_tables, rotate
from strata.extract.encoders.vggt.tracker import flow_embedding, place_map
from strata.kernels.geometry import invert_rigid, project, transform, unproject, unproject_depth
from strata.kernels.rotation import matrix_from_quaternion, quaternion_from_matrix

Load = Callable[[str], dict[str, torch.Tensor]]


@pytest.fixture
def load(golden: Path) -> Load:
    return lambda name: load_file(golden / f"{name}.safetensors")


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


@pytest.mark.parametrize(("case", "rows", "cols"), [("a", 3, 5), ("b", 4, 4)])
def test_rotary_positions(load: Load, case: str, rows: int, cols: int):
    known = {name.removeprefix(f"{case}."): t for name, t in load("fn_rope").items()}
    positions = grid_positions(rows, cols, prefix=5)
    assert torch.equal(positions.expand_as(known["pos"]), known["pos"])
    close(
        rotate(known["x"], rotary_tables(positions, known["x"].shape[-1], 100.0, torch.float32)), known["y"]
    )


def test_maps_of_positions(load: Load):
    known = load("fn_misc")
    for cols, rows, channels in ((6, 4, 8), (37, 37, 32), (12, 20, 16)):
        size, aspect = (rows, cols), cols / rows
        close(uv_grid(*size, aspect).float(), known[f"uv_{cols}x{rows}"], 1e-6)
        ours = position_map(channels, size, aspect).permute(1, 2, 0)
        close(ours, known[f"posemb_{cols}x{rows}_c{channels}"], 1e-6)
    close(place_map(52, 7, 9), known["sincos2d_52_7x9"][0], 1e-6)
    close(flow_embedding(known["flow_xy"], 8), known["flow_emb_c8"], 1e-6)


def test_activations(load: Load):
    known = load("fn_misc")
    points, points_conf = points_and_confidence(known["act_in4"])
    depth, depth_conf = depth_and_confidence(known["act_in2"])
    close(points, known["act_points"])
    close(points_conf, known["act_points_conf"])
    close(depth, known["act_depth"])
    close(depth_conf, known["act_depth_conf"])
    assert torch.equal(activated(known["act_pose_in"]), known["act_pose_out"])


def test_correlations(load: Load):
    known = load("fn_misc")
    maps = pyramid(known["corr_fmaps"][0], levels=3)
    close(correlations(maps, known["corr_targets"][0], known["corr_coords"][0], 2), known["corr_out"][0])
    places = known["corr_coords"][0, :1, None]
    samples = sampled(known["corr_fmaps"][0, :1], places, padding="border")[0, :, 0].T
    close(samples, known["samp_feat"][0])


def test_quaternions(load: Load):
    known = load("fn_pose")
    close(matrix_from_quaternion(known["quat_in"]), known["mat"])
    close(quaternion_from_matrix(known["mat"]), known["quat_back"])
    close(quaternion_from_matrix(known["special_mats"]), known["special_quats"])


def test_pose_encodings(load: Load):
    known = load("fn_pose")
    height, width = known["image_hw"].tolist()
    close(encode_pose(known["extrinsics"], known["intrinsics"], (height, width)), known["pose_enc"])
    for name, encoding in (("rt", "pose_enc"), ("raw", "raw_enc")):
        cam_from_world, K_px = decode_pose(known[encoding], (height, width))
        close(cam_from_world, known[f"{name}_extrinsics"])
        torch.testing.assert_close(K_px, known[f"{name}_intrinsics"], rtol=1e-4, atol=1e-3)
    close(
        encode_pose(*decode_pose(known["raw_enc"], (height, width)), (height, width)), known["raw_reencoded"]
    )


def test_unprojection(load: Load):
    known = load("fn_unproject")
    world_from_cam = invert_rigid(known["extrinsics"])
    close(world_from_cam, known["se3_inverse"])
    valid = known["mask"]
    world = unproject_depth(known["depth"], known["intrinsics"], world_from_cam)
    close(world[valid], known["world_points"][valid], 1e-4)
    points_cam = transform(known["extrinsics"], known["world_points"][0].flatten(0, 1))
    close(points_cam.mT, known["frame0_points_cam"], 1e-4)
    pixels, z = project(points_cam, known["intrinsics"])
    before = z > 0.05
    torch.testing.assert_close(
        pixels[before], known["frame0_points_projected_uv"][before], rtol=1e-4, atol=1e-2
    )
    rows = torch.arange(20.0)[:, None].expand(20, 30)
    uv = torch.stack((torch.arange(30.0).expand(20, 30), rows), dim=-1).flatten(0, 1).expand(3, -1, -1)
    in_camera = unproject(uv, known["depth"].flatten(1), known["intrinsics"])
    close(in_camera.unflatten(1, (20, 30))[valid], known["cam_points"][valid], 1e-4)


@pytest.mark.parametrize("name", ["rgb_64x40", "rgba_40x72"])
def test_preprocessed_pixels(golden: Path, name: str):
    known, file = np.load(golden / "fn_preprocess.npz"), golden / f"pre_{name}.png"
    for mode in ("crop", "pad"):
        ours = load_images([file], mode=mode)[0].mul(255).round().numpy()
        assert np.abs(ours - known[f"{name}.{mode}"]).max() <= 1
    images, boxes = load_images_square([file], size=224)
    assert np.abs(images[0].mul(255).round().numpy() - known[f"{name}.square224"]).max() <= 1
    np.testing.assert_allclose(boxes, known[f"{name}.square224_coords"], atol=1e-4)


def test_preprocessed_sizes(golden: Path, tmp_path: Path):
    table = json.loads((golden / "fn_manifest.json").read_text())["fn_preprocess"]["output_shape_table"]
    mixed = table.pop("mixed_crop_64x40+40x72")
    for size, modes in table.items():
        Image.new("RGB", tuple(map(int, size.split("x")))).save(tmp_path / "image.png")
        for mode, shape in modes.items():
            assert list(load_images([tmp_path / "image.png"], mode=mode).shape) == shape, (size, mode)
    with pytest.warns(UserWarning, match="different sizes"):
        both = load_images([golden / "pre_rgb_64x40.png", golden / "pre_rgba_40x72.png"])
    assert list(both.shape) == mixed
    assert (both[0, :, :98] == 1).all()
    assert (both[0, :, -98:] == 1).all()


def test_preprocessing_takes_any_picture_and_patch(tmp_path: Path):
    Image.new("L", (30, 20), 51).save(tmp_path / "grey.png")
    grey = load_images([tmp_path / "grey.png"], size=48, patch_size=16)
    assert grey.shape == (1, 3, 32, 48)
    assert torch.allclose(grey, torch.tensor(0.2))
    clear = Image.new("P", (16, 16), 0)
    clear.save(tmp_path / "clear.png", transparency=0)
    assert (load_images([tmp_path / "clear.png"], size=16, patch_size=16) == 1).all()
    Image.new("RGB", (400, 3)).save(tmp_path / "thin.png")
    assert load_images([tmp_path / "thin.png"], size=28).shape == (1, 3, 14, 28)


def test_preprocessing_says_what_is_wrong(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
    with pytest.raises(SceneError, match="2 of 3 images") as caught:
        load_images([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"])
    assert "a.png" in str(caught.value)
    assert "c.png" in str(caught.value)
    for paths in ([], "b.png"):
        with pytest.raises(SceneError, match="no list of images"):
            load_images(paths)
    with pytest.raises(ConfigError, match="'stretch'"):
        load_images([tmp_path / "b.png"], mode="stretch")
    with pytest.raises(ConfigError, match="500 pixels") as wrong:
        load_images([tmp_path / "b.png"], size=500)
    assert "490" in wrong.value.fix
