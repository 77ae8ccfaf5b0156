"""The loop in one process: what it leaves, continues and refuses, and what it does with bad steps."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file
from strata.errors import ConfigError, TrainError
from strata.train.fit import fit


@pytest.fixture
def train(toy, tmp_path, console):
    """Fit a toy into a folder; changes of options by name."""

    def run(task=None, out="run", **changes):
        words = {"curves": False, **changes}
        return fit(task or toy.Toy(), toy.options(tmp_path / out, **words), console, command="toy again")

    return run


def said(console) -> str:
    return console.file.getvalue()


def rows(fitted):
    log = fitted.checkpoint.parents[1] / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def weights(fitted):
    return load_file(fitted.checkpoint / "model.safetensors")


def same(one, two) -> bool:
    return all(torch.equal(weights(one)[name], weights(two)[name]) for name in weights(one))


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
