"""The loop in one process: what it leaves, and how it goes on."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from strata.errors import TrainError

from .fitted import rows, said, same, weights


def test_a_run_learns_and_leaves_its_records(train, tmp_path, console):
    fitted = train(epochs=12, curves=True, pictures_every=5)
    assert fitted.step == 60
    steps = [row for row in rows(fitted) if row["kind"] == "step"]
    errors = [row["error"] for row in rows(fitted) if row["kind"] == "validation"]
    assert [row["step"] for row in steps] == list(range(1, 61))
    assert errors[-1] < 0.8 * errors[0]
    assert fitted.metrics == {"error": errors[-1]}
    assert fitted.best.value == min(errors)
    assert {"loss", "mae", "lr", "grad_norm/*", "items_per_s", "wait_share", "epoch"} <= set(steps[0])
    assert steps[0]["lr"] == pytest.approx(1e-8)
    assert max(row["lr"] for row in steps) == pytest.approx(1e-2)
    assert all(0 <= row["wait_share"] <= 1 for row in steps)
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written["command"] == "toy again"
    assert written["options"]["epochs"] == 12
    assert (tmp_path / "run" / "curves.html").exists()
    assert "103 of 103 parameters, 12 epochs of 5 steps, float32 on cpu" in said(console)
    assert f"epoch 12 of 12: error {errors[-1]:.4g}" in said(console)


def test_what_was_before_the_first_step_is_measured_once_and_is_never_the_best(train, toy, tmp_path):
    class Worse(toy.Toy):
        def validate(self, model, shard):
            return {"error": float(model.passes)}

    fitted = train(Worse(), validate_first=True, epochs=2, best="min:error")
    measured = [(row["step"], row["epoch"]) for row in rows(fitted) if row["kind"] == "validation"]
    assert measured == [(0, 0), (5, 1), (10, 2)]
    assert (fitted.best.step, fitted.best_checkpoint.name) == (5, "step-00000005")
    assert same(fitted, train(out="plain", epochs=2))
    again = train(Worse(), validate_first=True, epochs=3, best="min:error")
    assert sum(row["kind"] == "validation" for row in rows(again)) == 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 15


def test_the_newest_checkpoints_and_the_best_stay(train, toy):
    class Worse(toy.Toy):
        count = 0

        def validate(self, model, shard):
            self.count += 1
            return {"error": [3.0, 1.0, 2.0, float("nan")][self.count - 1]}

    fitted = train(Worse())
    folder = fitted.checkpoint.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "best",
        "step-00000010",
        "step-00000018",
        "step-00000020",
    ]
    assert os.readlink(folder / "best") == "step-00000010"
    assert fitted.best_checkpoint == folder / "step-00000010"
    assert fitted.metrics == {"error": None}


def test_the_same_call_on_a_finished_run_does_nothing_and_says_so(train, toy, console):
    first, task = train(), toy.Toy()
    assert "finished already" not in said(console)
    again = train(task)
    assert task.calls == 0
    assert "finished already, with 4 epochs and 20 steps: nothing is left to train" in said(console)
    assert "epochs=5 or more trains longer" in said(console)
    assert "goes on" not in said(console)
    assert (again.step, again.metrics, again.best) == (first.step, first.metrics, first.best)
    assert torch.equal(task.model.head.weight, weights(first)["head.weight"])


def test_more_epochs_go_on(train, console):
    train(epochs=2)
    fitted = train(epochs=3, checkpoint_every=None)
    assert fitted.step == 15
    assert "goes on after step 10" in said(console)
    assert "finished already" not in said(console)
    assert "epochs: 2 until here, now 3" in said(console)
    assert [row["step"] for row in rows(fitted) if row["kind"] == "step"] == list(range(1, 16))


def test_other_settings_are_not_continued(train, toy):
    class Moved(toy.Toy):
        def identity(self):
            return {"data": {"fingerprint": "b"}}

    train(epochs=1)
    with pytest.raises(TrainError, match="other settings") as caught:
        train(Moved(), lr=0.5, weight_decay=0.1, epochs=2)
    assert caught.value.why.splitlines() == [
        "lr: the checkpoint has 0.01, asked is 0.5",
        "weight_decay: the checkpoint has 0.05, asked is 0.1",
        'task.data.fingerprint: the checkpoint has nothing, asked is "b"',
    ]
    assert "may change: out, epochs, accumulate" in caught.value.fix
    assert caught.value.where.endswith("step-00000005")


@pytest.mark.parametrize(
    ("at", "precision"), [(2, "float32"), (5, "float32"), (20, "float32"), (7, "float16")]
)
def test_ctrl_c_finishes_the_step_and_leaves_a_checkpoint(train, toy, console, at, precision):
    class Stopped(toy.Toy):
        def loss(self, model, batch):
            values = super().loss(model, batch)
            if self.calls == at:
                signal.raise_signal(signal.SIGINT)
            return values

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), precision=precision)
    assert signal.getsignal(signal.SIGINT) is before
    assert f"stopped after step {at} of 20; the same command goes on from there: toy again" in said(console)
    whole, resumed = train(out="whole", precision=precision), train(precision=precision)
    assert same(whole, resumed)
    # Also the validation of an epoch whose last step was the one that was stopped at.
    assert [row["kind"] for row in rows(resumed)] == [row["kind"] for row in rows(whole)]


def test_a_second_ctrl_c_does_not_wait(train, toy):
    class Impatient(toy.Toy):
        def loss(self, model, batch):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        train(Impatient())


def test_validation_and_pictures_change_no_parameter(train, toy, tmp_path):
    class Draws(toy.Toy):
        def pictures(self, model, epoch, folder):
            assert not model.training
            assert not torch.is_grad_enabled()
            torch.rand(3)
            (folder / "a.txt").write_text(str(epoch))

    one = train(Draws(), out="one", pictures_every=3)
    two = train(out="two", validate_every=3, checkpoint_every=None)
    assert same(one, two)
    drawn = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("a.txt"))
    assert [str(path) for path in drawn] == [
        "one/pictures/epoch-0003/a.txt",
        "one/pictures/epoch-0004/a.txt",
    ]
    assert [row["epoch"] for row in rows(two) if row["kind"] == "validation"] == [3, 4]
