"""Measures of held-out sets, of several datasets each by itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from strata.train import held_out
from strata.train.curve_panels import panels
from strata.train.distributed import Shard
from strata.train.held_out_table import show_datasets
from strata.train.vggt_command import make_task, run


@pytest.fixture
def two_datasets(rooms, tmp_path) -> str:
    """A root with the rooms, and with the first and third of them as a dataset of their own."""
    root = tmp_path / "data"
    shutil.copytree(rooms.folder / "scenes" / "synthetic", root / "synthetic")
    for room in (0, 2):
        shutil.copytree(root / "synthetic" / f"room_{room}", root / "other" / f"room_{room}")
    return str(root)


def test_each_dataset_has_the_mean_of_its_own_sets(training, two_datasets, console):
    config = training(scenes=two_datasets, val_scene="*/room_[02]", scene="*/room_1", max_images=3)
    task, model = make_task(config, console)
    # Unequal parts: the mean of all is no mean of means.
    draws = [one for one in task.held_out.draws if one.scene != "other/room_0"]
    task.held_out = replace(task.held_out, draws=draws)
    with torch.no_grad():
        together = task.validate(model.eval(), Shard())
        for dataset in ("other", "synthetic"):
            own = [one for one in draws if one.scene.startswith(f"{dataset}/")]
            task.held_out = replace(task.held_out, draws=own)
            alone = task.validate(model, Shard())
            assert set(alone) <= {"loss", *held_out.NAMES}
            for name, value in alone.items():
                assert together[f"{dataset}/{name}"] == pytest.approx(value, rel=1e-6), name
    assert set(together) == {f"{part}{name}" for part in ("", "other/", "synthetic/") for name in alone}
    sizes = [sum(one.scene.startswith(part) for one in draws) for part in ("other", "synthetic")]
    mean = (sizes[0] * together["other/loss"] + sizes[1] * together["synthetic/loss"]) / sum(sizes)
    assert together["loss"] == pytest.approx(mean, rel=1e-9)
    assert together["other/loss"] != pytest.approx(together["synthetic/loss"], rel=1e-3)


def test_a_run_logs_them_keeps_the_best_of_one_and_ends_with_a_table(training, two_datasets, console):
    config = training(scenes=two_datasets, val_scene="*/room_2", scene="*/room_1", best="min:other/loss")
    run(config, console)
    rows = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    assert {"loss", "other/loss", "synthetic/loss", "other/pose_auc_30"} <= rows[-1].keys()
    said = console.file.getvalue()
    (line,) = (line for line in said.splitlines() if line.startswith("epoch 1 of 1: loss "))
    assert "/" not in line
    (heading,) = (line for line in said.splitlines() if line.startswith("held out"))
    assert heading.split() == ["held", "out", "other", "synthetic", "all", "sets"]
    (loss,) = (line.split() for line in said.splitlines() if line.startswith("loss "))
    assert [float(cell) for cell in loss[1:]] == pytest.approx(
        [rows[-1][name] for name in ("other/loss", "synthetic/loss", "loss")], rel=1e-3
    )
    assert (Path(config.out) / "best").is_dir()
    (panel,) = (panel for panel in panels(rows) if panel.title == "loss")
    assert [line.label for line in panel.lines[1:]] == ["validation", "other", "synthetic"]


def test_one_dataset_needs_no_table(console):
    show_datasets({"loss": 1.0, "pose_auc_30": None}, console)
    assert not console.file.getvalue()
    show_datasets({"loss": 1.0, "a/loss": 1.0, "a/x": 2.0, "b/loss": None, "x": 2.0}, console)
    assert [line.split() for line in console.file.getvalue().splitlines()[1:]] == [
        ["loss", "1", "-", "1"],
        ["x", "2", "-", "2"],
    ]
