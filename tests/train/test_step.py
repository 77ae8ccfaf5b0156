"""One step: pieces equal the whole, precisions, clipping, and what the scaler does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from strata.errors import TrainError
from strata.train.batch import size, split, to_device
from strata.train.distributed import Shard
from strata.train.schedule import rate
from strata.train.seeding import seed_step
from strata.train.step import Stepper

CPU = torch.device("cpu")


@pytest.fixture
def stepper(toy, tmp_path):
    """A stepper on a toy without noise, and a batch of 7 items."""

    def make(precision="float32", task=None, **changes):
        task = task or toy.Toy(noise=False)
        config = toy.options(tmp_path, **changes)
        return task, Stepper(task, config, precision=precision, device=CPU, shard=Shard())

    return make


@pytest.fixture
def batch(toy):
    task = toy.Toy()
    return {"x": task.x[:7], "y": task.y[:7]}


def test_pieces_with_a_remainder_equal_the_whole(stepper, batch):
    whole_task, whole = stepper(clip=["*:1e9"])
    want = whole.step(batch, 1e-2)
    for accumulate in (2, 3, 7, 20):
        task, pieces = stepper(accumulate=accumulate, clip=["*:1e9"])
        got = pieces.step(batch, 1e-2)
        assert got.items == want.items == 7
        assert got.values["loss"] == pytest.approx(want.values["loss"], rel=1e-6)
        assert got.norms["*"] == pytest.approx(want.norms["*"], rel=1e-5)
        for ours, theirs in zip(task.model.parameters(), whole_task.model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_groups_are_clipped_by_themselves(stepper, batch):
    task, stepping = stepper(clip=["head.*:0.5", "*:1e9"])
    seen = {}
    real = stepping.optimiser.step
    stepping.optimiser.step = lambda *args: (
        seen.update({name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None})
        or real(*args)
    )
    norms = stepping.step(batch, 1e-2).norms
    assert list(norms) == ["head.*", "*"]

    def norm(prefix):
        return math.sqrt(sum(float((g**2).sum()) for name, g in seen.items() if name.startswith(prefix)))

    assert norms["head.*"] > 0.5
    assert norm("head.") == pytest.approx(0.5, rel=1e-4)
    assert norm("body.") == pytest.approx(norms["*"], rel=1e-4)
    assert all(p.grad is None for p in task.model.parameters())


def test_autocast_and_scaler_by_precision(stepper, batch, toy):
    class Sees(toy.Toy):
        def loss(self, model, batch):
            self.dtype = model(batch["x"]).dtype
            return super().loss(model, batch)

    for precision in ("float32", "bfloat16", "float16"):
        task, stepping = stepper(precision, Sees(noise=False), clip=["*:1e9"])
        before = task.model.head.weight.detach().clone()
        outcome = stepping.step(batch, 1e-2)
        assert bool(outcome.skipped) == (precision == "float16")
        while outcome.skipped:
            assert not outcome.bad
            assert torch.equal(task.model.head.weight, before)
            outcome = stepping.step(batch, 1e-2)
        assert task.dtype == getattr(torch, precision)
        assert stepping.scaler.is_enabled() == (precision == "float16")
        assert outcome.norms["*"] == pytest.approx(19.19, rel=0.02)  # that is, not scaled
        assert not torch.equal(task.model.head.weight, before)


def test_an_overflow_in_float16_is_no_bad_step_until_the_scale_is_one(stepper, batch, toy):
    class Overflows(toy.Toy):
        def loss(self, model, batch):
            root = (model.head.bias * 0).sum().sqrt()  # 0, with an infinite slope
            return {"loss": super().loss(model, batch)["loss"] + root}

    _, stepping = stepper("float16", Overflows(noise=False))
    bad = []
    for expected in [2.0**k for k in range(15, -2, -1)]:
        outcome = stepping.step(batch, 1e-2)
        assert outcome.skipped
        assert stepping.scaler.get_scale() == expected
        bad.append(outcome.bad)
    assert bad == [False] * 16 + [True]


def test_the_rate_rises_and_falls():
    words = {"peak": 5e-5, "floor": 1e-8, "warmup": 0.05}
    assert rate(0.0, **words) == 1e-8
    assert rate(0.025, **words) == pytest.approx((5e-5 + 1e-8) / 2)
    assert rate(0.05, **words) == pytest.approx(5e-5)
    assert rate(0.525, **words) == pytest.approx((5e-5 + 1e-8) / 2)
    assert rate(1.0, **words) == pytest.approx(1e-8)
    assert rate(1.5, **words) == pytest.approx(1e-8)
    assert rate(0.0, peak=1.0, floor=0.0, warmup=0.0) == 1.0


def test_a_batch_is_split_without_loss():
    batch = {
        "x": torch.arange(14).view(7, 2),
        "names": list("abcdefg"),
        "k": np.arange(7),
        "scale": torch.ones(()),
    }
    pieces = split(batch, 3)
    assert [size(piece) for piece in pieces] == [2, 2, 3]
    assert torch.equal(torch.cat([piece["x"] for piece in pieces]), batch["x"])
    assert [name for piece in pieces for name in piece["names"]] == batch["names"]
    assert all(piece["scale"] is batch["scale"] for piece in pieces)
    assert len(split(batch, 9)) == 7
    assert to_device(batch, CPU)["names"] is batch["names"]
    for wrong, why in (
        ({"x": torch.ones(2), "y": [1]}, "x has 2, y has 1"),
        ({"x": []}, "x has 0"),
        ({}, "first dimension"),
    ):
        with pytest.raises(TrainError) as caught:
            size(wrong)
        assert why in caught.value.why


def test_random_numbers_belong_to_seed_step_and_rank():
    def drawn(*where):
        seed_step(where[0], where[1], Shard(rank=where[2], count=2))
        return float(torch.rand(())), float(np.random.rand())

    assert drawn(0, 1, 0) == drawn(0, 1, 0)
    assert len({drawn(*where) for where in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))}) == 4
