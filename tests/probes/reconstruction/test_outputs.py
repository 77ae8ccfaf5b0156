"""What is written: cameras, points, pages and maps."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strata.extract.scenes.exr import read_exr
from strata.extract.scenes.synthetic import SyntheticScene
from strata.probes.reconstruction.cameras import cameras_document
from strata.probes.reconstruction.contact_sheet import coloured, contact_sheet
from strata.probes.reconstruction.frames import read_frames
from strata.probes.reconstruction.fuse import PointCloud, fuse
from strata.probes.reconstruction.outputs import finished, write_reconstruction
from strata.probes.reconstruction.point_file import write_ply
from strata.probes.reconstruction.prediction import Prediction
from strata.probes.reconstruction.viewer import viewer_page

from .known_room import HEIGHT, VIEWS, WIDTH


def test_cameras_are_told_in_the_source_s_pixels_too(scene: SyntheticScene):
    frames = read_frames(scene.encoded().views, size=56, patch=14)
    there = frames.network_from_source_px
    K_px = there @ np.stack([view.K_px for view in scene.views])
    cam_from_world = np.linalg.inv([view.world_from_cam for view in scene.views])
    maps = np.ones(frames.images.shape[:3], np.float32)
    document = cameras_document(
        Prediction(frames=frames, depth=maps, confidence=maps, K_px=K_px, cam_from_world=cam_from_world), "m"
    )
    for entry, view in zip(document["views"], scene.views, strict=True):
        assert (entry["name"], entry["width"], entry["height"]) == (view.name, 64, 48)
        np.testing.assert_allclose(entry["K_px"], view.K_px, atol=1e-9)
        np.testing.assert_allclose(entry["world_from_cam"], view.world_from_cam, atol=1e-12)
        both = np.array(entry["cam_from_world"]) @ entry["world_from_cam"]
        np.testing.assert_allclose(both, np.eye(4), atol=1e-12)
        network_K_px = np.array(entry["network_from_source_px"]) @ entry["K_px"]
        np.testing.assert_allclose(network_K_px, entry["network_K_px"])


def test_points_come_back_from_the_ply_file(prediction: Prediction, tmp_path: Path):
    o3d = pytest.importorskip("open3d", reason="PLY files are written by open3d", exc_type=Exception)
    cloud = fuse(prediction)
    write_ply(cloud, tmp_path / "points.ply")
    assert b"binary_little_endian" in (tmp_path / "points.ply").read_bytes()[:40]
    read = o3d.t.io.read_point_cloud(str(tmp_path / "points.ply")).point
    np.testing.assert_array_equal(read.positions.numpy(), cloud.points_world)
    np.testing.assert_array_equal(read.colors.numpy(), cloud.colours)
    np.testing.assert_array_equal(read.confidence.numpy()[:, 0], cloud.confidence)


def test_the_viewer_is_one_page_that_holds_the_points(prediction: Prediction):
    cloud = fuse(prediction)
    far = replace(cloud, points_world=np.where(np.arange(len(cloud))[:, None] == 7, 1e4, cloud.points_world))
    page = viewer_page(prediction, far, title="a<b>/c", notes=["random weights: nothing"])
    assert "a&lt;b&gt;/c" in page
    assert "<b>" not in page
    # Nothing is fetched from anywhere: every address in the page is data.
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)|@import|url\(|https?://", page)
    document = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])
    points = document["points"]
    assert document["fused"] == len(cloud)
    assert document["shown"] == points["count"] == len(cloud) - 1
    quantised = np.frombuffer(base64.b64decode(points["xyz"]), "<u2").reshape(-1, 3)
    shown = np.array(points["low"]) + quantised / 65535 * points["size"]
    step = max(points["size"]) / 65535
    np.testing.assert_allclose(shown, np.delete(cloud.points_world, 7, axis=0), atol=step)
    assert len(base64.b64decode(points["rgb"])) == 3 * points["count"]
    sure = np.frombuffer(base64.b64decode(points["confidence"]), np.uint8)
    assert abs(np.mean(sure < 128) - 0.5) < 0.02
    assert [camera["name"] for camera in document["cameras"]] == list(prediction.frames.names)
    assert np.dot(document["up"], -prediction.world_from_cam[0, :3, 1]) > 0.8


def test_the_viewer_shows_a_scene_without_points(prediction: Prediction):
    empty = fuse(prediction).take(np.zeros(VIEWS * HEIGHT * WIDTH, bool))
    assert isinstance(empty, PointCloud)
    assert '"count": 0' in viewer_page(prediction, empty, title="nothing")


def test_the_contact_sheet_is_the_same_every_time(prediction: Prediction):
    sheet = contact_sheet(prediction, "synthetic/room_0")
    assert sheet == contact_sheet(prediction, "synthetic/room_0")
    assert sheet[:4] == b"\x89PNG"
    colours = coloured(np.array([0.0, 1.0, np.nan]), "turbo")
    assert colours[2].tolist() == [232] * 3
    assert colours[0].tolist() != colours[1].tolist()


def test_depth_is_written_as_it_is(prediction: Prediction, tmp_path: Path):
    write = {"title": "a/b", "unit": "m", "notes": [], "record": {"fingerprint": "f"}}
    cloud = fuse(prediction)
    record = write_reconstruction(tmp_path, prediction, cloud, **write)
    for i, name in enumerate(prediction.frames.names):
        for kind, maps in (("depth", prediction.depth), ("confidence", prediction.confidence)):
            np.testing.assert_array_equal(read_exr((tmp_path / kind / f"{name}.exr").read_bytes()), maps[i])
    assert sorted(record["files"]) == sorted(
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "reconstruction.json"
    )
    assert finished(tmp_path, "f") == record
    assert finished(tmp_path, "g") is None
    # Fewer views: nothing of the others stays behind.
    two = replace(
        prediction,
        frames=replace(
            prediction.frames,
            names=prediction.frames.names[:2],
            images=prediction.frames.images[:2],
            placements=prediction.frames.placements[:2],
            source_sizes=prediction.frames.source_sizes[:2],
        ),
        **{name: getattr(prediction, name)[:2] for name in ("depth", "confidence", "K_px", "cam_from_world")},
    )
    write_reconstruction(tmp_path, two, fuse(two), **write)
    assert len(list((tmp_path / "depth").iterdir())) == 2
    (tmp_path / "viewer.html").unlink()
    assert finished(tmp_path, "f") is None
