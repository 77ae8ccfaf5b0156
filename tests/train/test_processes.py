"""Runs that die end with the bits of one that did not; two processes train as one."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file

LAST, BEST = "checkpoints/step-00000020", "checkpoints/best"
TIMES = ("items_per_s", "wait_share")


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def untimed(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(folder)]


@pytest.mark.parametrize("name", ["killed", "stopped", "model", "optimiser", "rename", "prune", "end"])
def test_a_run_that_ended_early_becomes_the_run_that_did_not(runs, name):
    folder, codes = runs
    deaths = {130} if name == "stopped" else {-9}
    assert set(codes[name][:-1]) <= {*deaths, 0}
    assert codes[name][0] in deaths
    assert codes[name][-1] == 0
    for file in ("model.safetensors", "optimiser.safetensors"):
        assert (folder / name / LAST / file).read_bytes() == (folder / "whole" / LAST / file).read_bytes()
    assert untimed(folder / name) == untimed(folder / "whole")
    left = {path.name for path in (folder / name / "checkpoints").iterdir()}
    assert left == {path.name for path in (folder / "whole" / "checkpoints").iterdir()}
    assert os.readlink(folder / name / BEST) == os.readlink(folder / "whole" / BEST)


def test_a_run_that_was_stopped_says_how_to_go_on(runs):
    said = (runs[0] / "stopped" / "said.txt").read_text()
    assert said.count("; the same command goes on from there: toy again\n") == 2
    assert said.count("goes on after step ") == 2


def test_two_processes_equal_one_that_accumulates(runs):
    folder, codes = runs
    assert codes["together"] == [0, 0]
    one, two = (load_file(folder / name / LAST / "model.safetensors") for name in ("alone", "together"))
    # One process makes two passes a step; of two, the first does too once the second had no memory for one.
    assert (one.pop("passes"), two.pop("passes")) == (40, 39)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    for ours, theirs in zip(rows(folder / "together"), rows(folder / "alone"), strict=True):
        for name in set(theirs) - {*TIMES, "kind"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


def test_a_parameter_that_nothing_uses_does_not_decay(runs, toy):
    for name in ("alone", "together"):
        after = load_file(runs[0] / name / LAST / "model.safetensors")["spare.weight"]
        assert torch.equal(after, toy.Toy().model.spare.weight)
