"""It learns: a few sets by heart, and of many rooms what helps in rooms that it never saw."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from strata.configs.load import load
from strata.configs.schema import SetsConfig, SynthConfig, TrainVGGTConfig
from strata.extract.encoders.vggt.pose_encoding import encode_pose
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.kernels.geometry import invert_rigid
from strata.store.schema import ViewSet
from strata.store.view_sets import read_sets, write_sets
from strata.train.distributed import Shard
from strata.train.draws import Draw
from strata.train.fit import fit
from strata.train.held_out import HeldOut
from strata.train.normalise import normalised
from strata.train.vggt import VGGTTask
from strata.train.vggt_batch import true_geometry
from strata.train.vggt_command import make_task
from strata.train.views import Look
from torch import Tensor, nn

Measures = Mapping[str, float]


class Constant(nn.Module):
    """Answers the mean camera of each number in a set and the median depth of each pixel, come what may."""

    def __init__(self, poses: Tensor, depth: Tensor) -> None:
        super().__init__()
        self.poses, self.depth = nn.Parameter(poses), depth

    def forward(self, images: Tensor, tokens: None) -> dict[str, Tensor]:
        sets, views = images.shape[:2]
        depth = self.depth.expand(sets, views, *self.depth.shape)[..., None]
        return {"pose_enc": self.poses[:views].expand(sets, -1, -1), "depth": depth}


def constant_of(task: VGGTTask, count: int) -> Constant:
    """The best that can be said of the sets of some batches without looking at them."""
    poses, depths = [], []
    batches = task.batches(0, 0, Shard())
    for batch in (next(batches) for _ in range(count)):
        truth, valid = true_geometry(batch["depth"], batch["K_px"], batch["world_from_cam"])
        truth = normalised(truth, valid)
        size = (truth.depth.shape[-2], truth.depth.shape[-1])
        poses.append(encode_pose(invert_rigid(truth.world_from_cam), truth.K_px, size))
        depths.append(truth.depth.flatten(0, 1))
    batches.close()
    return Constant(torch.cat(poses).mean(0), torch.cat(depths).median(0).values)


def validations(config: TrainVGGTConfig) -> list[Measures]:
    rows = map(json.loads, (Path(config.out) / "log.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "validation"]


def synthesised(folder: Path, scenes: int, views: int, width: int, height: int) -> str:
    config = SynthConfig(out=str(folder), scenes=scenes, views=views, width=width, height=height, seed=3)
    synth(config, Console(file=io.StringIO()))
    return str(folder)


def test_rooms_that_were_never_seen_get_better(training, console, tmp_path):
    """Of ten rooms, which were trained on for a moment, and one that was held out."""
    config = training(
        scenes=synthesised(tmp_path / "rooms", scenes=12, views=5, width=56, height=42),
        scene=None,
        split="train",
        val_scene=None,
        val_split="val",
        mix="240 @ synthetic",
        views=[2, 2],
        max_images=12,
        lr=4e-3,
        validate_first=True,
        checkpoint_every=None,
    )
    task, _ = make_task(config, console)
    fit(task, config, console)
    before, after = validations(config)
    assert (before["step"], before["epoch"]) == (0, 0)
    assert after["loss"] < 0.6 * before["loss"]
    for name in ("pointmaps_abs_rel", "z_depth_abs_rel", "ray_dirs_err_deg"):
        assert after[name] < 0.85 * before[name], (name, before, after)


def sets_of(folder: Path) -> tuple[str, list[ViewSet]]:
    """A file of sets of 23 rooms, the first twelve to train on; and other sets of those twelve."""
    scenes, path = (
        synthesised(folder / "rooms", scenes=24, views=8, width=84, height=63),
        folder / "sets.json",
    )
    options = {"set_views": 3, "set_count": 40, "set_threshold": 0.4}
    make(SetsConfig(scenes=scenes, out=str(path), **options), Console(file=io.StringIO()))
    sets = [one for one in read_sets(path) if one.scene != "synthetic/room_23"]  # of mixed sizes
    first = {f"synthetic/room_{k}" for k in range(12)}
    # Views in another order are no other set.
    turns = {(one.scene, frozenset(one.members)): int(one.digest[:8], 16) % 4 for one in sets}
    held = [one for one in sets if one.scene in first and not turns[one.scene, frozenset(one.members)]]
    write_sets(path, [one for one in sets if one not in held], sampler=options)
    for name, scenes_of in (("train", first), ("unseen", {one.scene for one in sets} - first)):
        (folder / f"{name}.json").write_text(json.dumps(sorted(scenes_of)))
    return str(path), held


@pytest.mark.slow
def test_the_tiny_preset_learns_what_helps_with_sets_and_with_rooms_that_it_never_saw(console, tmp_path):
    """It gets better than it was, and than what can be said without looking."""
    path, held = sets_of(tmp_path)
    words = {
        "out": tmp_path / "run",
        "scenes": tmp_path / "rooms",
        "sets": path,
        "split": tmp_path / "train.json",
        "val_split": tmp_path / "unseen.json",
        "val_limit": 60,
        "mix": "800 @ synthetic",
        "epochs": 6,
        "device": "cpu",
    }
    config = load(TrainVGGTConfig, [f"{name}={value}" for name, value in words.items()], Path("vggt_tiny"))
    task, model = make_task(config, console)
    assert task.held_out is not None
    draws = [Draw(scene=one.scene, names=one.members) for one in held]
    of_seen_rooms = replace(task.held_out, views=task.train.views, draws=draws[:60])
    found = {"constant": measured(task, of_seen_rooms, constant_of(task, 30))}
    found["before"] = measured(task, of_seen_rooms, model)
    unseen = {"constant": measured(task, task.held_out, constant_of(task, 30))}
    fit(task, config, console)
    found["after"] = measured(task, of_seen_rooms, model)
    unseen["before"], *_, unseen["after"] = validations(config)
    print(json.dumps({"sets of rooms that were seen": found, "rooms that were not": unseen}, indent=1))
    for measures, dense, auc in ((found, 0.7, 10), (unseen, 1.0, 3)):
        start, end, blind = measures["before"], measures["after"], measures["constant"]
        assert end["loss"] < start["loss"] / 2
        assert end["pointmaps_abs_rel"] < dense * min(start["pointmaps_abs_rel"], blind["pointmaps_abs_rel"])
        assert end["pose_auc_30"] > auc + max(start["pose_auc_30"], blind["pose_auc_30"])


@torch.no_grad()
def measured(task: VGGTTask, held_out: HeldOut, model: nn.Module) -> Measures:
    loss = (lambda batch: {"loss": torch.zeros(())}) if isinstance(model, Constant) else None
    return held_out.measure(model.eval(), loss or (lambda batch: task.loss(model, batch)), Shard())


def learns(config: TrainVGGTConfig, console: Console) -> tuple[list[float], Measures, Measures]:
    """Train, and measure the very sets that are trained on: losses by step, measures before and after."""
    task, model = make_task(config, console)
    views, sets = task.train.views, task.train.draws
    places = [(dataset, i) for dataset, count in sets.counts().items() for i in range(count)]
    draws = [sets.draw(dataset, i, config.views[1], None) for dataset, i in places]
    size = (config.pixels[0], config.pixels[1])
    task.held_out = HeldOut(views=views, draws=draws, look=Look(size=size), max_images=12, form="mended")
    with torch.no_grad():
        before = task.validate(model.eval(), Shard())
    fit(task, config, console)
    rows = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "step"], before, rows[-1]


@pytest.fixture
def three_sets(request, few_sets, tmp_path: Path) -> dict[str, object]:
    """Words for training on three sets of a room, or on one of each of three recordings."""
    if request.param == "a room":
        rooms = request.getfixturevalue("rooms")
        return {"scenes": rooms.scenes, "scene": "*/room_0", "sets": few_sets(3), "mix": "1200 @ synthetic"}
    scenes, path = str(request.getfixturevalue("real_scenes")), tmp_path / "sets.json"
    make(SetsConfig(scenes=scenes, out=str(path), set_views=3), Console(file=io.StringIO()))
    datasets = ("hololens", "icl_nuim", "tsdf")
    sets = {one.scene.partition("/")[0]: one for one in read_sets(path) if len(one.members) == 3}
    write_sets(path, [sets[dataset] for dataset in datasets], sampler={"views": 3})
    mix = " + ".join(f"400 @ {dataset}" for dataset in datasets)
    return {"scenes": scenes, "scene": "*", "sets": path, "mix": mix}


@pytest.mark.slow
@pytest.mark.parametrize("three_sets", ["a room", "real scenes"], indirect=True)
def test_the_tiny_preset_overfits_a_few_sets(three_sets, console, tmp_path):
    words = {"out": tmp_path / "run", **three_sets, "max_images": 9, "epochs": 1, "device": "cpu"}
    config = load(TrainVGGTConfig, [f"{name}={value}" for name, value in words.items()], Path("vggt_tiny"))
    losses, before, after = learns(config, console)
    assert losses[-1] < losses[0] / 10
    assert before["pose_auc_30"] < 20
    assert after["pose_auc_30"] > 80


def test_it_learns_two_sets(training, few_sets, console):
    config = training(
        sets=few_sets(2),
        val_scene=None,
        mix="140 @ synthetic",
        views=[3, 3],
        max_images=6,
        lr=4e-3,
        checkpoint_every=None,
    )
    losses, before, after = learns(config, console)
    assert losses[-1] < losses[0] / 3
    assert after["pose_auc_30"] > before["pose_auc_30"] + 40
    assert after["ray_dirs_err_deg"] < 5
