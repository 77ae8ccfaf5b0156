"""A VGGT for whose batches memory is too small goes on in smaller pieces."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strata.errors import TrainError

from . import short_of_memory as short

SCRIPT = Path(__file__).with_name("short_of_memory.py")
NOTICE = "memory ran out: batches are computed in 2 pieces from here on"


def weights(out: str) -> dict[str, torch.Tensor]:
    return load_file(max(Path(out, "checkpoints").glob("step-*")) / "model.safetensors")


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_pieces_are_halved_once_with_a_notice(training, tmp_path, place):
    words = {"val_scene": None, "set_count": 4, "augment": "vggt"}
    short.train(training(out=str(tmp_path / "halves"), accumulate=2, **words))
    said = short.train(training(out=str(tmp_path / "short"), **words), getattr(short, f"short_in_{place}"))
    assert said.count(NOTICE) == 1
    ours, theirs = (weights(str(tmp_path / name)) for name in ("short", "halves"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # The run that goes on with it does not try whole batches again.
    state = max((tmp_path / "short" / "checkpoints").glob("step-*")) / "state.json"
    assert json.loads(state.read_text())["position"]["halved"] is True


def test_one_set_cannot_be_halved(training):
    with pytest.raises(TrainError, match="memory ran out with batches computed in 1 pieces") as caught:
        short.train(training(val_scene=None, max_images=2), short.short_in_backward)
    assert "the batch has 1 items" in caught.value.why


@pytest.mark.slow
def test_of_two_processes_one_runs_out(training, tmp_path):
    # The cameras' loss is a mean over sets, whatever the pieces are; the dense terms are means over a piece.
    words = {"val_scene": None, "set_count": 4, "depth": 0.0, "point": 0.0}
    short.train(training(out=str(tmp_path / "alone"), accumulate=2, max_images=8, **words))
    config = training(out=str(tmp_path / "two"), max_images=4, **words)
    done = subprocess.run(
        [sys.executable, SCRIPT, json.dumps(dataclasses.asdict(config))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (weights(str(tmp_path / name)) for name in ("two", "alone"))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5, msg=name)
    # The second ran out, the first speaks.
    assert (tmp_path / "two" / "said-0.txt").read_text().count(NOTICE) == 1
    assert NOTICE not in (tmp_path / "two" / "said-1.txt").read_text()
