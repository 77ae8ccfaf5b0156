"""A room that is known exactly goes through what takes a network's answers, and comes back."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from strata.errors import ConfigError
from strata.extract.encoders.vggt.pose_encoding import encode_pose
from strata.extract.preprocess import Placement
from strata.extract.scenes.exr import read_exr, write_exr
from strata.extract.scenes.folder import inspect_images
from strata.extract.scenes.room import KINDS, Ball, Block, Room, Walls
from strata.extract.scenes.scene import Blob, View
from strata.extract.scenes.synthetic import SyntheticScene, synthetic_scene
from strata.probes.reconstruction.cameras import cameras_document
from strata.probes.reconstruction.contact_sheet import coloured, contact_sheet
from strata.probes.reconstruction.frames import Frames, inside, place_views, read_frames
from strata.probes.reconstruction.fuse import PointCloud, fuse
from strata.probes.reconstruction.network import prediction_of
from strata.probes.reconstruction.outputs import finished, write_reconstruction
from strata.probes.reconstruction.point_file import write_ply
from strata.probes.reconstruction.prediction import Prediction
from strata.probes.reconstruction.truth import score, scores_text
from strata.probes.reconstruction.viewer import viewer_page

HEIGHT, WIDTH, VIEWS = 42, 56, 4
# A network's world is the first camera's, and its unit is its own.
SCALE = 0.37


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return synthetic_scene(0, seed=3, views=VIEWS, width=64, height=48)


@pytest.fixture(scope="module")
def room() -> Room:
    """The room of that scene: it is the first thing that is drawn."""
    return KINDS[0](np.random.default_rng([3, 0]))


@pytest.fixture(scope="module")
def answers(scene: SyntheticScene, room: Room) -> tuple[dict[str, torch.Tensor], Frames]:
    """What a network without a fault would answer, with the frames that it would be asked for."""
    first = scene.views[0].world_from_cam
    K_px = np.array([[38.0, 0, WIDTH / 2], [0, 41.0, HEIGHT / 2], [0, 0, 1]])
    v, u = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    rays_cam = np.stack((u, v, np.ones_like(u)), axis=-1) @ np.linalg.inv(K_px).T
    poses, depths, images = [], [], []
    for view in scene.views:
        eye, rays = view.world_from_cam[:3, 3], rays_cam @ view.world_from_cam[:3, :3].T
        depth, normals, solid = room.cast(eye, rays)
        images.append(room.texture.image(eye + depth[:, None] * rays, normals, solid))
        cam_from_first = np.linalg.inv(view.world_from_cam) @ first
        cam_from_first[:3, 3] *= SCALE
        poses.append(encode_pose(torch.tensor(cam_from_first), torch.tensor(K_px), (HEIGHT, WIDTH)))
        depths.append(SCALE * depth)
    depth = torch.tensor(np.stack(depths)).reshape(VIEWS, HEIGHT, WIDTH, 1)
    outputs = {"pose_enc": torch.stack(poses), "depth": depth, "depth_conf": 1 + 1 / depth[..., 0]}
    frames = Frames(
        names=tuple(view.name for view in scene.views),
        images=np.stack(images).reshape(VIEWS, HEIGHT, WIDTH, 3),
        placements=place_views([(WIDTH, HEIGHT)] * VIEWS, size=WIDTH, patch=14, fit="crop"),
        source_sizes=((WIDTH, HEIGHT),) * VIEWS,
    )
    return outputs, frames


@pytest.fixture(scope="module")
def prediction(answers) -> Prediction:
    return prediction_of(*answers)


def surface_distance_m(room: Room, points_world: np.ndarray) -> np.ndarray:
    """How far points [N, 3] are from the nearest surface of a lounge."""
    distances = []
    for solid in (Walls(size=room.size), *room.furniture):
        if isinstance(solid, Ball):
            distances.append(abs(np.linalg.norm(points_world - solid.centre, axis=-1) - solid.radius))
            continue
        assert isinstance(solid, Block | Walls)
        low, high = (solid.low, solid.high) if isinstance(solid, Block) else ((0, 0, 0), solid.size)
        beyond = np.maximum(np.subtract(low, points_world), points_world - high)
        outside = np.linalg.norm(beyond.clip(0), axis=-1)
        distances.append(np.where(outside > 0, outside, -beyond.max(-1)))
    return np.min(distances, axis=0)


def in_the_room(points: np.ndarray, scene: SyntheticScene) -> np.ndarray:
    first = scene.views[0].world_from_cam
    return points.astype(np.float64) / SCALE @ first[:3, :3].T + first[:3, 3]


def test_the_room_s_surfaces_come_back(prediction: Prediction, room: Room, scene: SyntheticScene):
    cloud = fuse(prediction)
    assert len(cloud) == VIEWS * HEIGHT * WIDTH
    points = in_the_room(cloud.points_world, scene)
    assert surface_distance_m(room, points).max() < 2e-6
    # The check itself sees a shift of a centimetre.
    assert np.median(surface_distance_m(room, points + 0.01)) > 5e-3
    np.testing.assert_array_equal(cloud.colours, prediction.frames.images.reshape(-1, 3))
    assert np.bincount(cloud.view).tolist() == [HEIGHT * WIDTH] * VIEWS


def test_the_room_s_cameras_come_back(prediction: Prediction, scene: SyntheticScene):
    for view, world_from_cam in zip(scene.views, prediction.world_from_cam, strict=True):
        centre = in_the_room(world_from_cam[None, :3, 3], scene)[0]
        np.testing.assert_allclose(centre, view.world_from_cam[:3, 3], atol=1e-9)
        turned = scene.views[0].world_from_cam[:3, :3] @ world_from_cam[:3, :3]
        np.testing.assert_allclose(turned, view.world_from_cam[:3, :3], atol=1e-9)
    np.testing.assert_allclose(prediction.K_px[0, [0, 1], [0, 1]], (38, 41), rtol=1e-12)


def test_the_point_head_is_taken_when_asked_for(answers):
    outputs, frames = answers
    points = torch.arange(VIEWS * HEIGHT * WIDTH * 3.0).reshape(VIEWS, HEIGHT, WIDTH, 3)
    heads = {"world_points": points, "world_points_conf": torch.full((VIEWS, HEIGHT, WIDTH), 2.0)}
    cloud = fuse(prediction_of({**outputs, **heads}, frames), source="head")
    np.testing.assert_array_equal(cloud.points_world, points.reshape(-1, 3).numpy())
    with pytest.raises(ConfigError, match="no head for points"):
        fuse(prediction_of(outputs, frames), source="head")
    with pytest.raises(ConfigError, match="points=dpeth is not known"):
        fuse(prediction_of(outputs, frames), source="dpeth")


def test_the_least_sure_pixels_are_dropped(prediction: Prediction):
    everything, half = fuse(prediction), fuse(prediction, drop_percent=50)
    assert len(half) == pytest.approx(len(everything) / 2, rel=1e-3)
    # Confidence falls with depth here, so the nearer half stays.
    assert half.depth.max() <= np.percentile(everything.depth, 51)
    flat = replace(prediction, confidence=np.ones_like(prediction.confidence))
    assert len(fuse(flat, drop_percent=50)) == len(everything)


def test_what_is_no_depth_is_no_point(prediction: Prediction):
    depth = prediction.depth.copy()
    depth[0, 0, :4] = 0, -1, np.nan, np.inf
    holed = replace(prediction, depth=depth)
    assert len(fuse(holed)) == VIEWS * HEIGHT * WIDTH - 4
    assert holed.shown_depth[0, 0, :4].tolist() == [0, 0, 0, 0]


def test_thinning_keeps_whole_points_and_is_the_same_every_time(prediction: Prediction):
    cloud = fuse(prediction)
    thin = cloud.thinned(500)
    assert len(thin) == 500
    rows = {tuple(row) for row in cloud.points_world}
    assert all(tuple(row) in rows for row in thin.points_world)
    np.testing.assert_array_equal(thin.points_world, cloud.thinned(500).points_world)
    assert len(set(thin.view.tolist())) == VIEWS
    assert cloud.thinned(len(cloud)) is cloud


def test_a_field_of_view_of_nothing_is_cut_and_said(answers):
    outputs, frames = answers
    pose = outputs["pose_enc"].clone()
    pose[1, 7:] = 0
    odd = prediction_of({**outputs, "pose_enc": pose}, frames)
    assert np.isfinite(odd.K_px).all()
    assert odd.notes == ("1 fields of view outside 1 to 175 degrees were cut to that",)
    assert prediction_of(outputs, frames).notes == ()


def test_scores_of_what_is_exact(prediction: Prediction, scene: SyntheticScene):
    views = scored_views(prediction, scene)
    scores = score(prediction, views)
    assert scores["pose_auc_30"] == pytest.approx(100, abs=1e-4)
    assert scores["ate_rmse"] < 1e-6
    assert scores["depth_abs_rel"] < 1e-6
    assert scores["scale"] == pytest.approx(1 / SCALE, rel=1e-9)
    back = np.array(scores["truth_from_prediction"])
    first = back @ [*prediction.world_from_cam[0, :3, 3], 1]
    np.testing.assert_allclose(first[:3], scene.views[0].world_from_cam[:3, 3], atol=1e-9)
    assert scores_text(scores)[0] == "AUC@30 100.0"


def test_scores_of_what_is_wrong(prediction: Prediction, scene: SyntheticScene):
    views = scored_views(prediction, scene)
    deeper = score(replace(prediction, depth=1.1 * prediction.depth), views)
    assert deeper["depth_abs_rel"] == pytest.approx(0.1)
    shifted = prediction.cam_from_world.copy()
    shifted[1, 0, 3] += 0.1
    moved = score(replace(prediction, cam_from_world=shifted), views)
    assert moved["ate_rmse"] > 0.02
    assert moved["pose_auc_30"] < 95


def test_what_has_no_truth_has_no_scores(prediction: Prediction, scene: SyntheticScene):
    views = scored_views(prediction, scene)
    assert score(prediction, [replace(view, world_from_cam=None) for view in views]) is None
    assert score(prediction, [replace(views[0], world_from_cam=None), *views[1:]]) is None
    without_depth = score(prediction, [replace(view, depth=None) for view in views])
    assert without_depth["depth_abs_rel"] is None
    assert len(scores_text(without_depth)) == 2
    assert scores_text(None) == []


def scored_views(prediction: Prediction, scene: SyntheticScene) -> list[View]:
    """Views of the network's own pixels."""
    return [
        View(
            name=view.name,
            image=Blob(suffix="png", data=b""),
            depth=Blob(suffix="exr", data=write_exr(depth / np.float32(SCALE), half=False)),
            world_from_cam=view.world_from_cam,
        )
        for view, depth in zip(scene.views, prediction.depth, strict=True)
    ]


# ---- frames: what the network sees of the source


def test_frames_are_those_of_the_published_preprocessing(shared: Path):
    golden = shared / "golden" / "vggt"
    expected = np.load(golden / "fn_preprocess.npz")
    for name in ("rgb_64x40", "rgba_40x72"):
        views = inspect_images([golden / f"pre_{name}.png"], "a/b").require().views
        for fit in ("crop", "pad"):
            image = read_frames(views, size=518, patch=14, fit=fit).images[0].transpose(2, 0, 1)
            assert abs(image.astype(int) - expected[f"{name}.{fit}"]).max() <= 1
    table = json.loads((golden / "fn_manifest.json").read_text())["fn_preprocess"]["output_shape_table"]
    for size, shapes in table.items():
        if re.fullmatch(r"\d+x\d+", size):
            for fit, shape in shapes.items():
                placed = place_views([tuple(map(int, size.split("x")))], size=518, patch=14, fit=fit)
                assert list(placed[0].target) == shape[2:]


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pixels_find_their_way_to_the_source(fit: str):
    """A ramp tells where each pixel came from; mixed sizes get borders, tall ones are cut."""
    sizes = [(80, 60), (60, 80), (48, 36)]
    for placement, (width, height) in zip(place_views(sizes, size=56, patch=14, fit=fit), sizes, strict=True):
        assert placement.target == (56, 56)
        ramp = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
        shown = resized(ramp, placement)
        sx, tx, *_ = placement.affine
        u = np.flatnonzero(inside(placement)[28])
        expected = (u - tx) / sx
        middle = (expected > 2) & (expected < width - 3)
        np.testing.assert_allclose(shown[28, u][middle], expected[middle], atol=0.06)


def resized(plane: np.ndarray, placement: Placement) -> np.ndarray:
    whole = np.asarray(Image.fromarray(plane).resize(placement.resized[::-1], Image.Resampling.BILINEAR))
    canvas = np.full((300, 300), np.nan)
    canvas[100 : 100 + whole.shape[0], 100 : 100 + whole.shape[1]] = whole
    top, left = 100 + placement.top, 100 + placement.left
    return canvas[top : top + placement.target[0], left : left + placement.target[1]]


def test_borders_are_white_and_hold_no_points(scene: SyntheticScene):
    views = scene.encoded().views
    tall = synthetic_scene(0, seed=3, views=1, width=30, height=60).encoded().views
    frames = read_frames([views[0], tall[0]], size=56, patch=14, fit="pad")
    assert frames.images.shape == (2, 56, 56, 3)
    assert not frames.inside[0, :7].any()
    assert frames.inside[0, 7:49].all()
    assert (frames.images[~frames.inside] == 255).all()
    ones = np.ones((2, 56, 56), np.float32)
    K_px, poses = np.tile(np.diag([40.0, 40, 1]), (2, 1, 1)), np.tile(np.eye(4), (2, 1, 1))
    whole = Prediction(frames=frames, depth=ones, confidence=ones, K_px=K_px, cam_from_world=poses)
    assert len(fuse(whole)) == frames.inside.sum() == (whole.shown_depth > 0).sum()


@pytest.mark.parametrize(
    ("size", "fit", "match"), [(500, "crop", "size=504"), (56, "corp", "did you mean crop")]
)
def test_a_size_or_fit_that_makes_no_sense(size: int, fit: str, match: str):
    with pytest.raises(ConfigError) as error:
        place_views([(80, 60)], size=size, patch=14, fit=fit)
    assert match in str(error.value)


# ---- files


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
