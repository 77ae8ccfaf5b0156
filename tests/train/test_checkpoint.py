"""Checkpoints come back, say what is wrong with them, and run no code."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import SafetensorError
from strata.errors import DiskFullError, TrainError
from strata.train import checkpoint
from strata.train.checkpoint import Checkpoints, load_model, load_optimiser, optimiser_tensors, read_state
from strata.train.log import Log, read_log
from strata.train.position import Best, Position, better
from torch import nn


class Tied(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.still = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x):
        return self.two(self.one(x))


def trained(width: int = 3):
    torch.manual_seed(0)
    model = Tied(width)
    groups = [{"params": [model.two.bias]}, {"params": [model.one.weight, model.one.bias]}]
    optimiser = torch.optim.AdamW(groups)
    return model, optimiser


def step(model, optimiser):
    model(torch.ones(2, 3)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


def test_model_and_optimiser_come_back(tmp_path):
    model, optimiser = trained()
    step(model, optimiser)
    path = Checkpoints(folder=tmp_path).save(1, model, optimiser, {"a": 1}, None)
    assert sorted(os.listdir(path)) == ["model.safetensors", "optimiser.safetensors", "state.json"]
    assert read_state(path) == {"format": 1, "step": 1, "a": 1}
    other, its = trained()
    load_model(path, other)
    load_optimiser(path, other, its)
    assert other.two.weight is other.one.weight
    for _ in range(2):
        step(model, optimiser)
        step(other, its)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    ours, theirs = optimiser_tensors(model, optimiser), optimiser_tensors(other, its)
    assert {name.rpartition("|")[0] for name in ours} == {"one.weight", "one.bias", "two.bias"}
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_a_step_that_is_saved_again_changes_only_its_state(tmp_path):
    model, optimiser = trained()
    checkpoints = Checkpoints(folder=tmp_path, keep=1)
    path = checkpoints.save(4, model, optimiser, {"epochs": 0}, None)
    inode = (path / "model.safetensors").stat().st_ino
    checkpoints.save(4, model, optimiser, {"epochs": 1}, 4)
    assert read_state(path)["epochs"] == 1
    assert (path / "model.safetensors").stat().st_ino == inode
    assert (tmp_path / "best").resolve() == path.resolve()


def test_another_model_and_damage_are_named(tmp_path):
    model, optimiser = trained()
    step(model, optimiser)
    path = Checkpoints(folder=tmp_path).save(1, model, optimiser, {}, None)
    other, _ = trained(4)
    with pytest.raises(TrainError, match="of another model") as caught:
        load_model(path, other)
    assert caught.value.why.startswith("4 tensors are missing, new or of another shape: one.weight")
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-5])
    with pytest.raises(TrainError, match="cannot be read") as caught:
        load_model(path, model)
    assert caught.value.where == str(path)
    assert "remove this folder" in caught.value.fix
    for text in ("{", json.dumps({"format": 9}), "[]"):
        (path / "state.json").write_text(text)
        with pytest.raises(TrainError, match="cannot be read"):
            read_state(path)
    bare = nn.ModuleDict({"one": model.one})
    with pytest.raises(TrainError, match="of another model") as caught:
        load_optimiser(path, bare, torch.optim.AdamW(bare.parameters()))
    assert "two.bias" in caught.value.why


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    model, optimiser = trained()
    checkpoints = Checkpoints(folder=tmp_path)
    checkpoints.save(1, model, optimiser, {}, None)

    def full(tensors, path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskFullError) as caught:
        checkpoints.save(2, model, optimiser, {}, None)
    assert caught.value.where == str(checkpoints.path(2))
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_a_log_goes_on_from_the_checkpoint(tmp_path):
    log = Log(tmp_path)
    log.write({"step": 1, "loss": None})
    kept = log.settle()
    log.write({"step": 2})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": None}, {"step": 2}]
    again = Log(tmp_path, kept)
    again.write({"step": 2})
    again.close()
    assert read_log(tmp_path) == [{"step": 1, "loss": None}, {"step": 2}]
    Log(tmp_path, 10_000).close()
    assert read_log(tmp_path)[-1] == {"step": 2}


def test_the_best_epoch():
    first = better("max:auc", {"auc": 0.5}, 10, None)
    assert first == Best(value=0.5, step=10)
    assert better("max:auc", {"auc": 0.5}, 20, first) is first
    assert better("max:auc", {"auc": None}, 20, first) is first
    assert better("max:auc", {"auc": 0.6}, 20, first) == Best(value=0.6, step=20)
    assert better("min:auc", {"auc": 0.4}, 20, first) == Best(value=0.4, step=20)
    position = Position(step=3, best=first, metrics={"auc": 0.5})
    assert Position.from_dict({**position.__dict__, "best": {"value": 0.5, "step": 10}}) == position
