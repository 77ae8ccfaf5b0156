"""What a run refuses: folders in use, tasks and options that cannot be meant."""

from __future__ import annotations

import sys

import pytest
from strata.errors import ConfigError, TrainError


def test_two_runs_do_not_share_a_folder(train, toy):
    class Nested(toy.Toy):
        def loss(self, model, batch):
            with pytest.raises(TrainError, match="another process trains into this folder"):
                train()
            return super().loss(model, batch)

    train(Nested(), epochs=1)


def test_what_a_task_promises_is_held(train, toy):
    class Short(toy.Toy):
        def steps(self, shard):
            return 6

    class Endless(toy.Toy):
        def steps(self, shard):
            return None

    class Silent(toy.Toy):
        def loss(self, model, batch):
            return {"mae": super().loss(model, batch)["loss"]}

    with pytest.raises(TrainError, match="batches of epoch 0 ended after 5"):
        train(Short(), out="short")
    with pytest.raises(ConfigError, match="steps_per_epoch must be given"):
        train(Endless())
    assert train(Endless(), out="endless", steps_per_epoch=3).step == 12
    with pytest.raises(ConfigError, match="an epoch of 9 steps cannot be had") as caught:
        train(steps_per_epoch=9)
    assert caught.value.why == "the task has 5 batches"
    with pytest.raises(TrainError, match="no scalar that can be trained on") as caught:
        train(Silent(), out="silent")
    assert caught.value.why == "it returned mae"
    with pytest.raises(TrainError, match="no metric 'auc'") as caught:
        train(out="auc", best="max:auc")
    assert caught.value.why == "it returned error"


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("epochs", 0, "epochs=1 or more"),
        ("checkpoint_every", 0, "checkpoint_every=none"),
        ("lr", -1.0, "not negative"),
        ("warmup", 1.0, "share of all steps"),
        ("betas", [0.9], "two numbers"),
        ("precision", "bf16", "bfloat16"),
        ("best", "error", "max:error"),
        ("log", ["tensorbord"], "tensorboard"),
    ],
)
def test_options_that_cannot_be_meant(train, name, value, fix):
    with pytest.raises(ConfigError) as caught:
        train(**{name: value})
    assert caught.value.where == name
    assert fix in caught.value.fix


def test_a_run_that_could_not_start_holds_no_lock(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainError, match="wandb is not installed"):
        train(log=["wandb"])
    assert train(epochs=1).step == 5


def test_a_gpu_that_is_not_there(train):
    with pytest.raises(TrainError, match="device=cuda is not there"):
        train(device="cuda")
