"""Which parameters are trained, how fast, with what decay, and what is frozen."""

from __future__ import annotations

import pytest
import torch
from strata.errors import ConfigError
from strata.train.freeze import freeze
from strata.train.optimiser import adamw, clip_groups, set_rate, trainable
from torch import nn


@pytest.fixture
def model() -> nn.Module:
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()),
            "head": nn.Sequential(nn.Linear(2, 2), nn.Dropout()),
        }
    )


def test_groups_follow_from_names(model, toy, tmp_path):
    parameters = trainable(model)
    words = {"lr_scale": ["encoder.0.*:0.1", "encoder.*:0.5"], "no_decay": ["*.bias"], "weight_decay": 0.2}
    optimiser = adamw(parameters, toy.options(tmp_path, betas=[0.8, 0.9], **words))
    set_rate(optimiser, 1e-3)
    names = {id(p): name for name, p in parameters.items()}
    found = {
        names[id(p)]: (pytest.approx(group["lr"]), group["weight_decay"])
        for group in optimiser.param_groups
        for p in group["params"]
    }
    assert found == {
        "encoder.0.weight": (1e-4, 0.2),
        "encoder.0.bias": (1e-4, 0.0),
        "encoder.1.weight": (5e-4, 0.2),
        "encoder.1.bias": (5e-4, 0.0),
        "head.0.weight": (1e-3, 0.2),
        "head.0.bias": (1e-3, 0.0),
    }
    assert optimiser.param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("option", "word", "message", "fix"),
    [
        ("lr_scale", "encodr.*:0.1", "fits nothing", "did you mean encoder"),
        ("lr_scale", "encoder.*", "not of the form", "lr_scale=encoder.*:1.0"),
        ("clip", "head*:-1", "not of the form", "clip=head*:1.0"),
        ("no_decay", "*.scale", "fits nothing", "known names"),
    ],
)
def test_words_that_fit_nothing(model, toy, tmp_path, option, word, message, fix):
    parameters, config = trainable(model), toy.options(tmp_path, **{option: [word]})
    with pytest.raises(ConfigError, match=message) as caught:
        clip_groups(parameters, config) if option == "clip" else adamw(parameters, config)
    assert caught.value.where == option
    assert fix in caught.value.fix


def test_every_trained_parameter_is_clipped(model, toy, tmp_path):
    groups = clip_groups(trainable(model), toy.options(tmp_path, clip=["encoder*:1", "*:2"]))
    assert [(group.name, group.norm, len(group.parameters)) for group in groups] == [
        ("encoder*", 1.0, 4),
        ("*", 2.0, 2),
    ]
    with pytest.raises(ConfigError, match="2 trainable parameters belong to no group") as caught:
        clip_groups(trainable(model), toy.options(tmp_path, clip=["encoder*:1"]))
    assert caught.value.why == "head.0.weight, head.0.bias"
    freeze(model, ["head"])
    assert len(clip_groups(trainable(model), toy.options(tmp_path, clip=["encoder*:1"]))) == 1


def test_frozen_modules_stay_as_they_are(model):
    assert freeze(model, ["enc*"]) == ["encoder", "encoder.0", "encoder.1", "encoder.2"]
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes == {
        "": True,
        "encoder": False,
        "encoder.0": False,
        "encoder.1": False,
        "encoder.2": False,
        "head": True,
        "head.0": True,
        "head.1": True,
    }
    model["encoder"].train()
    assert not model["encoder"][2].training
    assert list(trainable(model)) == ["head.0.weight", "head.0.bias"]
    before = model["encoder"][1].running_mean.clone()
    model["encoder"](torch.randn(8, 2) + 5)
    assert torch.equal(model["encoder"][1].running_mean, before)


def test_a_glob_that_freezes_nothing_or_all(model):
    with pytest.raises(ConfigError, match="freeze=\\*agregator\\* fits nothing"):
        freeze(model, ["*agregator*"])
    with pytest.raises(ConfigError, match="no parameter is left to train") as caught:
        freeze(model, ["*"])
    assert caught.value.why == "freeze=*"
