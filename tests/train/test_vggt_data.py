"""What a VGGT is trained on: the same views whenever they are asked for, each once, on one grid."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.configs.schema import ExtractConfig, PackConfig
from strata.errors import ConfigError, TrainError
from strata.extract.pack import pack
from strata.extract.run import run as extract
from strata.store.schema import ViewSet
from strata.store.view_sets import read_sets
from strata.train.data import open_data
from strata.train.distributed import Shard
from strata.train.draws import Covisible, Draw, SetDraws, WalkDraws, placed_sets
from strata.train.scene_choice import choose_scenes
from strata.train.set_batches import SetBatches
from strata.train.vggt_command import make_task
from strata.train.view_counts import BatchOptions
from strata.train.views import Look, SetViews, ViewSource, collated

ALONE = Shard()


def batches_of(config, console, epoch=0, start=0, count=2, shard=ALONE):
    task, _ = make_task(config, console)
    iterator = task.batches(epoch, start, shard)
    found = list(itertools.islice(iterator, count))
    iterator.close()
    return found


def assert_equal(a, b):
    assert a["draws"] == b["draws"]
    for name in ("images", "depth", "K_px", "world_from_cam"):
        assert torch.equal(a[name], b[name]), name


def test_a_batch_is_the_same_from_wherever_the_epoch_is_entered(training, console):
    config = training(augment="mapanything", views=[2, 3], set_count=4)
    whole = batches_of(config, console, epoch=1, count=4)
    for start in (1, 3):
        assert_equal(whole[start], batches_of(config, console, epoch=1, start=start, count=1)[0])
    assert whole[0]["draws"] != batches_of(config, console, epoch=0, count=1)[0]["draws"]


def test_augmentation_changes_images_and_not_the_truth_without_a_cut(training, console):
    plain = batches_of(training(fit="stretch"), console, count=1)[0]
    changed = batches_of(training(fit="stretch", augment="mapanything"), console, count=1)[0]
    assert torch.equal(plain["depth"], changed["depth"])
    assert not torch.allclose(plain["images"] / 255, changed["images"], atol=0.02)


def test_the_augmentation_of_vggt_leaves_out_the_farthest_depth_of_each_image(training, console):
    """Images of 42 x 56 stay as large as they are, so that the limit can be found in them again."""
    plain = batches_of(training(fit="stretch"), console, count=1)[0]
    cut = batches_of(training(fit="stretch", augment="vggt"), console, count=1)[0]
    for before, after in zip(plain["depth"].flatten(0, 1), cut["depth"].flatten(0, 1), strict=True):
        there = sorted(before[before > 0].tolist())
        kept = sorted(after[after > 0].tolist())
        assert kept == there[: len(kept)], "what stays is nearest, and is not changed"
        # The 98th percentile lies between the values at 0.98 (n - 1), and none here is there twice.
        assert len(kept) == int(0.98 * (len(there) - 1)) + 1
        assert torch.equal(after > 0, (before > 0) & (before <= kept[-1]))
    held_out = make_task(training(augment="vggt"), console)[0].held_out
    assert held_out.look.augment is None


def test_shards_give_the_batches_of_the_scenes_they_were_packed_from(training, rooms, console):
    for ours, theirs in zip(
        batches_of(training(), console), batches_of(training(scenes=rooms.shards), console), strict=True
    ):
        assert_equal(ours, theirs)


def test_the_first_view_is_the_world_and_depth_reprojects(training, console):
    batch = batches_of(training(), console, count=1)[0]
    eye = torch.eye(4).expand(len(batch["depth"]), 4, 4)
    torch.testing.assert_close(batch["world_from_cam"][:, 0], eye, atol=1e-12, rtol=0)
    assert batch["depth"].shape == (2, 2, 42, 56)
    assert (batch["depth"] > 0).float().mean() > 0.9


def test_two_ranks_share_out_every_set_of_an_epoch(training, rooms, console):
    config = training(sets=rooms.sets, max_images=6)
    per_rank = [batches_of(config, console, count=2, shard=Shard(rank=rank, count=2)) for rank in range(2)]
    ranks = [[draw for batch in batches for draw in batch["draws"]] for batches in per_rank]
    task, _ = make_task(config, console)
    assert task.steps(Shard(rank=0, count=2)) == 2
    assert len({*ranks[0], *ranks[1]}) == len(ranks[0]) + len(ranks[1]) == 8


def test_an_epoch_goes_on_with_its_sets_in_another_order(training, rooms, console):
    config = training(sets=rooms.sets, steps_per_epoch=9, max_images=4)
    task, _ = make_task(config, console)
    assert task.steps(ALONE) is None
    draws = [batch["draws"] for batch in batches_of(config, console, count=9)]
    turns = [[draw for batch in part for draw in batch] for part in (draws[:4], draws[4:8])]
    assert set(turns[0]) == set(turns[1])
    assert turns[0] != turns[1]
    assert_equal(batches_of(config, console, start=6, count=1)[0], batches_of(config, console, count=7)[6])


def test_more_ranks_than_sets_are_refused(training, rooms, console):
    with pytest.raises(TrainError, match="8 view sets cannot be shared out to 9 processes"):
        batches_of(training(sets=rooms.sets), console, shard=Shard(rank=0, count=9))


def test_walks_from_views_that_see_nothing_are_drawn_again():
    covisibility = np.eye(12, dtype=np.float32)
    covisibility[3, 7] = covisibility[7, 3] = 0.5
    scene = Covisible(scene="d/s", names=tuple(map(str, range(12))), covisibility=covisibility)
    draws = WalkDraws([scene], {"d": 0.4}, 20)
    assert draws.counts() == {"d": 20}
    drawn = [draws.draw("d", item, 3, np.random.default_rng(item)) for item in range(20)]
    assert {frozenset(one.names) for one in drawn} == {frozenset(("3", "7"))}
    assert scene.connects(0.4)
    assert not scene.connects(0.6)


def test_scenes_whose_views_see_nothing_are_left_out(training, console):
    with pytest.raises(TrainError, match=r"no two views have covisibility above 0\.999"):
        make_task(training(set_threshold=0.999), console)
    assert "left out synthetic/room_0: no two views" in console.file.getvalue()


def test_an_aspect_gives_whole_patches(training, console):
    sizes = {
        tuple(b["images"].shape[-2:]) for b in batches_of(training(aspects=[0.3, 1.0]), console, count=6)
    }
    assert len(sizes) > 1
    assert all(height % 14 == 0 and width == 56 for height, width in sizes)


def test_a_batch_has_as_many_views_as_its_smallest_set():
    def views(n: int) -> SetViews:
        names = tuple(map(str, range(n)))
        zeros = torch.zeros(n, 4, 4)
        return SetViews(draw=Draw(scene="a/b", names=names), depth=zeros, K_px=zeros, world_from_cam=zeros)

    batch = collated([views(3), views(2)])
    assert batch["depth"].shape == (2, 2, 4, 4)


class Named(ViewSource):
    """Gives draws alone."""

    def read(self, draw, look, generator):
        nothing = torch.zeros(len(draw.names), 4, 4)
        return SetViews(draw=draw, depth=nothing, K_px=nothing, world_from_cam=nothing)


def test_sets_of_different_grids_share_no_batch():
    sets = [Draw(scene=f"d/{i}", names=("a", "b"), grid=(3, 4) if i % 3 else (4, 3)) for i in range(12)]
    batches = SetBatches(
        views=Named(),
        draws=SetDraws(sets),
        mix={"d": 12},
        options=BatchOptions(max_images=6, views=(2, 2)),
        size=None,
        patch=14,
        augment=None,
        seed=0,
    )
    iterator = batches.batches(0, 0, Shard())
    epoch = [next(iterator)["draws"] for _ in range(batches.steps(1))]
    iterator.close()
    assert sorted(draw.scene for draws in epoch for draw in draws) == sorted(one.scene for one in sets)
    assert all(len({draw.grid for draw in draws}) == 1 for draws in epoch)
    grids = [draws[0].grid for draws in epoch]
    assert grids != sorted(grids)
    assert grids != sorted(grids, reverse=True)


def test_a_set_on_two_grids_or_of_one_view_is_not_placed():
    def one(*names: str) -> ViewSet:
        return ViewSet(scene="d/s", members=names, images=tuple("0" * 64 for _ in names))

    grids = {("d/s", "a"): (3, 4), ("d/s", "b"): (3, 4), ("d/s", "c"): (4, 3)}
    placed, lost = placed_sets([one("a", "b"), one("a", "c"), one("a", "x"), one("b", "x", "a")], grids)
    assert [draw.names for draw in placed] == [("a", "b"), ("b", "a")]
    assert placed[0].grid == (3, 4)
    assert lost == 2


IDS = ["d/a", "d/b", "d/c", "e/a"]
SPLITS = {"test/d": ("d/a",), "train/d": ("d/b", "d/c")}


@pytest.mark.parametrize(
    ("words", "train", "held_out"),
    [
        ({}, ["d/b", "d/c", "e/a"], []),
        ({"split": "train"}, ["d/b", "d/c"], []),
        ({"scene": "d/*"}, ["d/a", "d/b", "d/c"], []),
        ({"mix": "5 @ d + 2 @ e"}, ["d/b", "d/c", "e/a"], []),
        ({"val_scene": "d/c"}, ["d/b", "e/a"], ["d/c"]),
        ({"split": "train", "val_split": "test"}, ["d/b", "d/c"], ["d/a"]),
    ],
)
def test_scenes_are_trained_on_or_held_out(training, words, train, held_out):
    config = training(**{"scene": None, "val_scene": None, **words})
    chosen = choose_scenes(IDS, SPLITS, config, "here")
    assert (list(chosen.train), list(chosen.held_out)) == (train, held_out)


def test_test_scenes_are_refused(training):
    with pytest.raises(ConfigError, match="test split are not trained on"):
        choose_scenes(IDS, SPLITS, training(split="test/d"), "here")


def test_a_mix_counts_samples_of_datasets(training, console):
    data = open_data(training(mix="5 @ synthetic"), print)
    assert data.mix == {"synthetic": 5}
    with pytest.raises(TrainError, match="nothing to draw from"):
        make_task(training(mix="5 @ synthetic + 2 @ eth3d"), console)[0].steps(Shard())


def test_nothing_to_train_on_is_explained(training, console):
    with pytest.raises(TrainError, match=r"nothing to train on[\s\S]*test splits"):
        make_task(training(scene=None, val_scene="*/room_[01]"), console)


def without_depth(scenes: Path, scene: str, frames: slice) -> None:
    """Take the depth of these frames away from a room."""
    path = scenes / "synthetic" / scene / "scene_meta.json"
    document = json.loads(path.read_text())
    for frame in document["frames"][frames]:
        (path.parent / frame.pop("depth")).unlink()
    path.write_text(json.dumps(document))


@pytest.fixture
def bare(rooms, tmp_path) -> Path:
    """A copy of the rooms, to take from."""
    return Path(shutil.copytree(rooms.folder / "scenes", tmp_path / "bare"))


def test_scenes_without_depth_are_left_out_with_the_reason(training, bare, console):
    for scene in ("room_0", "room_1"):
        without_depth(bare, scene, slice(None))
    with pytest.raises(TrainError, match="no view has depth"):
        make_task(training(scenes=str(bare)), console)


def test_views_without_depth_drop_out_of_sets_online_and_stored(training, rooms, bare, tmp_path, console):
    without_depth(bare, "room_0", slice(1, 3))
    shards, store = str(tmp_path / "shards"), str(tmp_path / "f.zarr")
    pack(PackConfig(scenes=str(bare), out=shards), console)
    encoder = {"encoder": "vit_tiny_demo", "weights": "random:0"}
    words = {"layers": ["norm"], "pixels": [42, 56], "orient": "scene", "sets": rooms.sets, "shards": shards}
    extract(ExtractConfig(store=store, **encoder, **words), console)
    found = []
    for source in ({"scenes": str(bare)}, {"source": "store", "store": store, "sets": None}):
        config = training(**{"sets": rooms.sets, "views": [3, 3], "scene": "*/room_0", **encoder, **source})
        task, _ = make_task(config, console)
        drawn = task.train.draws
        sets = [drawn.draw("synthetic", i, 3, None) for i in range(drawn.counts()["synthetic"])]
        found.append([(one.scene, one.names) for one in sets])
    assert found[0] == found[1]
    scene = json.loads((bare / "synthetic" / "room_0" / "scene_meta.json").read_text())
    bare_views = {frame["frame_name"] for frame in scene["frames"][1:3]}
    assert not any(bare_views & set(names) for _, names in found[0])
    before = [one.members for one in read_sets(rooms.sets) if one.scene == "synthetic/room_0"]
    assert any(bare_views & set(members) for members in before)


def test_the_pixels_of_a_look_are_those_of_the_images(training, console):
    data = open_data(training(), print)
    draw = data.held_out[0]
    pictures = data.views.pictures(draw, Look(size=(28, 42)))
    assert pictures.shape == (len(draw.names), 28, 42, 3)
    assert pictures.dtype == np.uint8
