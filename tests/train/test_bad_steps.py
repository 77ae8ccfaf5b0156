"""Steps that are not finite, and memory that runs out."""

from __future__ import annotations

import pytest
import torch
from strata.errors import TrainError

from .fitted import rows, said, weights


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped(train, toy, console, wrong):
    class Spoilt(toy.Toy):
        def loss(self, model, batch):
            values = super().loss(model, batch)
            return {"loss": values["loss"] * (wrong if self.calls == 7 else 1.0)}

    seen = []

    class Watching(Spoilt):
        def loss(self, model, batch):
            seen.append(model.head.weight.detach().clone())
            return super().loss(model, batch)

    fitted = train(Watching())
    assert torch.equal(seen[6], seen[7])
    assert not torch.equal(seen[7], seen[8])
    skipped = [row for row in rows(fitted) if "skipped" in row]
    assert [(row["step"], row["loss"]) for row in skipped] == [(7, None)]
    assert "step 7 is skipped: the loss is" in said(console)
    assert all(value.isfinite().all() for value in weights(fitted).values())


def test_a_gradient_that_is_not_finite_is_skipped(train, toy):
    class Steep(toy.Toy):
        def loss(self, model, batch):
            values = super().loss(model, batch)
            if self.calls == 3:
                root = (model.spare.weight * 0).sum().sqrt()  # 0, with an infinite slope
                return {**values, "loss": values["loss"] + root}
            return values

    fitted = train(Steep())
    assert [row["skipped"] for row in rows(fitted) if "skipped" in row] == ["the gradient of * is not finite"]
    assert all(value.isfinite().all() for value in weights(fitted).values())


def test_too_many_bad_steps_in_a_row_end_the_run(train, toy):
    class Lost(toy.Toy):
        def loss(self, model, batch):
            values = super().loss(model, batch)
            return {"loss": values["loss"] * (float("nan") if self.calls in (2, 3, 5, 6, 7) else 1.0)}

    task = Lost()
    with pytest.raises(TrainError, match="3 steps in a row were skipped") as caught:
        train(task, bad_steps=3)
    assert task.calls == 7
    assert caught.value.why == "the loss is nan"


def test_memory_that_runs_out_halves_the_pieces_once(train, toy, console):
    class Small(toy.Toy):
        room = 4

        def loss(self, model, batch):
            if len(batch["x"]) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(model, batch)

    whole, halved = train(toy.Toy(noise=False), out="whole"), train(Small(noise=False))
    for name, value in weights(halved).items():
        if name != "passes":
            torch.testing.assert_close(value, weights(whole)[name], rtol=0, atol=1e-6)
    assert said(console).count("memory ran out: batches are computed in 2 pieces from here on") == 1
    assert train(Small(noise=False), epochs=5).step == 25  # the checkpoint knows
    assert said(console).count("memory ran out") == 1

    class Smaller(Small):
        room = 3

    with pytest.raises(TrainError, match="memory ran out with batches computed in 2 pieces") as caught:
        train(Smaller(), out="smaller")
    assert caught.value.fix == "accumulate=4 divides further"
    assert train(Smaller(), out="smaller", accumulate=4).step == 20
