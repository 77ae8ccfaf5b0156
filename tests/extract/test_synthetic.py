"""The analytic rooms: exact, varied, and the same from every side."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

from dataclasses import replace

import numpy as np
import pytest
import torch
from strata.configs.schema import ScenesConfig, SynthConfig
from strata.errors import ConfigError, SceneError
from strata.extract.scenes.agreement import scene_agreement
from strata.extract.scenes.covisibility import pairwise_covisibility
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.listing import ls
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.room import Ball, Block, Pillar, Walls
from strata.extract.scenes.synth_command import synth
from strata.extract.scenes.synthetic import SyntheticSource, synthetic_scene
from strata.kernels.geometry import project, transform, unproject_depth

SCENES = [synthetic_scene(0, 0, 6, 96, 72), synthetic_scene(1, 0, 6, 96, 72, mixed=True)]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.id)
def test_depth_and_cameras_lead_to_the_analytic_points(scene):
    for view in scene.views:
        depth, K, pose = map(torch.from_numpy, (view.depth_m.astype(float), view.K_px, view.world_from_cam))
        world = unproject_depth(depth, K, pose).numpy()
        np.testing.assert_allclose(world, view.point_world, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(view.normal_world, axis=-1), 1, atol=1e-6)
        towards = view.world_from_cam[:3, 3] - view.point_world
        assert ((towards * view.normal_world).sum(-1) > 0).all()


def seen_from(b, a):
    """Pixels u, v of b and z-depth of the points of a that fall into b, and which of a's pixels do."""
    pose_b, K_b = torch.from_numpy(b.world_from_cam), torch.from_numpy(b.K_px)
    points = torch.from_numpy(a.point_world.reshape(-1, 3))
    uv, z = project(transform(torch.linalg.inv(pose_b), points), K_b)
    u, v = uv.nan_to_num(-1).round().long().T.numpy()
    inside = (u >= 0) & (u < b.image.shape[1]) & (v >= 0) & (v < b.image.shape[0]) & (z > 0).numpy()
    return u[inside], v[inside], z.numpy()[inside], inside


def in_millimetres(pose):
    scaled = pose.copy()
    scaled[:3, 3] *= 1000
    return scaled


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.id)
def test_points_seen_twice_have_one_colour_and_one_depth(scene):
    a, b = scene.views[0], scene.views[1]
    u, v, _, inside = seen_from(b, a)
    near = np.linalg.norm(b.point_world[v, u] - a.point_world.reshape(-1, 3)[inside], axis=-1) < 0.02
    assert near.sum() > 200
    seen = a.image.reshape(-1, 3)[inside][near].astype(int)
    assert np.abs(seen - b.image[v, u][near]).mean() < 12
    assert seen.std() > 20
    same = a.solid.ravel()[inside][near] == b.solid[v, u][near]
    assert same.mean() > 0.95


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_share_more_than_the_ends(index, seed):
    shares = synthetic_scene(index, seed, 8, 64, 48, mixed=index == 1).covisibility
    symmetric = (shares + shares.T) / 2
    assert symmetric.diagonal(1).min() > 0.25
    assert symmetric[0, -1] < 0.6 * symmetric.diagonal(1).mean()
    np.testing.assert_array_equal(shares.diagonal(), 1)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.id)
def test_depth_agrees_through_the_cameras_and_through_no_others(scene):
    encoded = scene.encoded()

    def posed(change):
        views = (replace(view, world_from_cam=change(view.world_from_cam)) for view in encoded.views)
        return replace(encoded, views=tuple(views))

    assert scene_agreement(encoded) > 0.5
    for change in (np.linalg.inv, lambda pose: pose @ np.diag([1.0, -1, -1, 1]), in_millimetres):
        assert scene_agreement(posed(change)) < 0.2


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.id)
def test_what_does_not_agree_is_hidden_behind_something_nearer(scene):
    behind = compared = 0
    for a in scene.views:
        for b in scene.views:
            u, v, z, _ = seen_from(b, a)
            there = b.depth_m[v, u]
            behind += (there > 1.06 * z).sum()
            compared += len(z)
    # What is left lies on silhouettes, where the nearest pixel is a pixel off.
    assert behind < 0.03 * compared


def test_covisibility_follows_the_definition():
    """Against a loop over pixels, written from the definition."""
    views = SCENES[1].views[:2]
    maps = [view.depth_m[::6, ::6] * (np.arange(view.depth_m.shape[1])[::6] > 9) for view in views]
    scale = np.array([[1 / 6], [1 / 6], [1]])
    Ks, poses = [view.K_px * scale for view in views], [view.world_from_cam for view in views]
    expected = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            for (row, col), z in np.ndenumerate(maps[i]):
                cam = np.linalg.inv(Ks[i]) @ [col, row, 1] * z
                x, y, depth = (np.linalg.inv(poses[j]) @ poses[i] @ [*cam, 1])[:3]
                if z <= 0 or depth <= 0.04:
                    continue
                u, v = (Ks[j] @ [x, y, depth])[:2] / depth
                height, width = maps[j].shape
                if -1e-6 <= u < width and -1e-6 <= v < height:
                    there = maps[j][min(round(v), height - 1), min(round(u), width - 1)]
                    expected[i, j] += abs(depth - there) < 0.1 + 0.005 * depth + np.log(2) * 0.1
            expected[i, j] /= maps[i].size
    assert 0.1 < expected[0, 1] < 0.9
    np.testing.assert_allclose(pairwise_covisibility(maps, Ks, poses), expected, atol=0.004)


@pytest.mark.parametrize("name", ["hololens/office_a", "tsdf/bin"])
def test_covisibility_of_real_scenes_is_the_stored_one(real_scenes, name):
    scene = open_scenes(real_scenes / name.partition("/")[0]).scene(name)
    views = scene.views[:4]
    found = pairwise_covisibility(
        [decode_view(view).depth_m for view in views],
        [view.K_px for view in views],
        [view.world_from_cam for view in views],
    )
    np.testing.assert_allclose(found, scene.covisibility[:4, :4], atol=0.004)


def test_solids_end_rays_where_they_should():
    rays = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 1e-9, 0]])
    origin = np.array([1.0, 2.0, 1.0])
    with np.errstate(all="ignore"):
        block = Block(low=(2, 1.5, 0.5), high=(3, 2.5, 1.5)).hit(origin, rays)
        ball = Ball(centre=(4, 2, 1), radius=0.5).hit(origin, rays)
        pillar = Pillar(centre=(1, 4), radius=0.25).hit(origin, rays)
        walls = Walls(size=(6, 5, 3)).hit(origin, rays)
    np.testing.assert_allclose(block[0], [1, np.inf, np.inf])
    np.testing.assert_allclose(ball[0], [2.5, np.inf, np.inf])
    np.testing.assert_allclose(pillar[0], [np.inf, 1.75, np.inf])
    np.testing.assert_allclose(walls[0], [5, 3, 1])
    np.testing.assert_allclose(block[1][0], [-1, 0, 0])
    np.testing.assert_allclose(ball[1][0], [-1, 0, 0])
    np.testing.assert_allclose(pillar[1][1], [0, -1, 0])
    np.testing.assert_allclose(walls[1], [[-1, 0, 0], [0, -1, 0], [1, 0, 0]])


def test_a_seed_decides_everything():
    once, again, other = (synthetic_scene(0, seed, 2, 32, 24) for seed in (3, 3, 4))
    assert once.encoded().digest == again.encoded().digest
    assert once.encoded().digest != other.encoded().digest


def test_the_source_mixes_sizes_in_its_last_scene():
    source = SyntheticSource(2, views=4, width=32, height=24)
    plain, mixed = source
    assert {decode_view(view).image.shape[:2] for view in plain.views} == {(24, 32)}
    shapes = [decode_view(view).image.shape[:2] for view in mixed.views]
    assert shapes == [(24, 32), (32, 24), (18, 24), (24, 18)]
    decoded, truth = decode_view(mixed.views[1]), source.analytic(mixed.id).views[1]
    np.testing.assert_array_equal(decoded.depth_m, truth.depth_m)
    np.testing.assert_array_equal(decoded.image, truth.image)
    with pytest.raises(SceneError, match="no scene synthetic/room_7"):
        source.scene("synthetic/room_7")


def test_synth_writes_wai_scenes_and_ls_lists_them(tmp_path, console):
    config = SynthConfig(out=str(tmp_path), scenes=2, views=4, width=32, height=24)
    assert synth(config, console) == 0
    assert synth(config, console) == 0
    source = open_scenes(tmp_path, split="test")
    assert [scene.digest for scene in source] == [
        scene.digest for scene in SyntheticSource(2, views=4, width=32, height=24)
    ]
    assert ls(ScenesConfig(scenes=str(tmp_path)), console) == 0
    printed = console.file.getvalue()
    assert "synthetic/room_0" in printed
    assert "32x24" in printed
    names = np.load(tmp_path / "metadata" / "test" / "synthetic_scene_list_test.npy")
    assert names.tolist() == ["room_0", "room_1"]


@pytest.mark.parametrize(
    ("rooms", "counts"),
    [
        (1, {"test": 1}),
        (2, {"test": 2}),
        (3, {"train": 1, "val": 1, "test": 1}),
        (25, {"train": 21, "val": 2, "test": 2}),
    ],
)
def test_rooms_are_split_into_train_val_and_test(rooms, counts):
    source = SyntheticSource(rooms)
    splits = source.splits()
    assert {name.partition("/")[0]: len(ids) for name, ids in splits.items()} == counts
    assert [scene_id for ids in splits.values() for scene_id in ids] == source.ids()


def test_synth_writes_the_splits_for_every_command(tmp_path, console):
    synth(SynthConfig(out=str(tmp_path), scenes=3, views=2, width=16, height=16), console)
    assert open_scenes(tmp_path, split="train").ids() == ["synthetic/room_0"]
    assert open_scenes(tmp_path).splits() == SyntheticSource(3).splits()
    assert "split val: 1 of 3" in console.file.getvalue()


def test_ls_shows_broken_scenes_as_rows(tmp_path, console):
    synth(SynthConfig(out=str(tmp_path), scenes=2, views=2, width=32, height=24), console)
    (tmp_path / "synthetic" / "room_0" / "images" / "0001.png").unlink()
    assert ls(ScenesConfig(scenes=str(tmp_path)), console) == 1
    printed = console.file.getvalue()
    assert "synthetic/room_0 lacks 1 file." in printed
    assert "images/0001.png" in printed
    assert "synthetic/room_1" in printed


def test_synth_refuses_numbers_that_make_no_scene(tmp_path, console):
    with pytest.raises(ConfigError, match="views=0 is too small"):
        synth(SynthConfig(out=str(tmp_path), views=0), console)
