"""It learns: a few sets by heart, and of many rooms what helps in rooms that it never saw."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from rich.console import Console
from strata.configs.load import load
from strata.configs.schema import SynthConfig, TrainVGGTConfig
from strata.extract.encoders.vggt.pose_encoding import encode_pose
from strata.extract.scenes.synth_command import synth
from strata.kernels.geometry import invert_rigid
from strata.store.view_sets import read_sets, write_sets
from strata.train.distributed import Shard
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


@pytest.mark.slow
def test_the_tiny_preset_learns_rooms_that_it_never_saw(console, tmp_path):
    """The README's run: better than before, and than what can be said without looking."""
    words = {
        "out": tmp_path / "run",
        "scenes": synthesised(tmp_path / "rooms", scenes=30, views=8, width=84, height=63),
        "split": "train",
        "val_split": "val",
        "device": "cpu",
    }
    config = load(TrainVGGTConfig, [f"{name}={value}" for name, value in words.items()], Path("vggt_tiny"))
    task, _ = make_task(config, console)
    assert task.held_out is not None
    with torch.no_grad():
        blind = task.held_out.measure(constant_of(task, 30), lambda batch: {"loss": torch.zeros(())}, Shard())
    fit(task, config, console)
    before, *_, after = validations(config)
    print(json.dumps({"constant": blind, "before": before, "after": after}, indent=1))
    assert after["loss"] < before["loss"] / 3
    for name in ("pointmaps_abs_rel", "z_depth_abs_rel"):
        assert after[name] < 0.7 * min(before[name], blind[name]), (name, before, blind, after)
    assert after["pose_auc_30"] > 10 + max(before["pose_auc_30"], blind["pose_auc_30"])


def learns(config: TrainVGGTConfig, console: Console) -> tuple[list[float], Measures, Measures]:
    """Train, and measure the very sets that are trained on: losses by step, measures before and after."""
    task, model = make_task(config, console)
    views, sets = task.train.views, task.train.draws
    draws = [sets.draw("synthetic", i, config.views[1], None) for i in range(sets.counts()["synthetic"])]
    size = (config.pixels[0], config.pixels[1])
    task.held_out = HeldOut(views=views, draws=draws, look=Look(size=size), max_images=12, form="mended")
    with torch.no_grad():
        before = task.validate(model.eval(), Shard())
    fit(task, config, console)
    rows = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "step"], before, rows[-1]


@pytest.fixture
def few_sets(rooms, tmp_path: Path) -> Callable[[int], str]:
    """A file with some sets of the first room."""

    def written(count: int) -> str:
        sets = [one for one in read_sets(rooms.sets) if one.scene.endswith("room_0")][:count]
        write_sets(tmp_path / "few.json", sets, sampler={"views": 3, "count": count})
        return str(tmp_path / "few.json")

    return written


@pytest.mark.slow
def test_the_tiny_preset_overfits_a_few_sets(rooms, few_sets, console, tmp_path):
    """On three sets of a room."""
    words = {
        "out": tmp_path / "run",
        "scenes": rooms.scenes,
        "scene": "*/room_0",
        "sets": few_sets(3),
        "max_images": 9,
        "mix": "600 @ synthetic",
        "epochs": 1,
        "device": "cpu",
    }
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
